"""Exchanges on the refit cost: what the Combinatorial Brain Surgeon's swaps would be if they knew of the update.

For every row, all pairs of a removed and a kept weight are priced at once, with all other kept weights refitted
(:meth:`Tableau.exchange_changes`), and the best are carried out until none gains: a local optimum under exchanges,
never worse than the start.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from onnxprune.surgeon.selection.arrays import Array, Floats, Index, Mask, damped, inverse
from onnxprune.surgeon.selection.refit import refit_cost
from onnxprune.surgeon.selection.tableau import Tableau

LEAST_GAIN = 1e-6
"""Share of its refit cost that an exchange must save."""
AT_ONCE = 8
"""Exchanges carried out per scan of all pairs at most; each is priced again before it is."""
STILL_GOOD = 0.5
"""Share of its first price that an exchange must still be worth after others of its scan."""


@dataclass(frozen=True)
class Improved:
    """A mask that costs no more than the one it started from.

    Attributes:
        mask: Shape (rows, d), True where kept.
        before: Shape (rows,), refit costs at the start.
        after: Shape (rows,), refit costs.
        moves: Changes carried out.
        finished: Whether every row is a local optimum; False where the time ended first.
    """

    mask: Mask
    before: Array
    after: Array
    moves: int
    finished: bool


def improve_by_swaps(
    moments: Floats,
    weights: Floats,
    mask: Mask,
    *,
    ridge: float = 1e-6,
    locked: Mask | None = None,
    seconds: float = np.inf,
    swaps: int = 1000,
) -> Improved:
    """Exchange removed for kept weights within every row as long as its refit cost falls.

    Args:
        moments: Shape (d, d), second moments of the inputs.
        weights: Shape (rows, d).
        mask: Shape (rows, d), the start; the number of kept weights of each row stays.
        ridge: Share of the mean of the diagonal of H that is added to it, and counts as part of H.
        locked: Shape (rows, d), True for weights that stay on their side.
        seconds: Time limit; rows of high cost come first.
        swaps: Exchanges per row at most.

    Raises:
        InputError: If the moments are singular and the ridge is too small.
    """
    began = time.perf_counter()
    system = damped(np.asarray(moments, dtype=np.float64), ridge)
    old = np.asarray(weights, dtype=np.float64)
    inverted = inverse(system)
    found, moves, finished = mask.copy(), 0, True
    before = refit_cost(moments, old, mask, ridge=ridge)
    for row in np.argsort(-before, kind="stable").tolist():
        left = seconds - (time.perf_counter() - began)
        if left <= 0:
            finished = False
            break
        tableau = Tableau(system, old[row : row + 1], mask[row], inverted)
        free = np.ones(len(system), dtype=np.bool_) if locked is None else ~locked[row]
        done, ended = _descend(tableau, free, left, swaps)
        found[row] = tableau.kept
        moves, finished = moves + done, finished and ended
    return never_worse(moments, old, mask, found, before, moves, finished, ridge)


def never_worse(
    moments: Floats, weights: Array, mask: Mask, found: Mask, before: Array, moves: int, finished: bool, ridge: float
) -> Improved:
    """The result with all costs computed anew, and the start back in rows where rounding had misled."""
    after = refit_cost(moments, weights, found, ridge=ridge)
    worse = after > before
    found = np.where(worse[:, None], mask, found)
    return Improved(found, before, np.where(worse, before, after), moves, finished)


def _descend(tableau: Tableau, free: Mask, seconds: float, swaps: int) -> tuple[int, bool]:
    """Exchanges until none gains; how many, and whether that was the reason to stop."""
    began, moves = time.perf_counter(), 0
    while moves < swaps and time.perf_counter() - began < seconds:
        removed, kept = np.flatnonzero(~tableau.kept & free), np.flatnonzero(tableau.kept & free)
        if not len(removed) or not len(kept):
            return moves, True
        changes = tableau.exchange_changes(removed, kept)
        least = LEAST_GAIN * tableau.cost
        done = 0
        for place in rows_by_least(changes)[: min(AT_ONCE, swaps - moves)]:
            pair = np.array([removed[place], kept[int(changes[place].argmin())]], dtype=np.intp)
            if tableau.kept[pair[1]] and not tableau.kept[pair[0]]:
                now = tableau.change(pair)
                if now < -least and now <= STILL_GOOD * changes[place].min():
                    tableau.move(pair)
                    done += 1
        if not done:
            return moves, True
        moves += done
    return moves, False


def rows_by_least(changes: Array) -> Index:
    """The rows of a matrix, those with the least entries first."""
    return np.argsort(changes.min(axis=1), kind="stable")
