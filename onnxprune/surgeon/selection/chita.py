"""CHITA (Benbaki et al., ICML 2023): pruning as sparse least squares on per-sample gradients.

``min 1/(2n) ||X (v - w)||^2 + ridge/2 ||v - w||^2`` over ``||v||_0 <= k``, with X the per-sample gradients (n x N): the
paper's ``y = X w``. Iterative hard thresholding with a line search along the thresholded path, on a set of active
columns, then a least-squares solve on the support.
"""

from __future__ import annotations

import numpy as np

from onnxprune.surgeon.selection.arrays import Array, Floats, Index
from onnxprune.surgeon.selection.cbs_select import Selected
from onnxprune.surgeon.selection.fisher import Fisher
from onnxprune.surgeon.selection.magnitude import without_smallest

_LARGE = 0.7
"""Share of active columns from which copying them is not worth it."""
_SETS = 5
_LENGTHS = 30


def chita(
    weights: Floats,
    gradients: Floats,
    count: int,
    *,
    ridge: float = 1e-5,
    iterations: int = 50,
    tolerance: float = 1e-6,
) -> tuple[Selected, Array]:
    """Select weights by iterative hard thresholding and give the kept ones their best values.

    Args:
        weights: Shape (N,).
        gradients: Shape (n, N), per-sample gradients.
        count: How many weights to remove.
        ridge: Pull towards the old weights.
        iterations: Thresholding steps per active set at most.
        tolerance: A step that lowers the objective by less than this share of it is the last one.

    Returns:
        The selection, whose cost is the objective without the final solve, and the new weights, shape (N,).
    """
    w = np.asarray(weights, dtype=np.float64)
    fisher = Fisher(gradients, ridge)
    kept = len(w) - count
    v = np.where(without_smallest(np.abs(w), count), w, 0.0)
    active = np.flatnonzero(without_smallest(np.abs(w), max(0, len(w) - 2 * kept)))
    steps = 0
    for _ in range(_SETS):
        v, done = _threshold(fisher, w, v, active, kept, iterations, tolerance)
        steps += done
        if len(active) == len(w):
            break
        support = np.flatnonzero(_step(fisher, w, v, kept)[0])
        added = np.setdiff1d(support, active)
        if not len(added):
            break
        active = np.union1d(active, added)
    mask = v != 0
    mask[np.argsort(np.where(mask, np.inf, -np.abs(w)), kind="stable")[: max(0, kept - int(mask.sum()))]] = True
    cost = fisher.cost(v - w)
    return Selected(mask, cost, 0, steps), np.where(mask, w + fisher.correction(w, mask), 0.0)


def _threshold(
    fisher: Fisher, w: Array, v: Array, active: Index, kept: int, iterations: int, tolerance: float
) -> tuple[Array, int]:
    """Steps on some columns until they no longer help; the new weights and the number of steps."""
    whole = len(active) > _LARGE * len(w)
    if not whole:
        # What lies outside stays at 0 and adds a constant to X (v - w).
        outside = np.where(np.isin(np.arange(len(w)), active), 0.0, -w)
        rest = fisher.through(outside)
        part = Fisher(np.take(fisher.gradients, active, axis=1), fisher.ridge)
        found, steps = _descend(part, w[active], v[active], rest, kept, iterations, tolerance)
        v = np.zeros(len(w))
        v[active] = found
        return v, steps
    return _descend(fisher, w, v, np.zeros(fisher.samples), kept, iterations, tolerance)


def _descend(
    fisher: Fisher, w: Array, v: Array, rest: Array, kept: int, iterations: int, tolerance: float
) -> tuple[Array, int]:
    value = _objective(fisher, w, v, rest)
    for number in range(iterations):
        found, lower = _step(fisher, w, v, kept, rest, value)
        if not lower < value * (1 - tolerance):
            return (found, number + 1) if lower < value else (v, number + 1)
        v, value = found, lower
    return v, iterations


def _objective(fisher: Fisher, w: Array, v: Array, rest: Array) -> float:
    image = fisher.through(v - w) + rest
    return float(image @ image / fisher.samples + fisher.ridge * ((v - w) @ (v - w))) / 2


def _step(
    fisher: Fisher, w: Array, v: Array, kept: int, rest: Array | None = None, value: float | None = None
) -> tuple[Array, float]:
    """One thresholded gradient step of the best length; the new weights and their objective.

    As long as the support stays the same, the objective is a quadratic in the length whose minimum is exact. Where that
    minimum changes the support, the length is doubled while that helps; where it does not help, halved until it does.
    """
    rest = np.zeros(fisher.samples) if rest is None else rest
    value = _objective(fisher, w, v, rest) if value is None else value
    gradient = fisher.back(fisher.through(v - w) + rest) + fisher.ridge * (v - w)
    support = v != 0
    inside = np.where(support, gradient, 0.0) if support.any() else gradient
    curvature = 2 * fisher.cost(inside)
    if curvature <= 0:
        return v, value
    length = float(inside @ inside) / curvature
    best, lowest, factor = v, value, 2.0
    for number in range(_LENGTHS):
        tried = _largest(v - length * gradient, kept)
        told = _objective(fisher, w, tried, rest)
        if told < lowest:
            best, lowest = tried, told
            if number == 0 and np.array_equal(tried != 0, support):
                break  # the exact minimum of this piece
        elif number == 0:
            factor = 0.5
        elif lowest < value:
            break
        length *= factor
    return best, lowest


def _largest(values: Array, kept: int) -> Array:
    """The ``kept`` largest entries by size, the others 0."""
    return np.where(without_smallest(np.abs(values), len(values) - kept), values, 0.0)
