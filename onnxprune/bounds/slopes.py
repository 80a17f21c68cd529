"""Optimised slopes (alpha-CROWN, Xu et al. 2021): gradient ascent on the bound, without a training framework.

The bound of a row is a concave piecewise-linear function of how its lines are blended. Its slope in one blend is
the coefficient behind the activation times the gap between the two lines, at the point where the bound is attained;
that point is carried forward through the lines the row chose. Any blend is valid, so the search needs no rigour.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from onnxprune.bounds.backward import Backward, Boxes
from onnxprune.bounds.static import StaticGraph
from onnxprune.operators.interval import Array
from onnxprune.operators.relaxation import Line, Relaxation
from onnxprune.operators.tape import NumpyTape

RATE = 0.4
DECAY = 0.9


@dataclass
class _Blends:
    """Blends of the lower lines per activation input, shape (rows, entries), and what the last walk chose."""

    rows: int
    blend: dict[str, Array] = field(default_factory=dict)
    chosen: dict[str, tuple[Line, Array, Relaxation]] = field(default_factory=dict)
    """By activation input: the line of every row and entry, the positive coefficients, the lines to choose from."""

    def __call__(self, source: str, relaxation: Relaxation, coefficients: Array) -> tuple[Line, Line]:
        first, second, above = relaxation.lower[0], relaxation.lower[-1], relaxation.upper[0]
        share = self.blend.setdefault(source, np.zeros((self.rows, first.slope.shape[1])))
        share = np.where(first.slope * second.slope < 0, 0.0, share)  # opposite signs would cancel inexactly
        with np.errstate(invalid="ignore"):
            slope = np.where(first.slope == second.slope, first.slope, _mix(share, first.slope, second.slope))
            offset = np.where(first.offset == second.offset, first.offset, _mix(share, first.offset, second.offset))
            offset = _outward(offset, np.maximum(np.abs(first.offset), np.abs(second.offset)))
        positive = coefficients[0] > 0
        line = Line(np.where(positive, slope, above.slope), np.where(positive, offset, above.offset))
        self.chosen[source] = (line, np.maximum(coefficients[0], 0.0), relaxation)
        return Line(slope[None], offset[None]), above

    def ascend(self, values: dict[str, Array], momentum: dict[str, Array], rate: float) -> None:
        """One step up the slope of every row's bound."""
        for source, (_, positive, relaxation) in self.chosen.items():
            if source not in values or len(relaxation.lower) < 2:
                continue
            first, second = relaxation.lower[0], relaxation.lower[-1]
            with np.errstate(invalid="ignore"):
                gap = (second.slope - first.slope) * values[source] + (second.offset - first.offset)
                slope = np.nan_to_num(positive * gap, posinf=0.0, neginf=0.0)
            scale = np.abs(slope).max(axis=1, keepdims=True)
            step = slope / np.where(scale > 0, scale, 1.0)
            momentum[source] = 0.7 * momentum.get(source, np.zeros_like(step)) + step
            direction = momentum[source] / (np.abs(momentum[source]) + 1e-3)
            self.blend[source] = np.clip(self.blend[source] + rate * direction, 0.0, 1.0)


def _mix(share: Array, first: Array, second: Array) -> Array:
    return np.asarray((1 - share) * first + share * second, dtype=np.float64)


def _outward(offset: Array, size: Array) -> Array:
    """A blend of offsets, rounded down by more than the blending errs."""
    return np.where(size == 0, 0.0, np.nextafter(offset - 1e-15 * size, -np.inf))


def optimise(
    net: StaticGraph,
    tensor: str,
    rows: Array,
    boxes: Boxes,
    relaxations: dict[str, Relaxation | None],
    steps: int,
    corners: dict[str, list[Array]],
) -> Array:
    """Lower bounds of ``rows @ tensor`` with slopes chosen row by row.

    Args:
        net: The graph.
        tensor: The tensor to bound.
        rows: Shape (rows, entries).
        boxes: Bounds on all tensors in front of it, for one box.
        relaxations: Lines by activation, shared with other walks.
        steps: Number of walks.
        corners: Where the last bounds are attained is added here, by input.

    Returns:
        Shape (rows,); rigorous for every row.
    """
    best = np.full(len(rows), -np.inf)
    momentum: dict[str, Array] = {}
    blends = _Blends(len(rows))
    for step in range(steps):
        walk = Backward.start(net, tensor, rows, boxes, blends, relaxations)
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
        if tensor in values or all(name in values for name in names):
            break
        if source in blends.chosen and source in values:
            line, _, _ = blends.chosen[source]
            values[names[0]] = line.slope * values[source] + line.offset
        elif any(t.name in values for t in node.inputs):
            inputs = [values.get(t.name) for t in node.inputs]
            results = net.apply(node, inputs, NumpyTape())
            if results is not None:
                values.update(zip(names, results, strict=False))
    return values
