"""Coefficients on their way back through a graph: the one routine behind linear bounds, rows of programmes, gradients.

Rounding: every computed coefficient counts as exact from there on. A step through an affine node errs by at most
gamma times the sum of the absolute products, evaluated at the largest size of the node's inputs; the errors of all
steps add up and are subtracted from the bound (see the notes on rounding in ``operators/interval.py``). Where all
numbers of a step are multiples of one power of two and small enough, float64 is exact and nothing is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from scipy import sparse

from onnxprune.bounds.static import StaticGraph, grain
from onnxprune.operators.interval import LARGEST, Array, down, exact_sum, gamma, up
from onnxprune.operators.relaxation import Choices, Line, Relaxation
from onnxprune.operators.tape import NumpyTape

EXACT = 2.0**53
"""Sums of multiples of one power of two are exact in float64 up to this many times that power."""

Box = tuple[Array, Array]
"""Lower and upper ends, each of shape (boxes, entries) or (1, entries)."""
Boxes = Mapping[str, Box]

Blend = Callable[[str, Relaxation, Array], tuple[Line, Line]]
"""Chooses the lower and the upper line of an activation, given its input tensor and the coefficients behind it."""


def first_lines(_: str, relaxation: Relaxation, __: Array) -> tuple[Line, Line]:
    """The adaptive choice."""
    return relaxation.lower[0], relaxation.upper[0]


def second_lines(_: str, relaxation: Relaxation, __: Array) -> tuple[Line, Line]:
    """The alternative, where there is one."""
    return relaxation.lower[-1], relaxation.upper[-1]


@dataclass
class Shared:
    """What walks over the same boxes have in common, made once.

    Attributes:
        relaxations: Lines by output of an activation.
        magnitudes: Per node how large the sums of absolute terms behind its outputs can be.
    """

    relaxations: dict[str, Relaxation | None] = field(default_factory=dict)
    magnitudes: dict[int, list[Array] | None] = field(default_factory=dict)


@dataclass
class Backward:
    """``total + sum over open tensors of open[t] @ t - error`` is a lower bound of every row.

    Rows have shape (boxes, rows): the same functionals, bounded over several boxes at once.

    Attributes:
        net: The graph.
        boxes: Bounds on tensors, per box where known per box.
        lines: How to choose the lines of an activation.
        open: Coefficients by tensor, shape (boxes, rows, entries).
        total: Shape (boxes, rows).
        error: Shape (boxes, rows), not negative.
    """

    net: StaticGraph
    boxes: Boxes
    lines: Blend
    open: dict[str, Array]
    total: Array
    error: Array
    shared: Shared = field(default_factory=Shared)
    grain: dict[str, float] = field(default_factory=dict)
    """By open tensor a power of two that all its coefficients are multiples of; 0 where there is none to speak of."""

    @staticmethod
    def start(
        net: StaticGraph,
        tensor: str,
        rows: Array,
        boxes: Boxes,
        lines: Blend = first_lines,
        shared: Shared | None = None,
    ) -> Backward:
        """Begin with functionals of one tensor.

        Args:
            net: The graph.
            tensor: Name of the tensor.
            rows: Coefficients, shape (rows, entries).
            boxes: Bounds on all tensors in front of it.
            lines: How to choose the lines of an activation.
            shared: What walks over the same boxes have in common.
        """
        count = max((len(low) for low, _ in boxes.values()), default=1)
        zero = np.zeros((count, len(rows)))
        opened = {tensor: np.broadcast_to(rows, (count, *rows.shape))}
        return Backward(net, boxes, lines, opened, zero, zero.copy(), shared or Shared(), {tensor: grain(rows)})

    def run(self, stop: frozenset[str] = frozenset()) -> None:
        """Go back as far as rules reach; what stays open are inputs, tensors in ``stop``, and opaque outputs."""
        nodes = self.net.graph.nodes
        producers = [self.net.position[id(t.inputs[0])] for t in self._open_tensors()]
        for node in reversed(nodes[: max(producers, default=-1) + 1]):
            names = [tensor.name for tensor in node.outputs]
            if any(name in self.open and name not in stop for name in names):
                self.step(node)

    def lower(self) -> Array:
        """Replace what is open by its bounds; lower bounds of all rows, shape (boxes, rows)."""
        for name in list(self.open):
            self.close(name)
        bound, plain = exact_sum(self.total, -self.error)
        return np.where(plain, bound, down(bound))

    def _open_tensors(self) -> list[gs.Tensor]:
        by_name = {t.name: t for node in self.net.graph.nodes for t in node.outputs if t.name in self.open}
        return list(by_name.values())

    def step(self, node: gs.Node) -> bool:
        """Carry the coefficients of a node's outputs to its inputs; False where no rule applies."""
        operator = self.net.operator(node)
        if operator is None or any(isinstance(value, gs.Graph) for value in node.attrs.values()):
            return False
        if not self.net.apart(node):
            return False  # lines and choices hold within a sample
        return self._affine(node) or self._activation(node) or self._choice(node)

    def close(self, name: str) -> None:
        """Replace a tensor by its bounds."""
        coefficients = self.open.pop(name)
        box = self.boxes.get(name)
        if box is None or box[0].shape[-1] != coefficients.shape[-1]:
            self.total = np.where((coefficients != 0).any(axis=-1), -np.inf, self.total)
            return
        low, high = box
        with np.errstate(invalid="ignore", over="ignore"):
            positive, negative = np.maximum(coefficients, 0.0), np.minimum(coefficients, 0.0)
            value = _dot(positive, np.where(np.isfinite(low), low, 0.0)) + _dot(
                negative, np.where(np.isfinite(high), high, 0.0)
            )
            size = _dot(np.abs(coefficients), np.where(np.isfinite(_size(box)), _size(box), 0.0))
            unbounded = _dot(positive, (~np.isfinite(low)).astype(np.float64)) - _dot(
                negative, (~np.isfinite(high)).astype(np.float64)
            )
        self._add(np.where(unbounded > 0, -np.inf, value), size, coefficients.shape[-1])

    def _affine(self, node: gs.Node) -> bool:
        names = [tensor.name for tensor in node.outputs]
        constant = self.net.constant_part(node)
        if constant is None:
            return False
        given = [self.open.get(name) for name in names]
        boxes, rows = next(g for g in given if g is not None).shape[:2]
        back = self.net.adjoint(node, [None if g is None else g.reshape(boxes * rows, -1) for g in given])
        if back is None:
            return False
        terms = max([c.size for c in constant] + [b.shape[1] for b in back if b is not None])
        if id(node) not in self.shared.magnitudes:
            self.shared.magnitudes[id(node)] = self._magnitude(node)
        magnitude = self.shared.magnitudes[id(node)]
        if magnitude is None:
            return False
        fine, exact = self._grain_behind(node, [n for n, g in zip(names, given, strict=True) if g is not None])
        for name, shift, size, coefficients in zip(names, constant, magnitude, given, strict=False):
            if coefficients is not None:
                del self.open[name]
                exact = exact and self._fits(coefficients, self.grain.pop(name), shift)
                value = _dot(coefficients, shift[None]) if shift.any() else np.zeros((boxes, rows))
                self._add(value, np.zeros_like(value) if exact else _dot(np.abs(coefficients), size), terms)
        for tensor, result in zip(node.inputs, back, strict=True):
            if result is not None:
                self._pass(tensor.name, result.reshape(boxes, rows, -1), fine if exact else 0.0)
        return True

    def _grain_behind(self, node: gs.Node, names: Sequence[str]) -> tuple[float, bool]:
        """Grain of the coefficients on a node's inputs, and whether float64 computes them exactly."""
        step, largest = self.net.grain(node)
        before = min(self.grain.get(name, 0.0) for name in names)
        fine = before * step
        sums = max(float(np.abs(self.open[name]).sum(axis=-1).max(initial=0.0)) for name in names) if fine else 0.0
        return fine, bool(fine) and len(names) * sums * largest <= EXACT * fine

    def _fits(self, coefficients: Array, fine: float, shift: Array) -> bool:
        """Whether the product with a constant vector is exact."""
        step = fine * grain(shift)
        return bool(step) and float(np.abs(coefficients).sum(axis=-1).max()) * np.abs(shift).max() <= EXACT * step

    def _magnitude(self, node: gs.Node) -> list[Array] | None:
        """Per output how large the sum of its absolute terms can be, shape (boxes or 1, entries)."""
        inputs: list[Array | None] = []
        for tensor in node.inputs:
            box = self.boxes.get(tensor.name) if tensor.name and not isinstance(tensor, gs.Constant) else None
            inputs.append(None if box is None else _size(box))
            if box is None and tensor.name and not isinstance(tensor, gs.Constant):
                return None
        count = max((len(i) for i in inputs if i is not None), default=1)
        spread = [None if i is None else np.broadcast_to(i, (count, i.shape[1])) for i in inputs]
        with np.errstate(over="ignore", invalid="ignore"):
            return self.net.apply(node, spread, NumpyTape(absolute=True))

    def relaxation(self, node: gs.Node) -> Relaxation | None:
        """Lines of an activation on the bounds of its input, made once."""
        name = node.outputs[0].name
        if name not in self.shared.relaxations:
            box, operator = self.boxes.get(node.inputs[0].name), self.net.operator(node)
            made = None
            shape = self.net.shape(node.inputs[0].name)
            if box is not None and operator is not None and shape is not None:
                low, high = (end.reshape(-1, *shape) for end in box)
                with np.errstate(all="ignore"):
                    made = operator.relax(self.net.view(node), low, high)
                flat = (len(low), box[0].shape[1])
                made = None if made is None else _flattened(made, flat)
            self.shared.relaxations[name] = made
        return self.shared.relaxations[name]

    def _activation(self, node: gs.Node) -> bool:
        source, name = node.inputs[0].name, node.outputs[0].name
        relaxation = self.relaxation(node)
        if relaxation is None or name not in self.open:
            return False
        coefficients = self.open[name]
        below, above = self.lines(source, relaxation, coefficients)
        positive, negative = np.maximum(coefficients, 0.0), np.minimum(coefficients, 0.0)
        with np.errstate(invalid="ignore", over="ignore"):
            carried = positive * _rows(below.slope) + negative * _rows(above.slope)
            value = _products(positive, below.offset) + _products(negative, above.offset)
            size = _products(positive, np.abs(below.offset)) + _products(-negative, np.abs(above.offset))
        if np.isnan(carried).any():
            return False
        del self.open[name]
        width = coefficients.shape[-1]
        self._add(value, size, 2 * width)
        fine = self.grain.pop(name)
        if not fine or not all(_is_switch(line.slope) for line in (below, above)):
            fine = 0.0
            self._rounded(source, carried)
        self._pass(source, carried, fine)
        return True

    def _choice(self, node: gs.Node) -> bool:
        """Maxima: at least the most promising entry, at most that entry where no other can exceed it."""
        operator, name = self.net.operator(node), node.outputs[0].name
        choices = None if operator is None else operator.choices(self.net.view(node))
        variable = [t.name for t in node.inputs if t.name and not isinstance(t, gs.Constant)]
        known = [self.boxes.get(v) for v in variable]
        if choices is None or any(k is None for k in known) or len(variable) != len(node.inputs):
            return False
        if (choices.indices < 0).all(axis=1).any():
            return False
        low, high = _joined([k for k in known if k is not None])
        if choices.largest:
            picked, limit, alone = _best(choices, low, high)
        else:
            picked, limit, alone = _best(choices, -high, -low)
            limit = -limit
        coefficients = self.open[name]
        good, bad = np.maximum(coefficients, 0.0), np.minimum(coefficients, 0.0)
        if not choices.largest:
            good, bad = bad, good
        with np.errstate(invalid="ignore"):
            hulled = np.where(alone[:, None, :], 0.0, bad)
            value = _products(hulled, limit)
            size = _products(np.abs(hulled), np.abs(limit))
        del self.open[name]
        self._add(value, size, coefficients.shape[-1])
        carried = good + np.where(alone[:, None, :], bad, 0.0)
        total, sums = (_scattered(rows, picked, low.shape[1]) for rows in (carried, np.abs(carried)))
        start = 0
        for tensor, box in zip(variable, known, strict=True):
            width = 0 if box is None else box[0].shape[1]
            own = slice(start, start + width)
            self._sum_error(tensor, sums[:, :, own], coefficients.shape[-1])
            self._pass(tensor, total[:, :, own], 0.0)
            start += width
        return True

    def _add(self, value: Array, size: Array, terms: int) -> None:
        """Add an inexact value: ``size`` bounds the sum of the absolute products."""
        with np.errstate(invalid="ignore", over="ignore"):
            total, plain = exact_sum(self.total, value)
            rounding = np.where(plain, 0.0, gamma(1) * (np.abs(total) + np.abs(self.total)))
            error = np.where(size == 0, 0.0, gamma(terms) * size) + rounding
            self.error = np.where(error == 0, self.error, up(self.error + up(error)))
        bad = np.isnan(total) | np.isnan(self.error) | np.isinf(self.error)
        self.total = np.where(bad, -np.inf, total)
        self.error = np.where(bad, 0.0, self.error)

    def _rounded(self, name: str, coefficients: Array) -> None:
        """Account for one rounding of every coefficient on a tensor."""
        self._sum_error(name, coefficients, 1)

    def _sum_error(self, name: str, coefficients: Array, terms: int) -> None:
        box = self.boxes.get(name)
        size = np.zeros((1, coefficients.shape[-1])) if box is None else _size(box)
        with np.errstate(invalid="ignore"):
            moved = _products(np.abs(coefficients), size)
        self._add(np.zeros(self.total.shape), moved, terms)

    def _pass(self, name: str, coefficients: Array, fine: float) -> None:
        if name in self.open:
            total, plain = exact_sum(self.open[name], coefficients)
            coefficients, fine = total, min(fine, self.grain[name])
            if not plain.all():
                fine = 0.0
                self._rounded(name, coefficients)
        self.open[name], self.grain[name] = coefficients, fine


def _is_switch(slopes: Array) -> bool:
    return bool(((slopes == 0) | (slopes == 1)).all())


def _rows(values: Array) -> Array:
    """(boxes, entries) or (boxes, rows, entries) against (boxes, rows, entries)."""
    return values if values.ndim == 3 else values[:, None, :]


def _dot(rows: Array, vector: Array) -> Array:
    """Products of (boxes, rows, entries) with (boxes or 1, entries): shape (boxes, rows)."""
    if len(vector) == 1:
        return np.asarray(rows @ vector[0], dtype=np.float64)
    return np.asarray((rows @ vector[:, :, None])[:, :, 0], dtype=np.float64)


def _products(rows: Array, values: Array) -> Array:
    """Like :func:`_dot`, for values per row too, and with 0 times anything 0."""
    finite = np.where(np.isfinite(values), values, 0.0)
    if values.ndim == 3:
        total = np.einsum("bre,bre->br", rows, np.broadcast_to(finite, rows.shape))
    else:
        total = _dot(rows, finite)
    if finite is not values and not np.isfinite(values).all():
        wild = ((rows != 0) & ~np.isfinite(_rows(values))).any(axis=-1)
        total = np.where(wild, np.nan, total)
    return np.asarray(total, dtype=np.float64)


def _size(box: Box) -> Array:
    return np.maximum(np.abs(box[0]), np.abs(box[1]))


def _joined(boxes: Sequence[Box]) -> Box:
    count = max(len(low) for low, _ in boxes)
    low, high = (
        np.concatenate([np.broadcast_to(b[end], (count, b[end].shape[1])) for b in boxes], axis=1) for end in (0, 1)
    )
    return low, high


def _best(choices: Choices, low: Array, high: Array) -> tuple[NDArray[np.int64], Array, NDArray[np.bool_]]:
    """Per output of a maximum: the entry with the largest lower end, the largest upper end, and whether it wins."""
    index = choices.indices
    missing = index < 0
    lows = np.where(missing, -np.inf, np.maximum(low[:, index], -LARGEST))  # what is missing is never picked
    highs = np.where(missing, -np.inf, high[:, index])
    place = lows.argmax(axis=-1)
    picked = np.take_along_axis(np.broadcast_to(index, lows.shape), place[..., None], axis=-1)[..., 0]
    others = highs.copy()
    np.put_along_axis(others, place[..., None], -np.inf, axis=-1)
    alone = np.take_along_axis(lows, place[..., None], axis=-1)[..., 0] >= others.max(axis=-1)
    return np.maximum(picked, 0), highs.max(axis=-1), alone


def _scattered(rows: Array, places: NDArray[np.int64], width: int) -> Array:
    """Entries (boxes, rows, entries) added up at ``places`` (boxes or 1, entries) of a wider axis."""
    parts = []
    for index, part in enumerate(rows):
        place = places[min(index, len(places) - 1)]
        matrix = sparse.csr_array((np.ones(len(place)), (np.arange(len(place)), place)), shape=(len(place), width))
        parts.append(part @ matrix)
    return np.stack(parts)


def _flattened(relaxation: Relaxation, shape: tuple[int, int]) -> Relaxation:
    def flat(line: Line) -> Line:
        parts = (line.slope, line.offset)
        slope, offset = (
            np.broadcast_to(p, np.broadcast_shapes(p.shape, (shape[0],) + (1,) * (p.ndim - 1))).reshape(shape)
            for p in parts
        )
        return Line(slope, offset)

    return Relaxation(tuple(map(flat, relaxation.lower)), tuple(map(flat, relaxation.upper)))
