"""Greedy selection on the refit cost, many rows at a time: removing from all weights, or adding to none.

**Removing** (Optimal Brain Compression, Frantar & Alistarh 2022): each step takes from every row the weight whose
removal, with all others refitted, costs least, ``v_p^2 / (2 M_pp)`` with ``M = (H_QQ)^-1`` and v the refitted weights;
then ``v -= M_{:,p} v_p / M_pp`` and M loses the rank-one matrix ``M_{:,p} M_{p,:} / M_pp``.

**Adding** (forward stepwise least squares): each step puts back the weight that saves most, ``q_p^2 / (2 N_pp)`` with
``N = H_PP - H_PQ (H_QQ)^-1 H_QP`` and ``q = N w_P``; q and N then change by the same formulas.

Either is a Cholesky factorisation whose pivots follow another rule than the largest diagonal, see
:mod:`onnxprune.surgeon.selection.elimination`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.surgeon.selection.arrays import Array, Floats, Index, Mask, damped, inverse
from onnxprune.surgeon.selection.elimination import MEMORY, eliminate

_FEW = 0.6
"""Share of the weights of a row below which its elimination starts from those that are left."""
_SIMILAR = 0.7
"""Least share of the most weights left in rows that are treated together."""


@dataclass(frozen=True)
class Removals:
    """The order in which weights go, starting from all.

    Attributes:
        order: Shape (rows, steps), index of the weight removed in each step.
        costs: Shape (rows, steps + 1), refit cost ``1/2 w_P' (M_PP)^-1 w_P`` with so many removed; never falls. Where
            some were removed before, only what all of them cost together is known: less than that before the last.
        size: Weights per row.
    """

    order: Index
    costs: Array
    size: int

    def mask(self, counts: int | Index) -> Mask:
        """The mask with so many removed, of all rows or of each; shape (rows, size), True where kept."""
        return ~_first(self.order, counts, self.size)


@dataclass(frozen=True)
class Additions:
    """The order in which weights are put back, starting from none.

    Attributes:
        order: Shape (rows, steps), index of the weight put back in each step.
        costs: Shape (rows, steps + 1), refit cost with so many kept; never rises.
        size: Weights per row.
    """

    order: Index
    costs: Array
    size: int

    def mask(self, counts: int | Index) -> Mask:
        """The mask with so many kept, of all rows or of each; shape (rows, size), True where kept."""
        return _first(self.order, counts, self.size)


def _first(order: Index, counts: int | Index, size: int) -> Mask:
    """True at the first so many indices of each row."""
    rows, steps = order.shape
    found = np.zeros((rows, size), dtype=np.bool_)
    reached = np.arange(steps) < np.broadcast_to(np.asarray(counts), (rows,))[:, None]
    found[np.nonzero(reached)[0], order[reached]] = True
    return found


def greedy_removals(
    moments: Floats,
    weights: Floats,
    count: int,
    *,
    removed: Mask | None = None,
    group: tuple[int, int] | None = None,
    ridge: float = 1e-6,
) -> Removals:
    """Remove ``count`` weights from every row, one after another, each time the one whose removal costs least.

    Takes about ``d^3 / 3`` multiplications per row.

    Args:
        moments: Shape (d, d), second moments of the inputs.
        weights: Shape (rows, d).
        count: Steps, those already gone included.
        removed: Shape (rows, d), True for weights that go first, whatever they cost; at most ``count`` in a row.
        group: ``(n, m)`` keeps n of every m neighbours, such as (2, 4), until no more can go: ``count`` is then at most
            :func:`onnxprune.surgeon.selection.patterns.pattern_removals`.
        ridge: Share of the mean of the diagonal of H that is added to it, and counts as part of H.

    Raises:
        InputError: If the moments are singular and the ridge is too small.
    """
    old = np.asarray(weights, dtype=np.float64)
    forced = np.zeros(old.shape, dtype=np.bool_) if removed is None else removed
    system = damped(np.asarray(moments, dtype=np.float64), ridge)
    order, costs = np.zeros((len(old), count), dtype=np.intp), np.zeros((len(old), count))
    left = old.shape[1] - forced.sum(axis=1)
    few = left < (_FEW * old.shape[1] if group is None else 0)
    if not few.all():
        rest = np.flatnonzero(~few)
        order[rest], costs[rest] = eliminate(inverse(system), old[rest], count, first=forced[rest], group=group)
    for part in _alike(left, np.flatnonzero(few)):
        order[part], costs[part] = _among(system, old[part], forced[part], count)
    return Removals(order, np.cumsum(np.pad(costs, ((0, 0), (1, 0))), axis=1), old.shape[1])


def _alike(left: Index, rows: Index) -> Iterator[Index]:
    """Rows with about as many weights left, and no more of them at a time than memory allows."""
    rows = rows[np.argsort(left[rows], kind="stable")[::-1]]
    while len(rows):
        most = max(int(left[rows[0]]), 1)
        together = min(max(1, MEMORY // (8 * most * most)), int((left[rows] > _SIMILAR * most).sum() or 1))
        yield rows[:together]
        rows = rows[together:]


def _among(system: Array, weights: Array, removed: Mask, count: int) -> tuple[Index, Array]:
    """Order and added costs of removals in rows where few weights are left: starting from these."""
    order = np.argsort(removed, axis=1, kind="stable")
    width = int((~removed).sum(axis=1).max(initial=0))
    inside, outside = order[:, :width], order[:, width:]
    matrices = np.asarray(np.linalg.inv(system[inside[:, :, None], inside[:, None, :]]), dtype=np.float64)
    images = weights @ system
    aims = np.take_along_axis(images, inside, axis=1)
    values = np.matmul(matrices, aims[:, :, None])[:, :, 0]
    first = np.take_along_axis(removed, inside, axis=1)
    chosen, costs = eliminate(matrices, values, count - outside.shape[1], first=first)
    before = np.zeros(outside.shape)
    before[:, -1:] = np.maximum(((images * weights).sum(axis=1) - (aims * values).sum(axis=1)) / 2, 0)[:, None]
    return np.hstack([outside, np.take_along_axis(inside, chosen, axis=1)]), np.hstack([before, costs])


def greedy_additions(
    moments: Floats, weights: Floats, count: int, *, removed: Mask | None = None, ridge: float = 1e-6
) -> Additions:
    """Put back ``count`` weights in every row, one after another, each time the one that saves most.

    Cheaper than :func:`greedy_removals` where few weights stay, and often better there.

    Args:
        moments: Shape (d, d), second moments of the inputs.
        weights: Shape (rows, d).
        count: Weights to keep.
        removed: Shape (rows, d), True for weights that stay removed; at most ``d - count`` in a row.
        ridge: Share of the mean of the diagonal of H that is added to it, and counts as part of H.
    """
    old = np.asarray(weights, dtype=np.float64)
    system = damped(np.asarray(moments, dtype=np.float64), ridge)
    barred = np.zeros(old.shape, dtype=np.bool_) if removed is None else removed
    images = old @ system
    order, savings = eliminate(system, images, count, never=barred, largest=True)
    nothing = np.einsum("ri,ri->r", old, images)[:, None] / 2
    costs = nothing - np.cumsum(np.pad(savings, ((0, 0), (1, 0))), axis=1)
    return Additions(order, np.maximum(costs, 0.0), old.shape[1])
