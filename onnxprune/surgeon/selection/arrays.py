"""Shared notions: kinds of arrays, how many weights a sparsity removes, second moments with a ridge."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from onnxprune.errors import InputError

Array = NDArray[np.float64]
Floats = NDArray[np.floating]
"""Any floating-point array, such as gradients in float32."""
Mask = NDArray[np.bool_]
"""True where a weight is kept."""
Index = NDArray[np.intp]


def removal_count(size: int, sparsity: float) -> int:
    """How many of ``size`` weights go: all but ``floor((1 - sparsity) * size)``, the rule of the CBS paper.

    Args:
        size: Number of weights.
        sparsity: Share to remove, from 0 to 1.

    Raises:
        InputError: If the sparsity is outside that range.

    Examples:
        >>> removal_count(32360, 0.9)
        29124
    """
    if not 0 <= sparsity <= 1:
        raise InputError(f"A sparsity of {sparsity} is not possible.", hint="Use a number from 0 to 1.")
    kept = (1 - sparsity) * size
    return size - math.floor(kept + 1e-9 * max(size, 1))  # 1 - 0.9 is a little less than 0.1


def damped(moments: Array, ridge: float) -> Array:
    """Second moments plus a ridge that is a share of their mean diagonal; all dead inputs count as variance 1.

    Args:
        moments: Shape (d, d), symmetric positive semi-definite.
        ridge: Share of the mean of the diagonal that is added to the diagonal.
    """
    mean = float(np.trace(moments)) / max(len(moments), 1)
    found = (moments + moments.T) / 2
    found[np.diag_indices(len(found))] += ridge * (mean if mean > 0 else 1.0)
    return np.asarray(found, dtype=np.float64)


def inverse(moments: Array) -> Array:
    """The inverse of damped second moments, symmetric to the last bit.

    Args:
        moments: Shape (d, d), symmetric positive definite.

    Raises:
        InputError: If they are singular to working precision.
    """
    if not len(moments):
        return moments.copy()
    try:
        found = cho_solve(cho_factor(moments, lower=True), np.eye(len(moments)))
    except np.linalg.LinAlgError as error:
        raise InputError("The second moments are singular.", hint="Use a larger ridge.") from error
    return np.asarray((found + found.T) / 2, dtype=np.float64)


def positive_solve(matrix: Array, right: Array) -> Array:
    """A solution of a positive semi-definite system, of least norm where there are many.

    Args:
        matrix: Shape (d, d), symmetric positive semi-definite.
        right: Shape (d,) or (d, columns), in the range of the matrix.
    """
    if not len(matrix):
        return np.zeros_like(right)
    noise = 64 * len(matrix) * np.finfo(np.float64).eps
    try:
        factor = cho_factor(matrix, lower=True)
        pivots = np.diag(factor[0])
        if pivots.min() ** 2 > noise * pivots.max() ** 2:
            return np.asarray(cho_solve(factor, right), dtype=np.float64)
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(matrix)
    usable = values > noise * max(float(values[-1]), 0.0)
    vectors = vectors[:, usable]
    return np.asarray(vectors @ ((vectors.T @ right).T / values[usable]).T, dtype=np.float64)
