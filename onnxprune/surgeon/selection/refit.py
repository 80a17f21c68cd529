"""Masked least squares: the best values of the kept weights of many rows that share one matrix of second moments."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dposv

from onnxprune.errors import InputError
from onnxprune.surgeon.selection.arrays import Array, Floats, Index, Mask, damped, inverse


def refit(
    moments: Floats,
    weights: Floats,
    mask: Mask,
    *,
    targets: Floats | None = None,
    ridge: float = 1e-6,
) -> Array:
    """Minimise ``1/2 v'Hv - b'v + ridge/2 mean(diag H) ||v - w||^2`` per row over the weights that its mask keeps.

    Without targets ``b = H w``: the outputs of the old weights are approximated, and the solution is the old weights
    plus ``(H_QQ)^-1 H_QP w_P``. With targets ``b = X'y``: the least-squares fit of other outputs y to the inputs X.
    Exact (a Cholesky factorisation per different mask, of the kept or of the removed part, whichever is smaller).

    Args:
        moments: Shape (d, d), second moments of the inputs, ``X'X`` up to a factor.
        weights: Shape (rows, d).
        mask: Shape (rows, d), True where kept.
        targets: Shape (rows, d), ``Y'X`` with the same factor as the moments.
        ridge: Pull towards the old weights, as a share of the mean of the diagonal of H.

    Returns:
        Shape (rows, d), 0 where removed.

    Raises:
        InputError: If the moments are singular and the ridge is too small.
    """
    system, right, centre = normal_equations(moments, weights, targets, ridge)
    inverted: Array | None = None
    found = np.zeros_like(right)
    for chosen, rows in same_masks(mask):
        kept, removed = np.flatnonzero(chosen), np.flatnonzero(~chosen)
        if len(kept) <= len(removed):
            found[np.ix_(rows, kept)] = _solve(system[np.ix_(kept, kept)], right[np.ix_(rows, kept)].T).T
            continue
        inverted = inverse(system) if inverted is None and len(removed) else inverted
        values = centre[rows]
        if inverted is not None and len(removed):
            multipliers = _solve(inverted[np.ix_(removed, removed)], values[:, removed].T)
            values = values - (inverted[:, removed] @ multipliers).T
        values[:, removed] = 0.0
        found[rows] = values
    return found


def refit_cost(moments: Floats, weights: Floats, mask: Mask, *, ridge: float = 1e-6) -> Array:
    """``1/2 w_P' (M_PP)^-1 w_P`` per row: the loss change of removing P and refitting the rest (M = H^-1).

    Args:
        moments: Shape (d, d); the ridge counts as part of H.
        weights: Shape (rows, d).
        mask: Shape (rows, d), True where kept.
        ridge: Share of the mean of the diagonal of H.

    Returns:
        Shape (rows,).

    Raises:
        InputError: If the moments are singular and the ridge is too small.
    """
    change = refit(moments, weights, mask, ridge=ridge) - weights
    return np.asarray(np.einsum("ri,ri->r", change @ damped(np.asarray(moments, np.float64), ridge), change) / 2)


def best_weights(moments: Floats, weights: Floats, targets: Floats | None, *, ridge: float = 1e-6) -> Array:
    """The refit without any mask: what selection takes for the weights where targets are given.

    Args:
        moments: Shape (d, d).
        weights: Shape (rows, d).
        targets: Shape (rows, d), ``Y'X``; None returns the weights.
        ridge: See :func:`refit`.

    Returns:
        Shape (rows, d).

    Raises:
        InputError: If the moments are singular and the ridge is too small.
    """
    return normal_equations(moments, weights, targets, ridge)[2]


def normal_equations(
    moments: Floats, weights: Floats, targets: Floats | None, ridge: float
) -> tuple[Array, Array, Array]:
    """The system ``H + ridge``, the right-hand sides (rows, d), and the solutions without a mask (rows, d)."""
    plain, old = np.asarray(moments, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    system = damped(plain, ridge)
    if targets is None:
        return system, old @ system, old
    right = np.asarray(targets, dtype=np.float64) + (system[0, 0] - plain[0, 0] if len(plain) else 0.0) * old
    try:
        return system, right, cho_solve(cho_factor(system, lower=True), right.T).T
    except np.linalg.LinAlgError as error:
        raise InputError("The second moments are singular.", hint="Use a larger ridge.") from error


def same_masks(mask: Mask) -> list[tuple[Mask, Index]]:
    """Each different row of a mask, and which rows are like it."""
    packed = np.packbits(mask, axis=1)
    _, first, group = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(group, minlength=len(first)))[:-1])
    return [(mask[row], rows) for row, rows in zip(first, parts, strict=True)]


def _solve(system: Array, right: Array) -> Array:
    """A positive definite solve by LAPACK, without the checks that cost more than small systems."""
    if not right.size:
        return right
    _, found, failed = dposv(system, right, lower=1)
    if failed:
        raise InputError("The second moments are singular.", hint="Use a larger ridge.")
    return np.asarray(found, dtype=np.float64)
