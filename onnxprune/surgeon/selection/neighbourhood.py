"""Large-neighbourhood search on the refit cost: blocks of a row chosen anew, exactly, with all else refitted.

Where no exchange of two weights gains any more, an exchange of several may. For a block of weights with all others on
their side, the best choice is found by :func:`cheapest_set` on what the tableau holds of the block.
"""

from __future__ import annotations

import time

import numpy as np

from onnxprune.surgeon.selection.arrays import Floats, Index, Mask, damped, inverse
from onnxprune.surgeon.selection.exact_refit import cheapest_set
from onnxprune.surgeon.selection.refit import refit_cost
from onnxprune.surgeon.selection.swaps import LEAST_GAIN, Improved, never_worse
from onnxprune.surgeon.selection.tableau import Tableau

_NODES = 20_000
_WIDE = 4


def improve_by_blocks(
    moments: Floats,
    weights: Floats,
    mask: Mask,
    *,
    size: int = 16,
    blocks: int = 50,
    ridge: float = 1e-6,
    seconds: float = np.inf,
    seed: int = 0,
) -> Improved:
    """Choose blocks of every row anew as long as its refit cost falls.

    Args:
        moments: Shape (d, d), second moments of the inputs.
        weights: Shape (rows, d).
        mask: Shape (rows, d), the start, best one that :func:`improve_by_swaps` returned.
        size: Weights per block.
        blocks: Blocks in a row without a gain that end the search of a row.
        ridge: Share of the mean of the diagonal of H that is added to it, and counts as part of H.
        seconds: Time limit; each row has an equal share of what is left.
        seed: Of the choice of blocks.

    Raises:
        InputError: If the moments are singular and the ridge is too small.
    """
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    system, old = damped(np.asarray(moments, dtype=np.float64), ridge), np.asarray(weights, dtype=np.float64)
    inverted = inverse(system)
    before = refit_cost(moments, old, mask, ridge=ridge)
    found, moves, finished = mask.copy(), 0, True
    order = np.argsort(-before, kind="stable").tolist()
    for number, row in enumerate(order):
        left = began + seconds - time.perf_counter()
        if left <= 0:
            finished = False
            break
        until = time.perf_counter() + left / (len(order) - number)
        tableau = Tableau(system, old[row : row + 1], mask[row], inverted)
        idle = 0
        while idle < blocks and time.perf_counter() < until:
            gained = _choose_anew(tableau, _block(tableau, size, rng))
            moves, idle = moves + gained, 0 if gained else idle + 1
        found[row], finished = tableau.kept, finished and idle >= blocks
    return never_worse(moments, old, mask, found, before, moves, finished, ridge)


def _block(tableau: Tableau, size: int, rng: np.random.Generator) -> Index:
    """One weight near the border between kept and removed, and the weights there that interact most with it."""
    changes = np.abs(tableau.single_changes())
    removed, kept = np.flatnonzero(~tableau.kept), np.flatnonzero(tableau.kept)
    worth = removed[np.argsort(-changes[removed], kind="stable")[: _WIDE * size]]
    cheap = kept[np.argsort(changes[kept], kind="stable")[: _WIDE * size]]
    border = np.concatenate([worth, cheap])
    seed = int(rng.choice(border))
    others = border[border != seed]
    diagonal = tableau.diagonal
    strength = tableau.matrix[seed, others] ** 2 / (diagonal[seed] * diagonal[others])
    likely = rng.random(len(others)) * strength
    return np.append(others[np.argsort(-likely, kind="stable")[: size - 1]], seed)


def _choose_anew(tableau: Tableau, block: Index) -> bool:
    """Give a block its best choice; whether that gained."""
    gone = ~tableau.kept[block]
    if gone.all() or not gone.any():
        return False
    matrix, values, saved = tableau.released(block[None, :])
    now = float(saved[0])
    best, cost, _, _ = cheapest_set(matrix[0], values[0], int(gone.sum()), gone, now, _NODES)
    if now - cost <= LEAST_GAIN * tableau.cost:
        return False
    tableau.move(block[best != gone])
    return True
