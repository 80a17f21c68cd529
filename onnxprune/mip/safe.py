"""Bounds on linear programmes that hold whatever the solver did (Neumaier & Shcherbina 2004).

For ``max c'x`` over ``row_low <= A x <= row_high``, ``low <= x <= high`` and *any* multipliers y,

    max c'x <= sum_i max(y_i row_low_i, y_i row_high_i) + sum_j max over [low_j, high_j] of (c - A'y)_j x_j,

where a multiplier with the sign of an infinite side counts as 0. Good multipliers give a good bound, wrong ones
a useless but valid one.
"""

from __future__ import annotations

import numpy as np

from onnxprune.mip.system import System
from onnxprune.operators.interval import TINY, Array, gamma


def usable_duals(system: System, duals: Array) -> Array:
    """Multipliers with those set to 0 that are not finite or rest on an infinite side, shape (rows,)."""
    duals = np.where(np.isfinite(duals), duals, 0.0)
    missing = ((duals > 0) & ~np.isfinite(system.row_high)) | ((duals < 0) & ~np.isfinite(system.row_low))
    return np.where(missing, 0.0, duals)


def dual_bound(system: System, objective: Array, duals: Array) -> float:
    """An upper bound on ``objective @ x`` over a system, rounded outward; inf where the multipliers give none.

    Args:
        system: The constraints, their numbers taken as exact; that columns are whole is not used.
        objective: Shape (columns,), taken as exact.
        duals: Shape (rows,); any numbers.
    """
    duals = usable_duals(system, duals)
    terms = system.rows.shape[0] + system.columns
    with np.errstate(all="ignore"):
        left = objective - system.rows.T @ duals
        error = gamma(terms) * (np.abs(objective) + abs(system.rows).T @ np.abs(duals)) + terms * TINY
        most, least = left + error, left - error
        corners = np.stack([_times(most, system.high), _times(most, system.low)])
        corners = np.concatenate([corners, [_times(least, system.high), _times(least, system.low)]])
        sides = np.where(duals > 0, system.row_high, np.where(duals < 0, system.row_low, 0.0))
        parts = np.concatenate([corners.max(axis=0), duals * sides])
        total = float(parts.sum())
        size = float(np.abs(parts).sum())
        # Two more roundings per part, in the product and in the sum of left and error, are within the margin of gamma.
        bound = total + (gamma(terms) * size + terms * TINY)
    return float(np.nextafter(bound, np.inf)) if not np.isnan(bound) else np.inf


def _times(a: Array, b: Array) -> Array:
    """A product in which zero times infinity is zero."""
    return np.where((a == 0) | (b == 0), 0.0, a * b)
