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

from onnxprune.verify.activations import activated, straight
from onnxprune.verify.anchoring import anchored, by_bounds, settled
from onnxprune.verify.carrying import carried
from onnxprune.verify.compare_rows import Residual
from onnxprune.verify.evidence import proper
from onnxprune.verify.forms import Form
from onnxprune.verify.implying import imply
from onnxprune.verify.meanings import SHAPES, meaning
from onnxprune.verify.moving import moved_rows
from onnxprune.verify.network import Node
from onnxprune.verify.products import multiplied
from onnxprune.verify.reasons import Rejected
from onnxprune.verify.sides import Anchor, Side, Walk
from onnxprune.verify.terms import Indices
from onnxprune.verify.twins import same_layout, signature, twin_of

PRECISE = 2e-5
"""Largest deviation at one place, as a share of what the row can be: more would not be lossless."""


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
            self._literal.setdefault(signature(node, self.after.net, None), node)

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
                name: self._passed(node, place) or settled(self.before, name)
                for place, name in enumerate(node.outputs)
                if name
            }
        for name, form in results.items():
            anchor = self.anchor(name, form)
            if anchor is not None:
                known = self.anchored(name, form, anchor)
            else:
                known = form if form is not None and form.whole else self._copied(node, name) or form
            self.forms[name] = known
            if known is not None:
                imply(self.before, self.after, name, known)

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
            return activated(self, node, forms[0], told)
        if node.op == "Mul" and len(forms) == 2 and forms[0] is not None and forms[1] is not None:
            return multiplied(self, node, forms[0], forms[1])
        return None

    def _literally(self, node: Node) -> dict[str, Form | None] | None:
        """Outputs of a node that the optimized model has as well, with the same inputs."""
        known = self._wholes(node)
        twin = self._twin(node, known)
        if known is None or twin is None:
            return None
        results: dict[str, Form | None] = {}
        for mine, other in zip(node.outputs, twin.outputs, strict=False):
            errors = carried(self.before, self.after, node, known, mine)
            if mine and other and errors is not None:
                self.atoms.add(other)
                results[mine] = Form.same(other, exact=self.exact, deviation=errors[0], rounding=errors[1])
        return results or None

    def _wholes(self, node: Node) -> dict[str, Form] | None:
        """The tensors that a node reads, if they all are tensors of the optimized model as a whole."""
        names = [name for name in (*node.inputs, *node.captured) if name and name not in self.before.net.constants]
        known = {name: form for name in names if (form := self.forms.get(name)) is not None and form.whole}
        return known if names and len(known) == len(set(names)) else None

    def _twin(self, node: Node, known: Mapping[str, Form] | None) -> Node | None:
        """The same node of the optimized model, with the same inputs."""
        if known is None:
            return None
        return self._literal.get(signature(node, self.before.net, {n: f.whole for n, f in known.items()}))

    def _copied(self, node: Node, output: str) -> Form | None:
        """The output of an affine node that the optimized model has as well, with the largest error of its rows."""
        known = self._wholes(node)
        twin = self._twin(node, known)
        if known is None or twin is None or node.op not in self.before.affine.operators:
            return None
        place = node.outputs.index(output)
        form = self.before.affine.of(node, [known.get(name) for name in node.inputs], place)
        if not twin.outputs[place] or (form is not None and (form.whole or form.bare.any())):
            return None
        errors = carried(self.before, self.after, node, known, output, affine=True)
        if form is not None:
            errors = float(form.deviation.max(initial=0.0)), float(form.rounding.max(initial=0.0))
        if errors is None:
            return None
        self.atoms.add(twin.outputs[place])
        return Form.same(twin.outputs[place], exact=self.exact, deviation=errors[0], rounding=errors[1])

    def _moved(self, node: Node, form: Form | None) -> Form | None:
        """Behind a node that moves whole channels."""
        if form is None:
            return None
        if form.whole:
            twin = twin_of(self.before, self.after, node, form.whole)
            if twin is None or self.before.net.sample(node.outputs[0]) != self.after.net.sample(twin):
                return None
            if node.op == "Transpose" or same_layout(self.before.net, self.after.net, node, twin):
                self.atoms.add(twin)
                errors = [float(form.deviation), float(form.rounding)]
                return Form.same(twin, exact=self.exact, deviation=errors[0], rounding=errors[1])
            return None
        for (name, windows), term in form.terms.items():
            twin = twin_of(self.before, self.after, node, name) if windows is None and term.picks else None
            if twin is not None:
                return moved_rows(self.before, self.after, node, twin, form, name, self.atoms)
        return moved_rows(self.before, self.after, node, None, form, "", self.atoms)

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
        idle, slack = straight(told, self.after.rows(source, inner.axis, count))
        if not idle[rows].all():
            self.unproved(tensor, source, rows[~idle[rows]])
        chosen = np.zeros(count, dtype=bool)
        chosen[rows] = True
        if outer is None and not chosen.all():
            return None
        zero = inner.shift.like(np.zeros(count), np.zeros(count))
        opened = replace(inner, deviation=inner.deviation + slack).without(~chosen, zero)
        return opened if outer is None else opened.plus(outer.without(chosen, zero))

    def anchored(self, name: str, form: Form | None, anchor: Anchor) -> Form | None:
        """A tensor in terms of the tensor that the certificate names."""
        return anchored(self, name, form, anchor)

    def unproved(self, tensor: str, source: str, rows: Indices) -> None:
        """Rows of an activation of the optimized model may not be handed on unchanged.

        Raises:
            Rejected: Always.
        """
        del source
        raise Rejected(f"unit {int(rows[0])} of {tensor} in the optimized model is not proved to be stably active")

    def _output(self, name: str) -> Form:
        form = self.forms.get(name)
        if name in self.before.net.constants:
            form = by_bounds(self, name, name)
        if form is None or form.whole != name:
            raise Rejected(f"output {name} of the optimized model is not shown to be that of the original")
        return form
