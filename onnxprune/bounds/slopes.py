"""Optimised slopes (alpha-CROWN, Xu et al. 2021): gradient ascent on the bound, without a training framework.

The bound of a row is a concave piecewise-linear function of how its lines are blended. Its slope in one blend is
the coefficient behind the activation times the gap between the two lines, at the point where the bound is attained;
that point is carried forward through the lines the row chose. Any blend is valid, so the search needs no rigour.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from onnxprune.bounds.backward import Backward, Boxes, Shared
from onnxprune.bounds.static import StaticGraph
from onnxprune.operators.interval import Array
from onnxprune.operators.relaxation import Line, Relaxation
from onnxprune.operators.tape import NumpyTape

RATE = 0.4
DECAY = 0.9


Side = tuple[str, bool]
"""An activation's input, and whether its upper lines are meant."""


@dataclass
class _Blends:
    """Blends of the lines per side of an activation, shape (rows, entries), and what the last walk chose."""

    rows: int
    blend: dict[Side, Array] = field(default_factory=dict)
    chosen: dict[str, tuple[Line, Array, Relaxation]] = field(default_factory=dict)
    """By activation input: the line of every row and entry, the coefficients, the lines to choose from."""

    def __call__(self, source: str, relaxation: Relaxation, coefficients: Array) -> tuple[Line, Line]:
        below = self._blended((source, False), relaxation.lower)
        above = self._blended((source, True), relaxation.upper)
        positive = coefficients[0] > 0
        line = Line(np.where(positive, below.slope, above.slope), np.where(positive, below.offset, above.offset))
        self.chosen[source] = (line, coefficients[0], relaxation)
        return tuple(Line(_stacked(line.slope), _stacked(line.offset)) for line in (below, above))  # type: ignore[return-value]

    def _blended(self, side: Side, lines: tuple[Line, ...]) -> Line:
        """One line per row and entry, rounded outward."""
        first, second = lines[0], lines[-1]
        if len(lines) == 1:
            return first
        share = self.blend.setdefault(side, np.zeros((self.rows, first.slope.shape[1])))
        share = np.where(first.slope * second.slope < 0, 0.0, share)  # opposite signs would cancel inexactly
        with np.errstate(invalid="ignore"):
            slope = np.where(first.slope == second.slope, first.slope, _mix(share, first.slope, second.slope))
            offset = np.where(first.offset == second.offset, first.offset, _mix(share, first.offset, second.offset))
            size = np.maximum(np.abs(first.offset), np.abs(second.offset))
        return Line(slope, _outward(offset, size, np.inf if side[1] else -np.inf))

    def ascend(self, values: dict[str, Array], momentum: dict[Side, Array], rate: float) -> None:
        """One step up the slope of every row's bound."""
        for source, (_, coefficients, relaxation) in self.chosen.items():
            for upper, lines in ((False, relaxation.lower), (True, relaxation.upper)):
                if source not in values or len(lines) < 2:
                    continue
                part = np.minimum(coefficients, 0.0) if upper else np.maximum(coefficients, 0.0)
                with np.errstate(invalid="ignore"):
                    gap = (lines[-1].slope - lines[0].slope) * values[source] + (lines[-1].offset - lines[0].offset)
                    slope = np.nan_to_num(part * gap, posinf=0.0, neginf=0.0)
                scale = np.abs(slope).max(axis=1, keepdims=True)
                step = slope / np.where(scale > 0, scale, 1.0)
                side = (source, upper)
                momentum[side] = 0.7 * momentum.get(side, np.zeros_like(step)) + step
                direction = momentum[side] / (np.abs(momentum[side]) + 1e-3)
                self.blend[side] = np.clip(self.blend[side] + rate * direction, 0.0, 1.0)


def _stacked(values: Array) -> Array:
    """As (boxes, rows or entries ...) for one box."""
    return values if len(values) == 1 else values[None]


def _mix(share: Array, first: Array, second: Array) -> Array:
    return np.asarray((1 - share) * first + share * second, dtype=np.float64)


def _outward(offset: Array, size: Array, toward: float) -> Array:
    """A blend of offsets, rounded by more than the blending errs."""
    return np.where(size == 0, 0.0, np.nextafter(offset + np.copysign(1e-15, toward) * size, toward))


def optimise(
    net: StaticGraph,
    tensor: str,
    rows: Array,
    boxes: Boxes,
    shared: Shared,
    steps: int,
    corners: dict[str, list[Array]],
) -> Array:
    """Lower bounds of ``rows @ tensor`` with slopes chosen row by row.

    Args:
        net: The graph.
        tensor: The tensor to bound.
        rows: Shape (rows, entries).
        boxes: Bounds on all tensors in front of it, for one box.
        shared: What walks over these boxes have in common.
        steps: Number of walks.
        corners: Where the last bounds are attained is added here, by input.

    Returns:
        Shape (rows,); rigorous for every row.
    """
    best = np.full(len(rows), -np.inf)
    momentum: dict[Side, Array] = {}
    blends = _Blends(len(rows))
    for step in range(steps):
        walk = Backward.start(net, tensor, rows, boxes, blends, shared)
        walk.run()
        ends = {name: np.where(c[0] > 0, *boxes[name]) for name, c in walk.open.items() if name in boxes}
        best = np.maximum(best, walk.lower()[0])
        if step + 1 == steps:
            for name in set(net.inputs) & set(ends):
                corners.setdefault(name, []).append(ends[name])
        else:
            blends.ascend(_forward(net, tensor, ends, blends), momentum, RATE * DECAY**step)
    return best


def _forward(net: StaticGraph, tensor: str, ends: dict[str, Array], blends: _Blends) -> dict[str, Array]:
    """Values of every tensor where each row's bound is attained, along the lines the row chose."""
    values = {name: np.where(np.isfinite(v), v, 0.0) for name, v in ends.items()}
    for node in net.graph.nodes:
        source, names = node.inputs[0].name if node.inputs else "", [t.name for t in node.outputs]
        if tensor in values:
            break
        if all(name in values for name in names):
            continue
        if source in blends.chosen and source in values:
            line, _, _ = blends.chosen[source]
            values[names[0]] = line.slope * values[source] + line.offset
        elif any(t.name in values for t in node.inputs):
            inputs = [values.get(t.name) for t in node.inputs]
            results = net.apply(node, inputs, NumpyTape())
            if results is not None:
                values.update(zip(names, results, strict=False))
    return values
