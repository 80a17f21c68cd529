"""Nodes that add, scale and combine: what they make of forms of their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.verify.forms import Applied, Form, stacked
from onnxprune.verify.forward import Given
from onnxprune.verify.network import Network, Node
from onnxprune.verify.numbers import Interval
from onnxprune.verify.rules_entries import reciprocal
from onnxprune.verify.rules_layers import scale_and_shift
from onnxprune.verify.rules_shape import slices, zero_pads
from onnxprune.verify.terms import Layer, Windows
from onnxprune.verify.windows import Geometry, geometry

IDLE = ("Identity", "Dropout")
AFFINE = frozenset(
    "Add BatchNormalization Concat Conv ConvTranspose Div Gather Gemm MatMul Mul Neg Pad Slice Split Sub".split()
)


@dataclass(frozen=True)
class Affine:
    """Forms of one model's tensors through its affine nodes.

    Attributes:
        net: The model.
        bounds: Bounds on its tensors.
        exact: Whether to compute without rounding.
    """

    net: Network
    bounds: Mapping[str, Interval]
    exact: bool

    @property
    def operators(self) -> frozenset[str]:
        """Names of the operators that are followed."""
        return AFFINE | frozenset(IDLE)

    def of(self, node: Node, forms: Sequence[Form | None], output: int = 0) -> Form | None:
        """Form of a node's output; None where the node is not affine, or forms do not fit together.

        Args:
            node: The node.
            forms: Of its inputs; None for constants and for inputs without a form.
            output: Which of its outputs; only Split has several.
        """
        if node.op == "Split":
            return self._split(node, forms[0], output)
        if output:
            return None
        if node.op in IDLE or (node.op in ("Add", "Sub", "Sum") and len(node.inputs) == 1):
            return forms[0]
        rule = getattr(self, f"_{node.op.lower()}", None) if node.op in AFFINE else None
        result: Form | None = rule(node, list(forms)) if rule is not None else None
        return result

    def given(self, node: Node) -> Given:
        """What the rules for bounds see of a node."""
        return Given(node, self.net, self.bounds, self.exact)

    def _layer(self, node: Node, form: Form | None, layer: Layer | None, bias: Interval | None) -> Form | None:
        if form is None or layer is None or bias is None:
            return None
        rows = form.along(layer.axis, layer.ins)
        if rows is None:
            return None
        bounds = channel_bounds(self.bounds[node.inputs[0]], layer.axis, layer.ins)
        return Applied(layer, bias, bounds).to(rows)

    def _bias(self, node: Node, index: int, count: int) -> Interval | None:
        if not node.has(index):
            return Interval.point(np.zeros(count), exact=self.exact)
        found = self._constant(node.inputs[index])
        if found is None or int(np.prod(found.shape)) not in (1, count):
            return None
        if found.shape[-1:] not in ((count,), (1,), ()):
            return None
        return found.map(lambda m: np.broadcast_to(m.reshape(-1), (count,)))

    def _constant(self, name: str) -> Interval | None:
        """Values of a constant, or bounds on a tensor that constants are computed into."""
        if name in self.net.constants:
            values = self.net.constants[name]
            return Interval.point(values, exact=self.exact) if values.dtype.kind in "fiubV" else None
        found = self.bounds.get(name)
        if found is None:
            return None
        low, high = found.floats()
        return found if (high - low <= 2.0**-40 * np.maximum(np.abs(low), np.abs(high))).all() else None

    def _gemm(self, node: Node, forms: list[Form | None]) -> Form | None:
        weights = self.net.constants.get(node.inputs[1])
        if weights is None or int(node.get("transA", 0)):
            return None
        matrix = weights if int(node.get("transB", 0)) else weights.T
        layer = Layer(matrix, 1, None, [np.ones((), bool)], 1)
        alpha, beta = float(node.get("alpha", 1.0)), float(node.get("beta", 1.0))
        bias = self._bias(node, 2, layer.outs)
        zero = Interval.point(np.zeros(layer.outs), exact=self.exact)
        result = self._layer(node, forms[0], layer, zero)
        if result is None or bias is None:
            return None
        if alpha != 1.0:
            result = result.scaled(self._repeated(alpha, layer.outs))
        return result.shifted(bias if beta == 1.0 else bias * self._repeated(beta, layer.outs))

    def _repeated(self, value: float, count: int) -> Interval:
        return Interval.point(np.full(count, value), exact=self.exact)

    def _matmul(self, node: Node, forms: list[Form | None]) -> Form | None:
        weights, shape = self.net.constants.get(node.inputs[1]), self.net.shape(node.inputs[0])
        if weights is None or weights.ndim != 2 or shape is None or len(shape) < 2:
            return None
        layer = Layer(weights.T, 1, None, [np.ones((), bool)], len(shape) - 1)
        return self._layer(node, forms[0], layer, Interval.point(np.zeros(layer.outs), exact=self.exact))

    def _conv(self, node: Node, forms: list[Form | None]) -> Form | None:
        weights, sample = self.net.constants.get(node.inputs[1]), self.net.sample(node.inputs[0])
        if weights is None or weights.ndim < 3:
            return None
        sizes = None if sample is None else sample[2:]
        where = geometry(node, weights.shape[2:], sizes)
        if where is None:
            return None
        dilations = tuple(d if k > 1 else 1 for d, k in zip(where.dilations, where.kernel, strict=True))
        where = Geometry(where.kernel, where.strides, dilations, where.pads)
        layer = Layer(weights, int(node.get("group", 1)), where, where.views(sizes), 1)
        return self._layer(node, forms[0], layer, self._bias(node, 2, layer.outs))

    def _convtranspose(self, node: Node, forms: list[Form | None]) -> Form | None:
        weights = self.net.constants.get(node.inputs[1])
        if weights is None or weights.ndim < 3:
            return None
        groups = int(node.get("group", 1))
        turned = weights.reshape(groups, weights.shape[0] // groups, *weights.shape[1:]).swapaxes(1, 2)
        settings = tuple(pair for pair in node.settings if pair[0] != "group")
        windows: Windows = (node.op, weights.shape[2:], settings)
        layer = Layer(turned.reshape(-1, *turned.shape[2:]), groups, windows, None, 1)
        return self._layer(node, forms[0], layer, self._bias(node, 2, layer.outs))

    def _batchnormalization(self, node: Node, forms: list[Form | None]) -> Form | None:
        affine = scale_and_shift(self.given(node))
        rank = len(self.net.shape(node.inputs[0]) or ())
        if affine is None or rank < 2 or forms[0] is None or len([n for n in node.outputs if n]) != 1:
            return None
        scale, shift, mean = affine
        rows = forms[0].along(1, scale.shape[0])
        return None if rows is None else rows.shifted(-mean).scaled(scale).shifted(shift)

    def _add(self, node: Node, forms: list[Form | None]) -> Form | None:
        return self._sum(node, forms, 1)

    def _sub(self, node: Node, forms: list[Form | None]) -> Form | None:
        return self._sum(node, forms, -1)

    def _sum(self, node: Node, forms: list[Form | None], sign: int) -> Form | None:
        one, other = forms
        if one is None or other is None:
            return self._with_constant(node, forms, "shift", sign)
        shapes = [self.net.shape(name) for name in (*node.inputs, node.outputs[0])]
        if shapes[0] is None or any(shape != shapes[0] for shape in shapes):
            return None
        axis = one.axis if one.axis is not None else other.axis
        axis = axis if axis is not None else min(1, len(shapes[0]) - 1)
        count = self.net.size(node.inputs[0], axis) if axis >= 0 else None
        if count is None:
            return None
        left, right = one.along(axis, count), other.along(axis, count)
        if left is None or right is None:
            return None
        if sign < 0:
            right = right.scaled(self._repeated(-1.0, count))
        return left.plus(right)

    def _mul(self, node: Node, forms: list[Form | None]) -> Form | None:
        return self._with_constant(node, forms, "scale", 1)

    def _div(self, node: Node, forms: list[Form | None]) -> Form | None:
        return self._with_constant(node, forms, "inverse", 1) if forms[1] is None else None

    def _neg(self, node: Node, forms: list[Form | None]) -> Form | None:
        shape = self.net.shape(node.inputs[0])
        if forms[0] is None or not shape:
            return None
        axis = forms[0].axis if forms[0].axis is not None else min(1, len(shape) - 1)
        count = self.net.size(node.inputs[0], axis)
        rows = forms[0].along(axis, count) if count is not None else None
        return None if rows is None or count is None else rows.scaled(self._repeated(-1.0, count))

    def _with_constant(self, node: Node, forms: list[Form | None], kind: str, sign: int) -> Form | None:
        place = 0 if forms[0] is not None else 1
        form, other = forms[place], node.inputs[1 - place]
        if form is None or forms[1 - place] is not None:
            return None
        if self._idle(node, place, kind):
            return form
        found = self._along_rows(node, place, form, self._constant(other))
        if found is None:
            return None
        rows, values = found
        if kind == "inverse":
            inverse = reciprocal(values)
            return None if inverse is None else rows.scaled(inverse)
        if kind == "scale":
            return rows.scaled(values)
        if sign < 0 and place == 1:
            return rows.scaled(self._repeated(-1.0, rows.rows)).shifted(values)
        return rows.shifted(values if sign > 0 else -values)

    def _idle(self, node: Node, place: int, kind: str) -> bool:
        """Whether adding zeros or multiplying by ones leaves the tensor as it is."""
        values = self.net.constants.get(node.inputs[1 - place])
        neutral = 0.0 if kind == "shift" else 1.0
        shapes = [self.net.shape(name) for name in (node.inputs[place], node.outputs[0])]
        first = place == 0 or node.op in ("Add", "Mul")
        return values is not None and first and bool((values == neutral).all()) and shapes[0] == shapes[1] is not None

    def _along_rows(self, node: Node, place: int, form: Form, values: Interval | None) -> tuple[Form, Interval] | None:
        """A form and constants that vary along its rows only, one per row."""
        shape = self.net.shape(node.inputs[place])
        if values is None or not shape or self.net.shape(node.outputs[0]) != shape or values.ndim > len(shape):
            return None
        long = [a + len(shape) - values.ndim for a, size in enumerate(values.shape) if size > 1]
        if len(long) > 1:
            return None
        axis = form.axis if form.axis is not None else (long[0] if long else min(1, len(shape) - 1))
        count = self.net.size(node.inputs[place], axis)
        if count is None or (long and long[0] != axis):
            return None
        rows = form.along(axis, count)
        return None if rows is None else (rows, values.map(lambda m: np.broadcast_to(m.reshape(-1), (count,))))

    def _pad(self, node: Node, forms: list[Form | None]) -> Form | None:
        pads, shape = zero_pads(self.given(node)), self.net.shape(node.inputs[0])
        if pads is None or shape is None or forms[0] is None:
            return None
        if not any(pads):
            return forms[0]
        rank = len(shape)
        count = self.net.size(node.inputs[0], 1) if rank > 2 else None
        rows = forms[0].along(1, count) if count is not None else None
        sample = self.net.sample(node.inputs[0])
        if any((*pads[:2], *pads[rank : rank + 2])) or rows is None or count is None:
            return None
        one = (1,) * (rank - 2)
        where = Geometry(one, one, one, (*pads[2:rank], *pads[rank + 2 :]))
        weights = np.ones((count, 1, *one))
        layer = Layer(weights, count, where, where.views(None if sample is None else sample[2:]), 1)
        return self._layer(node, rows, layer, Interval.point(np.zeros(count), exact=self.exact))

    def _gather(self, node: Node, forms: list[Form | None]) -> Form | None:
        indices, shape = self.net.constants.get(node.inputs[1]), self.net.shape(node.inputs[0])
        if indices is None or indices.ndim != 1 or shape is None:
            return None
        axis = int(node.get("axis", 0)) % len(shape)
        return self._rows(node, forms[0], axis, indices)

    def _slice(self, node: Node, forms: list[Form | None]) -> Form | None:
        cuts, sample = slices(self.given(node)), self.net.sample(node.inputs[0])
        if cuts is None or sample is None or len(cuts) != 1:
            return None
        axis, cut = cuts[0]
        return self._rows(node, forms[0], axis, np.arange(sample[axis])[cut])

    def _rows(self, node: Node, form: Form | None, axis: int, indices: Any) -> Form | None:
        count = self.net.size(node.inputs[0], axis)
        rows = form.along(axis, count) if form is not None and count is not None else None
        if rows is None or count is None:
            return None
        return rows.taken(np.asarray(indices, dtype=np.int64) % count)

    def _split(self, node: Node, form: Form | None, output: int) -> Form | None:
        shape = self.net.shape(node.inputs[0])
        if shape is None:
            return None
        axis = int(node.get("axis", 0)) % len(shape)
        sizes = [self.net.size(name, axis) if name else None for name in node.outputs]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return None
        start = sum(known[:output])
        return self._rows(node, form, axis, np.arange(start, start + known[output]))

    def _concat(self, node: Node, forms: list[Form | None]) -> Form | None:
        shape = self.net.shape(node.outputs[0])
        if shape is None:
            return None
        axis, parts = int(node.get("axis", 1)) % len(shape), []
        for name, form in zip(node.inputs, forms, strict=True):
            count = self.net.size(name, axis)
            rows = form.along(axis, count) if form is not None and count is not None else None
            if rows is None:
                return None
            parts.append(rows)
        return stacked(parts, axis)


def channel_bounds(found: Interval, axis: int, count: int) -> Interval:
    """Bounds per index of an axis, over all other axes."""
    if found.ndim == 0:
        return found.map(lambda m: np.broadcast_to(m, (count,)))
    hull = found.over(tuple(a for a in range(found.ndim) if a != axis))
    return hull.map(lambda m: np.broadcast_to(m.reshape(-1), (count,)))
