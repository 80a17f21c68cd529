"""That one model does what another one does: every tensor of the original in terms of tensors of the optimized model.

Both graphs are walked side by side (a simulation relation, Milner 1971). What is known of the inputs of a node implies
something of its outputs: an affine node makes sums of terms, an activation acts on rows one by one, and a node about
which nothing is known must be literally the same in both models. Where the certificate names a tensor of the optimized
model, rows are compared with it; what is left over is bounded and carried along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.affine import Affine, channel_bounds
from onnxprune.verify.compare_rows import SUBNORMAL, UNBOUNDED, Residual, compared
from onnxprune.verify.evidence import proper
from onnxprune.verify.forms import Form
from onnxprune.verify.forward import Given
from onnxprune.verify.meanings import POOLS, SHAPES, STEADY, SUMS, Meaning, meaning
from onnxprune.verify.moving import moved_rows
from onnxprune.verify.network import Network, Node, digest
from onnxprune.verify.numbers import Interval
from onnxprune.verify.reasons import Rejected
from onnxprune.verify.terms import Indices, Term

Floats = NDArray[np.float64]
TOUCHES = 2.0**-30
"""A bound that crosses a threshold by less than this share of what it bounds still counts; the crossing is carried."""
PRECISE = 2e-5
"""Largest deviation at one place, as a share of what the row can be: more would not be lossless."""


@dataclass(frozen=True)
class Anchor:
    """A tensor of the optimized model in whose terms a tensor of the original is to be written.

    Attributes:
        tensor: Its name.
        rows: Per row of the original the row it is a multiple of, -1 for none; None for all rows in order.
        factors: Per row; None for 1.
    """

    tensor: str
    rows: Indices | None = None
    factors: Floats | None = None


@dataclass
class Side:
    """One of the two models.

    Attributes:
        net: The model.
        bounds: Bounds on its tensors over the domain.
    """

    net: Network
    bounds: Mapping[str, Interval]
    exact: bool
    implied: dict[str, Interval] = field(default_factory=dict)
    """Further bounds, on tensors that are known to be tensors of the other model."""

    def __post_init__(self) -> None:
        """Prepare the rules for affine nodes."""
        self.affine = Affine(self.net, self.bounds, self.exact)

    def given(self, node: Node) -> Given:
        """What the rules see of a node."""
        return Given(node, self.net, self.bounds, self.exact)

    def known(self, tensor: str) -> Interval:
        """Bounds on a tensor, or its values where it is a constant."""
        if tensor in self.net.constants:
            return Interval.point(self.net.constants[tensor], exact=self.exact)
        return self.bounds[tensor]

    def rows(self, tensor: str, axis: int, count: int) -> Interval:
        """Bounds per channel."""
        found = channel_bounds(self.known(tensor), axis, count)
        if tensor in self.implied:
            found = found.meet(channel_bounds(self.implied[tensor], axis, count))
        return found


@dataclass
class Walk:
    """One activation that was passed, with what became of its rows.

    Attributes:
        source: Its input in the original.
        result: Its output.
        axis: Axis of the rows.
        kept: Rows that the optimized model has as well, alone or as a multiple of another one.
        handed: Rows that the activation hands on unchanged, written in terms of what is in front of them.
        gone: The others: known by bounds alone.
        parallel: How many of the kept rows are multiples of a row that other rows are multiples of, too.
    """

    source: str
    result: str
    axis: int
    kept: Indices
    handed: Indices
    gone: Indices
    parallel: int = 0


@dataclass
class Relation:
    """The walk through both models.

    Attributes:
        before: The original.
        after: The optimized model.
        anchors: By tensor of the original.
        open_rows: By tensor of the optimized model the rows that an activation there hands on unchanged.
        forms: By tensor of the original, what is known of it.
        walks: Activations passed.
        residuals: What comparisons left over, by tensor of the original.
        opened: Tensors whose open rows were used.
    """

    before: Side
    after: Side
    anchors: Mapping[str, Anchor]
    open_rows: Mapping[str, Indices]
    forms: dict[str, Form | None] = field(default_factory=dict)
    walks: list[Walk] = field(default_factory=list)
    residuals: dict[str, Residual] = field(default_factory=dict)
    precise: float = PRECISE

    def __post_init__(self) -> None:
        """Index the nodes of the optimized model."""
        self.atoms: set[str] = set(self.after.net.inputs)
        self.opened: set[str] = set()
        self._literal: dict[tuple[object, ...], Node] = {}
        for node in self.after.net.nodes:
            self._literal.setdefault(self._key(node, self.after.net, None), node)

    @property
    def exact(self) -> bool:
        """Whether nothing is rounded."""
        return self.before.exact

    def run(self) -> dict[str, Form]:
        """Walk through all nodes; what is known of the outputs.

        Raises:
            Rejected: Something does not follow; the text says where and why.
        """
        for name in self.before.net.inputs:
            self.forms[name] = Form.same(name, exact=self.exact)
        for node in self.before.net.nodes:
            self.visit(node)
        return {name: self._output(name) for name in self.before.net.outputs}

    def visit(self, node: Node) -> None:
        """Go past one node of the original."""
        results = self._literally(node)
        if results is None:
            results = {
                name: self._passed(node, place) or self._settled(name)
                for place, name in enumerate(node.outputs)
                if name
            }
        for name, form in results.items():
            anchor = self.anchor(name, form)
            known = self.anchored(name, form, anchor) if anchor is not None else form
            self.forms[name] = known
            if known is not None and known.whole and known.whole not in self.after.implied:
                self._imply(name, known)

    def _imply(self, name: str, form: Form) -> None:
        """Bounds on a tensor of the optimized model that is one of the original, up to what that is off."""
        room = float(form.deviation + form.rounding) * (1 + 1e-9)
        found = self.before.bounds[name]
        shapes = self.before.net.shape(name), self.after.net.shape(form.whole)
        if np.isfinite(room) and shapes[0] is not None and shapes[1] is not None and len(shapes[0]) == len(shapes[1]):
            self.after.implied[form.whole] = found + found.like(np.array(-room), np.array(room))

    def anchor(self, name: str, form: Form | None) -> Anchor | None:
        """What the certificate says about a tensor of the original, of which this much is known."""
        del form
        return self.anchors.get(name)

    def _passed(self, node: Node, output: int) -> Form | None:
        forms = [None if name in self.before.net.constants else self.forms.get(name) for name in node.inputs]
        known = self.before.affine.of(node, forms, output)
        if known is not None or output or not any(form is not None for form in forms):
            return known
        if node.op in SHAPES:
            return self._moved(node, forms[0])
        told = meaning(self.before.given(node))
        if told is not None and forms[0] is not None:
            return self._activated(node, forms[0], told)
        if node.op == "Mul" and len(forms) == 2 and forms[0] is not None and forms[1] is not None:
            return self._multiplied(node, forms[0], forms[1])
        return None

    def _literally(self, node: Node) -> dict[str, Form | None] | None:
        """Outputs of a node that the optimized model has as well, with the same inputs."""
        names = [name for name in (*node.inputs, *node.captured) if name and name not in self.before.net.constants]
        forms = [self.forms.get(name) for name in names]
        if not names or any(form is None or not form.whole for form in forms):
            return None
        known = {name: form for name, form in zip(names, forms, strict=True) if form is not None}
        twin = self._literal.get(self._key(node, self.before.net, {n: f.whole for n, f in known.items()}))
        if twin is None:
            return None
        results: dict[str, Form | None] = {}
        for mine, other in zip(node.outputs, twin.outputs, strict=False):
            errors = self._carried(node, list(known.values()), mine)
            if mine and other and errors is not None:
                self.atoms.add(other)
                results[mine] = Form.same(other, exact=self.exact, deviation=errors[0], rounding=errors[1])
        return results or None

    def _key(self, node: Node, net: Network, names: Mapping[str, str] | None) -> tuple[object, ...]:
        inputs = []
        for name in (*node.inputs, *node.captured):
            value = net.constants.get(name)
            if value is not None:
                inputs.append(f"#{digest(value)}")
            else:
                inputs.append(name if names is None or not name else names[name])
        return (node.op, node.settings, tuple(inputs), tuple(bool(name) for name in node.outputs))

    def _carried(self, node: Node, forms: list[Form], output: str) -> tuple[float, float] | None:
        """Deviation and rounding behind a node that both models have; None where the deviation is lost track of."""
        deviation, rounding = (max(float(part.max()) for part in parts) for parts in zip(
            *((form.deviation, form.rounding) for form in forms), strict=True
        ))  # fmt: skip
        if deviation == 0 and rounding == 0:
            return 0.0, 0.0
        told, kind = meaning(self.before.given(node)), self.before.net.kinds.get(output)
        if node.op in SUMS:
            deviation, rounding = (sum(float(p.max()) for p in parts) * (1 + 1e-9) for parts in zip(
                *((form.deviation, form.rounding) for form in forms), strict=True
            ))  # fmt: skip
        factor = 1.0 if node.op in STEADY or node.op in SUMS else told.lipschitz if told is not None else np.inf
        if kind is not None and kind.dtype is not None and kind.dtype.kind in "iub":
            factor = np.inf  # a whole number changes by jumps
        if factor == np.inf and node.op in self.before.affine.operators:
            return None  # the general way keeps track
        if factor == np.inf and deviation > 0:
            return None
        return _finite(deviation, factor), _finite(rounding, factor)

    def _twin(self, node: Node, tensor: str) -> str | None:
        """Output of the node of the optimized model that does to a tensor what a node of the original does."""
        for other in self.after.net.readers.get(tensor, []):
            same = other.op == node.op and other.inputs[0] == tensor
            if same and (other.settings == node.settings or node.op in SHAPES) and self._alike(node, other):
                return other.outputs[0]
        return None

    def _alike(self, node: Node, other: Node) -> bool:
        """Whether further inputs are equal constants; the slopes of PRelu are compared row by row."""
        if node.op in ("Reshape", "PRelu", "Resize", "Squeeze", "Unsqueeze"):
            return self._sized(node, other)
        if len(node.inputs) != len(other.inputs):
            return False
        pairs = list(zip(node.inputs[1:], other.inputs[1:], strict=True))
        values = [(self.before.net.constants.get(a), self.after.net.constants.get(b)) for a, b in pairs]
        return all(
            (not a and not b) or (v is not None and w is not None and digest(v) == digest(w))
            for (a, b), (v, w) in zip(pairs, values, strict=True)
        )

    def _sized(self, node: Node, other: Node) -> bool:
        if node.op == "PRelu":
            return True
        shapes = self.before.net.sample(node.outputs[0]), self.after.net.sample(other.outputs[0])
        return shapes[0] is not None and shapes[1] is not None and len(shapes[0]) == len(shapes[1])

    def _activated(self, node: Node, form: Form, told: Meaning) -> Form | None:
        """Behind a node that treats channels one by one."""
        if form.whole:
            twin = self._twin(node, form.whole)
            shape = self.before.net.shape(node.inputs[0]) or ()
            if twin is not None and node.op != "PRelu":
                self.atoms.add(twin)
                errors = [float(part) * told.lipschitz if part else 0.0 for part in (form.deviation, form.rounding)]
                return Form.same(twin, exact=self.exact, deviation=errors[0], rounding=errors[1])
            place = min(1, len(shape) - 1)
            width = self.before.net.size(node.inputs[0], place) if shape else None
            apart = None if width is None else form.along(place, width)
            if apart is None:
                return None
            form = apart
        axis, count = form.axis, form.rows
        assert axis is not None
        source, result = node.inputs[0], node.outputs[0]
        image, twin, channel, factors = self._image(node, form)
        paired = channel >= 0
        if not told.scalable:
            paired &= factors.floats()[0] == 1
        paired &= factors.floats()[0] > 0
        if twin is not None and node.op == "PRelu":
            paired &= self._same_slopes(node, image, channel)
        paired &= twin is not None
        handed, slack = self._straight(told, self.before.rows(source, axis, count))
        handed &= ~form.bare & ~paired & ~constant(self.before.rows(result, axis, count))
        gone = ~paired & ~handed
        producer = self.before.net.producer.get(source)
        if node.op not in POOLS and (producer is None or producer.op in self.before.affine.operators):
            parallel = int(paired.sum()) - len(np.unique(channel[paired]))
            parts = [np.flatnonzero(part) for part in (paired, handed, gone)]
            self.walks.append(Walk(source, result, axis, parts[0], parts[1], parts[2], parallel))
        kept = form.without(~handed, self.before.rows(result, axis, count))
        terms = dict(kept.terms)
        rows = np.flatnonzero(paired)
        zero = form.shift.like(np.zeros(count), np.zeros(count))
        shift, size = kept.shift, kept.size
        if twin is not None and len(rows):
            self.atoms.add(twin)
            width = self.after.net.size(twin, axis)
            if width is None:
                return None
            terms[twin, None] = Term.pick(rows, channel[rows], factors[rows], width)
            cleared = replace(kept, terms={}).without(paired, zero)
            shift, size = cleared.shift, cleared.size
        factor = np.where(paired, told.lipschitz, np.where(handed, 1.0, 0.0))
        deviation = _product(factor, form.deviation) + np.where(handed, slack, 0.0)
        return Form(axis, terms, shift, size, deviation, _product(factor, form.rounding))

    def _image(self, node: Node, form: Form) -> tuple[str, str | None, Indices, Interval]:
        """The tensor in whose terms an input is written, what the optimized model makes of it, rows and factors."""
        names = [name for (name, windows), term in form.terms.items() if windows is None and term.picks]
        for name in names:
            twin = self._twin(node, name)
            if twin is not None:
                return name, twin, *form.matched(name)
        nothing = np.full(form.rows, -1)
        return "", None, nothing, form.shift.like(np.ones(form.rows), np.ones(form.rows))

    def _same_slopes(self, node: Node, image: str, channel: Indices) -> NDArray[np.bool_]:
        """Per row whether PRelu has the same slope in both models."""
        twin = next(r for r in self.after.net.readers[image] if r.op == "PRelu")
        mine, other = (net.constants.get(n.inputs[1]) for net, n in ((self.before.net, node), (self.after.net, twin)))
        if mine is None or other is None:
            return np.zeros(len(channel), dtype=bool)
        mine = np.broadcast_to(mine.reshape(-1), (len(channel),)) if mine.size in (1, len(channel)) else None
        width = int(channel.max(initial=0)) + 1
        other = other.reshape(-1) if other.size > 1 else np.repeat(other.reshape(-1), width)
        if mine is None or len(other) < width:
            return np.zeros(len(channel), dtype=bool)
        return np.asarray(mine == other[np.maximum(channel, 0)])

    def _straight(self, told: Meaning, bounds: Interval) -> tuple[NDArray[np.bool_], Floats]:
        """Rows that an activation hands on unchanged, and by how much they may leave its straight range."""
        low, high = bounds.floats()
        if told.straight is None:
            return np.zeros(len(low), dtype=bool), np.zeros(len(low))
        beyond = np.maximum(np.maximum(told.straight[0] - low, high - told.straight[1]), 0.0)
        return beyond <= touch(low, high), beyond * (1 + told.lipschitz)

    def _moved(self, node: Node, form: Form | None) -> Form | None:
        """Behind a node that moves whole channels."""
        if form is None:
            return None
        if form.whole:
            twin = self._twin(node, form.whole)
            if twin is None or self.before.net.sample(node.outputs[0]) != self.after.net.sample(twin):
                return None
            if node.op == "Transpose" or _same_layout(self.before.net, self.after.net, node, twin):
                self.atoms.add(twin)
                errors = [float(form.deviation), float(form.rounding)]
                return Form.same(twin, exact=self.exact, deviation=errors[0], rounding=errors[1])
            return None
        for (name, windows), term in form.terms.items():
            twin = self._twin(node, name) if windows is None and term.picks else None
            if twin is not None:
                return moved_rows(self.before, self.after, node, twin, form, name, self.atoms)
        return moved_rows(self.before, self.after, node, None, form, "", self.atoms)

    def _multiplied(self, node: Node, one: Form, other: Form) -> Form | None:
        """A product of two tensors whose rows both are rows of tensors of the optimized model."""
        shapes = [self.before.net.shape(name) for name in (*node.inputs, node.outputs[0])]
        if shapes[0] is None or shapes[1] is None or shapes[2] is None or len({len(s) for s in shapes if s}) != 1:
            return None
        axis = (
            one.axis if one.axis is not None else other.axis if other.axis is not None else min(1, len(shapes[0]) - 1)
        )
        counts = [self.before.net.size(name, axis) for name in node.inputs]
        if counts[0] is None or counts[0] != counts[1]:
            return None
        count = counts[0]
        left, right = one.along(axis, count), other.along(axis, count)
        if left is None or right is None:
            return None
        for factor, scaled, shape in ((right, left, shapes[0]), (left, right, shapes[1])):
            if factor.bare.all() and shape == shapes[2] and constant(factor.shift).all():
                return scaled.scaled(factor.shift)
        for twin in self.after.net.nodes:
            if twin.op != "Mul" or any(name in self.after.net.constants for name in twin.inputs):
                continue
            pairs = [form.matched(name) for form, name in zip((left, right), twin.inputs, strict=True)]
            paired = (pairs[0][0] >= 0) & (pairs[0][0] == pairs[1][0])
            paired &= np.all([p[1].floats()[0] == 1 for p in pairs], axis=0)
            if not paired.any():
                continue
            width = self.after.net.size(twin.outputs[0], axis)
            if width is None:
                continue
            self.atoms.add(twin.outputs[0])
            rows = np.flatnonzero(paired)
            bounds = self.before.rows(node.outputs[0], axis, count)
            term = Term.pick(rows, pairs[0][0][rows], pairs[0][1][rows], width)
            zero = bounds.like(np.zeros(count), np.zeros(count))
            rest = replace(left, terms={}).without(~paired, bounds).without(paired, zero)
            reach = [self._reach(name, axis, count) for name in node.inputs]
            errors = [
                np.where(paired, _product(reach[0] + b, a) + _product(reach[1], b), 0.0)
                for a, b in ((right.deviation, left.deviation), (right.rounding, left.rounding))
            ]
            return Form(axis, {(twin.outputs[0], None): term}, rest.shift, rest.size, errors[0], errors[1])
        return None

    def _reach(self, tensor: str, axis: int, count: int) -> Floats:
        low, high = self.before.rows(tensor, axis, count).floats()
        return np.maximum(np.abs(low), np.abs(high))

    def image(self, tensor: str, *, inside: bool = False) -> Form | None:
        """A tensor of the optimized model in terms of those that tensors of the original were written in.

        Args:
            tensor: Its name.
            inside: What computes it, even where the original has a tensor like it.
        """
        if tensor in self.after.net.constants:
            return None
        if tensor in self.atoms and not inside:
            return self._opened(tensor, Form.same(tensor, exact=self.exact))
        node = self.after.net.producer.get(tensor)
        if node is None:
            return None
        if tensor in self.open_rows and not inside:
            return self._opened(tensor, None)
        return self.after.affine.of(node, [self.image(name) for name in node.inputs], node.outputs.index(tensor))

    def _opened(self, tensor: str, form: Form | None) -> Form | None:
        """With the rows that an activation hands on unchanged written in terms of what is in front of it."""
        rows = self.open_rows.get(tensor)
        node = self.after.net.producer.get(tensor)
        if rows is None or node is None:
            return form
        source = node.inputs[0]
        inner = self.image(source, inside=True)
        told = meaning(self.after.given(node))
        if inner is None or inner.axis is None or told is None:
            return None
        count = inner.rows
        if not proper(rows, count):
            raise Rejected(f"the certificate names rows of {tensor} that there are not, or one of them twice")
        self.opened.add(tensor)
        outer = form.along(inner.axis, count) if form is not None else None
        straight, slack = self._straight(told, self.after.rows(source, inner.axis, count))
        if not straight[rows].all():
            self.unproved(tensor, source, rows[~straight[rows]])
        chosen = np.zeros(count, dtype=bool)
        chosen[rows] = True
        if outer is None and not chosen.all():
            return None
        zero = inner.shift.like(np.zeros(count), np.zeros(count))
        opened = replace(inner, deviation=inner.deviation + slack).without(~chosen, zero)
        return opened if outer is None else opened.plus(outer.without(chosen, zero))

    def anchored(self, name: str, form: Form | None, anchor: Anchor) -> Form | None:
        """A tensor in terms of the tensor that the certificate names."""
        if not self._known(anchor.tensor):
            raise Rejected(f"{name} is said to be {anchor.tensor}, which the optimized model does not compute")
        if anchor.rows is None and (form is None or (not form.whole and form.bare.all())):
            return self._by_bounds(name, anchor.tensor)
        if form is None:
            form = self._bounded(name)
        if form is None:
            raise Rejected(f"nothing is known of {name}, which is said to be {anchor.tensor}")
        if form.whole == anchor.tensor and anchor.rows is None:
            return form
        target = self.image(anchor.tensor)
        if target is None:
            raise Rejected(f"{anchor.tensor} of the optimized model cannot be compared with anything")
        if form.whole and target.whole == form.whole and anchor.rows is None:
            self.atoms.add(anchor.tensor)
            return replace(form, whole=anchor.tensor)
        axis = next((a for a in (form.axis, target.axis) if a is not None), None)
        shape = self.before.net.shape(name)
        axis = min(1, len(shape) - 1) if axis is None and shape else axis
        counts = [side.net.size(n, axis) if axis is not None else None
                  for side, n in ((self.before, name), (self.after, anchor.tensor))]  # fmt: skip
        if axis is None or counts[0] is None or counts[1] is None:
            raise Rejected(f"{name} has no rows that could be compared with {anchor.tensor}")
        self._fits(name, anchor.tensor, axis)
        rows, others = form.along(axis, counts[0]), target.along(axis, counts[1])
        if rows is None or others is None:
            raise Rejected(f"rows of {name} and {anchor.tensor} run along different axes")
        result, residual = compared(name, rows, others, anchor, self.after, axis, self.precise)
        if not result.whole:
            bounds = self.before.rows(name, axis, counts[0])
            left = np.ones(counts[0], dtype=bool) if anchor.rows is None else anchor.rows < 0
            result = result.without(left & constant(bounds), bounds)
        self.residuals[name] = residual
        self.atoms.add(anchor.tensor)
        return result

    def unproved(self, tensor: str, source: str, rows: Indices) -> None:
        """Rows of an activation of the optimized model may not be handed on unchanged.

        Raises:
            Rejected: Always.
        """
        del source
        raise Rejected(f"unit {int(rows[0])} of {tensor} in the optimized model is not proved to be stably active")

    def _settled(self, name: str) -> Form | None:
        """A tensor that nothing else is known of, where bounds leave it no choice."""
        known = self.before.bounds[name]
        return self._bounded(name) if constant(known).all() and self.before.net.is_float(name) else None

    def _bounded(self, name: str) -> Form | None:
        """A tensor known by bounds alone."""
        shape = self.before.net.shape(name)
        axis = min(1, len(shape) - 1) if shape else None
        count = self.before.net.size(name, axis) if axis is not None else None
        if axis is None or count is None:
            return None
        bounds, zero = self.before.rows(name, axis, count), np.zeros(count)
        return Form(axis, {}, bounds, self._reach(name, axis, count), zero, zero)

    def _by_bounds(self, name: str, tensor: str) -> Form:
        """Two tensors that are (nearly) constant, compared entry by entry."""
        bounds, other = self.before.known(name), self.after.known(tensor)
        shapes = self.before.net.sample(name), self.after.net.sample(tensor)
        if shapes[0] is None or shapes[0] != shapes[1]:
            raise Rejected(f"{name} and {tensor} have different shapes")
        gap, (low, high) = bounds - other, bounds.floats()
        off = max(float(np.abs(end).max(initial=0.0)) for end in gap.floats())
        size = max(float(np.abs(end).max(initial=0.0)) for end in (low, high))
        if not off <= self.precise * size + SUBNORMAL:
            raise Rejected(f"{name} is not shown to be {tensor} in the optimized model: bounds are {off:.3g} apart")
        self.atoms.add(tensor)
        self.residuals[name] = Residual(off, 0.0)
        return Form.same(tensor, exact=self.exact, deviation=off)

    def _known(self, tensor: str) -> bool:
        net = self.after.net
        return tensor in net.producer or tensor in net.inputs or tensor in net.constants

    def _fits(self, name: str, other: str, axis: int) -> None:
        shapes = [self.before.net.shape(name), self.after.net.shape(other)]
        if shapes[0] is None or shapes[1] is None or len(shapes[0]) != len(shapes[1]):
            raise Rejected(f"{name} and {other} have different shapes")
        for a, (one, two) in enumerate(zip(*shapes, strict=True)):
            if a != axis and (isinstance(one, int) or isinstance(two, int)) and one != two:
                raise Rejected(f"{name} and {other} have different shapes")

    def _output(self, name: str) -> Form:
        form = self.forms.get(name)
        if name in self.before.net.constants:
            form = self._by_bounds(name, name)
        if form is None or form.whole != name:
            raise Rejected(f"output {name} of the optimized model is not shown to be that of the original")
        return form


def _finite(error: float, factor: float) -> float:
    return error * factor if error else 0.0


def touch(low: Floats, high: Floats) -> Floats:
    """How far bounds may cross a threshold, see :data:`TOUCHES`."""
    size = np.maximum(np.abs(low), np.abs(high))
    return TOUCHES * np.where(size < UNBOUNDED, size, 1.0) + SUBNORMAL


def constant(bounds: Interval) -> NDArray[np.bool_]:
    """Rows that bounds leave (nearly) no choice."""
    low, high = bounds.floats()
    return np.asarray(high - low <= touch(low, high))


def _same_layout(one: Network, other: Network, node: Node, twin: str) -> bool:
    """Whether two tensors have the same symbolic shape, one size at most being unknown."""
    shapes = [one.shape(node.outputs[0]), other.shape(twin)]
    if shapes[0] is None or shapes[1] is None or len(shapes[0]) != len(shapes[1]):
        return False
    fixed = [a == b if isinstance(a, int) or isinstance(b, int) else None for a, b in zip(*shapes, strict=True)]
    return False not in fixed and fixed.count(None) <= 1


def _product(factor: Floats, error: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.where((factor == 0) | (error == 0), 0.0, factor * error * (1 + 1e-9))
