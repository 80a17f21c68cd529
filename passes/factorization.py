"""Fewer rows with the same effect: what a layer and its readers do to linear units, as a product of lower rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from onnxprune.operators.interval import Array

NEGLIGIBLE = 1e-10
"""Singular values below this share of the largest one are dropped; what that changes is part of the deviation."""
DEPENDENT = 1e-6
"""A row this close to the span of others (all scaled alike) is a combination of them, but for its rounding."""
LARGEST_COEFFICIENT = 1e3
"""Of a row in terms of others, all scaled to what they can become."""
CONDITION = 1e4
"""Largest condition number of the rows that others are expressed by."""


@dataclass(frozen=True)
class Factors:
    """``behind @ front`` as (about) ``columns @ rows``: the rows are new, or some of those of ``front``."""

    order: NDArray[np.int64]
    """The units that take part; the rows take the places of the first."""
    rows: Array
    columns: Array | None
    """None: to be computed once the rows are rounded."""


Rule = Callable[[Array, Array, Array, NDArray[np.bool_]], "Factors | None"]
"""From front (units, in), behind (out, units), size of the inputs (in,), and which units must stay."""


def by_product(front: Array, behind: Array, size: Array, held: NDArray[np.bool_]) -> Factors | None:
    """As many new rows as the product has rank (methods: product-rank merge)."""
    order = np.concatenate([np.flatnonzero(held), np.flatnonzero(~held)])
    spared = max(0, int(held.sum()) - _product_rank(front, behind, size)[0])
    order = order[spared:]  # units that must stay and find no place among the new ones remain as they are
    rank, directions = _product_rank(front[order], behind[:, order], size)
    return Factors(order, directions, None) if rank < len(order) else None


def _product_rank(front: Array, behind: Array, size: Array) -> tuple[int, Array]:
    """Rank of what the readers see of some units, and as many orthonormal directions of the inputs.

    Every output counts alike, however small it is beside others: rows are scaled to what they can become.
    """
    product = behind @ front
    reach = np.abs(product) @ size
    scaled = product[reach > 0] / reach[reach > 0, None]
    if not len(scaled):
        return 1, np.eye(1, product.shape[1])
    _, values, directions = np.linalg.svd(scaled, full_matrices=False)
    rank = min(max(1, int((values > NEGLIGIBLE * values.max(initial=0.0)).sum())), len(front))
    return rank, np.asarray(directions[:rank], dtype=np.float64)


def by_rows(front: Array, behind: Array, size: Array, held: NDArray[np.bool_]) -> Factors | None:
    """Keep a basis of the rows themselves and express the others by it (Serra et al. 2020, 2021).

    The basis comes from a QR decomposition with column pivoting and is well-conditioned. A row that is not in its
    span, or only with large coefficients, stays as it is: rounding would decide what replaces it.
    """
    reach = np.abs(front) @ size
    scaled = front * size / np.where(reach > 0, reach, 1.0)[:, None]
    _, triangle, pivots = linalg.qr(scaled.T, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(triangle))
    largest = float(diagonal.max(initial=0.0))
    rank = int((diagonal * CONDITION > largest).sum())
    while rank and np.linalg.cond(scaled[pivots[:rank]]) > CONDITION:
        rank -= 1
    kept = np.asarray(pivots[:rank], np.int64)
    others = np.asarray([unit for unit in pivots[rank:] if not held[unit]], np.int64)
    if not rank or not len(others):
        return None
    mixing = np.linalg.lstsq(scaled[kept].T, scaled[others].T, rcond=None)[0].T
    rest = np.linalg.norm(scaled[others] - mixing @ scaled[kept], axis=1)
    good = (rest <= DEPENDENT * largest) & (np.abs(mixing).max(axis=1) <= LARGEST_COEFFICIENT)
    if not good.any():
        return None
    others = others[good]
    mixing = mixing[good] * reach[others, None] / reach[kept]
    return Factors(np.concatenate([kept, others]), front[kept], behind[:, kept] + behind[:, others] @ mixing)
