"""Polishing small networks: Gauss-Newton steps on the weights that stay, by conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from onnxprune.surgeon.calibration import Calibration
from onnxprune.surgeon.matching import Matching, Values
from onnxprune.surgeon.stages import Masks

ROUNDS = 6
ITERATIONS = 60
DAMPING = (1e-1, 1e-2, 1e-3)
"""Ridges tried, relative to the mean of the Gauss-Newton matrix's diagonal; the held-out samples choose."""


def product(objective: Matching, values: Values, change: Values, index: NDArray[np.int64]) -> Values:
    """Gauss-Newton matrix times a change: J'(S (J d)), a tangent forward and a cotangent back (Schraudolph, 2002)."""
    feeds = objective.data.take(index).inputs
    tangents = objective.derivatives.push(feeds, values, change)
    scaled = {t: tangents[t] * np.float32(s / len(index)) for t, s in objective.scales.items()}
    return objective.derivatives.pull(feeds, values, scaled)


def polish(
    objective: Matching, values: Values, masks: Masks, held: Calibration, stopped: Callable[[], bool]
) -> tuple[Values, float]:
    """Gauss-Newton steps (Levenberg's ridge) as long as they bring the held-out samples closer.

    Args:
        objective: What is made small, over all its samples at once.
        values: Parameters.
        masks: What stays.
        held: Samples that choose ridge and number of steps.
        stopped: Ends it early.

    Returns:
        The parameters with the least objective on the held-out samples, and that objective.
    """
    whole = np.arange(len(objective.data))
    best = objective.loss(values, held)
    for _ in range(ROUNDS):
        if stopped():
            break
        _, gradient = objective.gradient(values, whole)
        slope = _masked(gradient, masks)
        moves = _solve(objective, values, masks, slope, whole, stopped)
        found = [({n: v + move[n] if n in move else v for n, v in values.items()}) for move in moves]
        if not moves:
            break
        losses = [objective.loss(candidate, held) for candidate in found]
        choice = int(np.argmin(losses))
        if losses[choice] >= best:
            break
        values, best = found[choice], losses[choice]
    return values, best


def _solve(
    objective: Matching,
    values: Values,
    masks: Masks,
    slope: Values,
    index: NDArray[np.int64],
    stopped: Callable[[], bool],
) -> list[Values]:
    """Solutions of (G + ridge) d = -slope, a ridge each."""
    found = []
    for damping in DAMPING:
        if not stopped():
            found.append(_conjugate_gradients(objective, values, masks, slope, index, damping, stopped))
    return found


def _conjugate_gradients(
    objective: Matching,
    values: Values,
    masks: Masks,
    slope: Values,
    index: NDArray[np.int64],
    damping: float,
    stopped: Callable[[], bool],
) -> Values:
    """Hestenes and Stiefel (1952), scaled by the size of each tensor."""
    scale = {n: float(np.sqrt((objective.dense[n].astype(np.float64) ** 2).mean())) or 1.0 for n in slope}

    def apply(direction: Values) -> Values:
        inner = {n: (d * scale[n]).astype(values[n].dtype) for n, d in direction.items()}
        back = _masked(product(objective, values, inner, index), masks)
        return {n: back[n] * scale[n] + ridge * d for n, d in direction.items()}

    ridge = 0.0
    right = {n: -s.astype(np.float64) * scale[n] for n, s in slope.items()}
    curvature = _dot(right, apply(right)) / max(_dot(right, right), 1e-300)
    ridge = damping * curvature
    solution = {n: np.zeros_like(r) for n, r in right.items()}
    rest, direction = dict(right), dict(right)
    size = first = _dot(rest, rest)
    for _ in range(ITERATIONS):
        if size <= 1e-10 * first or stopped():
            break
        applied = apply(direction)
        length = size / _dot(direction, applied)
        solution = {n: solution[n] + length * direction[n] for n in solution}
        rest = {n: rest[n] - length * applied[n] for n in rest}
        size, before = _dot(rest, rest), size
        direction = {n: rest[n] + size / before * direction[n] for n in rest}
    return {n: (s * scale[n]).astype(values[n].dtype) for n, s in solution.items()}


def _masked(gradient: Values, masks: Masks) -> Values:
    return {n: np.where(masks[n], g, 0) if n in masks else g for n, g in gradient.items()}


def _dot(a: Values, b: Values) -> float:
    return float(sum(np.vdot(a[n].astype(np.float64), b[n].astype(np.float64)) for n in a))
