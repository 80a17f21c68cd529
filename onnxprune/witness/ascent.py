"""Gradient ascent on pre-activations in batches: points where a unit that looks stable is not.

On a box the best point of a locally affine function is a corner, so every step jumps to the corner the gradient
points at, or part of the way there; the gradient is the adjoint of the network with its true slopes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.bounds.static import StaticGraph
from onnxprune.operators.interval import Array
from onnxprune.witness.evaluator import Evaluator, Values

STEPS = (1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.1, 0.1, 0.03)
"""How far each step goes towards the corner."""
BATCH = 256


@dataclass(frozen=True)
class Goal:
    """An entry of a tensor that should become as large (sign 1) or as small (sign -1) as possible."""

    tensor: str
    entry: int
    sign: int


def ascend(
    net: StaticGraph,
    goals: Sequence[Goal],
    starts: Mapping[str, Array],
    box: Mapping[str, tuple[Array, Array]],
    note: Callable[[Mapping[str, Values], Sequence[Goal]], NDArray[np.bool_]],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Climb from one start per goal.

    Args:
        net: The graph.
        goals: What to reach, one per start.
        starts: Per input, shape (goals, entries), inside the box.
        box: Ends per input, flat.
        note: Told the values at a batch of points and their goals, and answers which are still wanted.
        stopped: Asked before every step.
    """
    evaluator, keep = Evaluator(net), net.bends
    size = min(BATCH, evaluator.batch(keep))
    for begin in range(0, len(goals), size):
        part = list(goals[begin : begin + size])
        points = {name: rows[begin : begin + size].copy() for name, rows in starts.items()}
        for step in STEPS:
            if stopped():
                return
            values = evaluator.run(points, keep)
            wanted = note(values, part)
            if not wanted.any():
                break
            part = [goal for goal, keep in zip(part, wanted, strict=True) if keep]
            points = {name: rows[wanted] for name, rows in points.items()}
            values = {name: Values(v.value[wanted], v.error) for name, v in values.items()}
            slopes = gradient(net, part, values)
            for name, rows in points.items():
                if name not in slopes:
                    continue
                low, high = box[name]
                uphill = slopes[name]
                corner = np.where(uphill > 0, high, np.where(uphill < 0, low, rows))
                points[name] = np.clip(rows + step * (corner - rows), low, high)


def gradient(net: StaticGraph, goals: Sequence[Goal], values: Mapping[str, Values]) -> dict[str, Array]:
    """Slopes of every goal at its own point, per input of the graph.

    Args:
        net: The graph.
        goals: One per row of ``values``.
        values: Values at the points.
    """
    open_rows: dict[str, Array] = {}
    for row, goal in enumerate(goals):
        if goal.tensor not in open_rows:
            open_rows[goal.tensor] = np.zeros((len(goals), values[goal.tensor].value.shape[1]))
        open_rows[goal.tensor][row, goal.entry] = goal.sign
    for node in reversed(net.graph.nodes):
        names = [tensor.name for tensor in node.outputs]
        if not any(name in open_rows for name in names):
            continue
        given = [open_rows.pop(name, None) for name in names]
        operator = net.operator(node)
        if operator is None:
            continue
        back = net.adjoint(node, given) if net.constant_part(node) is not None else None
        if back is None:
            back = _through(net, node, given[0], values)
        for tensor, rows in zip(node.inputs, back or (), strict=False):
            if rows is not None:
                open_rows[tensor.name] = open_rows[tensor.name] + rows if tensor.name in open_rows else rows
    return {name: rows for name, rows in open_rows.items() if name in net.inputs}


def _through(
    net: StaticGraph, node: object, rows: Array | None, values: Mapping[str, Values]
) -> list[Array | None] | None:
    """Coefficients behind an activation or a choice, by its true slopes."""
    operator = net.operator(node)
    source = node.inputs[0].name  # type: ignore[attr-defined] # graphsurgeon is untyped
    shape = net.shape(source)
    if operator is None or rows is None or shape is None or source not in values:
        return None
    slope = operator.derivative(net.view(node), values[source].value.reshape(-1, *shape))
    if slope is not None:
        return [rows * slope.reshape(rows.shape)]
    choices = operator.choices(net.view(node))
    sources = [t.name for t in node.inputs]  # type: ignore[attr-defined]
    if choices is None or any(name not in values for name in sources):
        return None
    value = np.concatenate([values[name].value for name in sources], axis=1)
    sign = 1.0 if choices.largest else -1.0
    ranked = np.where(choices.indices < 0, -np.inf, sign * value[:, choices.indices])
    picked = np.take_along_axis(
        np.broadcast_to(choices.indices, ranked.shape), ranked.argmax(axis=-1)[..., None], axis=-1
    )[..., 0]
    total = np.zeros_like(value)
    np.add.at(total, (np.arange(len(value))[:, None], picked), rows)
    widths = np.cumsum([values[name].value.shape[1] for name in sources])[:-1]
    return list(np.split(total, widths, axis=1))
