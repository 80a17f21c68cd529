"""Rows of a layer on the refit cost: two greedy starts, exchanges, blocks chosen anew."""

from __future__ import annotations

import time

import numpy as np

from onnxprune.surgeon.selection.arrays import Array, Floats, Index, Mask
from onnxprune.surgeon.selection.greedy import greedy_additions, greedy_removals
from onnxprune.surgeon.selection.neighbourhood import improve_by_blocks
from onnxprune.surgeon.selection.refit import refit_cost
from onnxprune.surgeon.selection.swaps import Improved, improve_by_swaps


def select_in_rows(
    moments: Floats,
    weights: Floats,
    counts: int | Index,
    *,
    ridge: float = 1e-6,
    seconds: float = np.inf,
    blocks: int = 50,
) -> Improved:
    """Choose which weights of every row go, the others being refitted.

    Greedy removal and greedy addition, exchanges from both, and for the better one of each row blocks chosen anew. What
    the time does not suffice for is left out; the greedy starts are always finished.

    Args:
        moments: Shape (d, d), second moments of the inputs.
        weights: Shape (rows, d); with targets those of :func:`best_weights`.
        counts: How many go, from every row or from each.
        ridge: Share of the mean of the diagonal of H that is added to it, and counts as part of H.
        seconds: Time limit.
        blocks: See :func:`improve_by_blocks`; 0 leaves this step out.

    Returns:
        The masks; costs before are those of the better greedy start of each row.

    Raises:
        InputError: If the moments are singular and the ridge is too small.
    """
    began = time.perf_counter()
    rows, size = np.shape(weights)
    each = np.broadcast_to(np.asarray(counts, dtype=np.intp), (rows,))
    removals = greedy_removals(moments, weights, int(each.max(initial=0)), ridge=ridge)
    additions = greedy_additions(moments, weights, int((size - each).max(initial=0)), ridge=ridge)
    starts = [removals.mask(each), additions.mask(size - each)]
    costs = np.array([refit_cost(moments, weights, start, ridge=ridge) for start in starts])
    before, moves, finished = costs.min(axis=0), 0, True
    for number, start in enumerate(starts):
        left = began + seconds - time.perf_counter()
        found = improve_by_swaps(moments, weights, start, ridge=ridge, seconds=left / (2 - number))
        starts[number], costs[number] = found.mask, found.after
        moves, finished = moves + found.moves, finished and found.finished
    best, after = _better(starts, costs)
    if blocks:
        left = began + seconds - time.perf_counter()
        found = improve_by_blocks(moments, weights, best, ridge=ridge, seconds=left, blocks=blocks)
        best, after = found.mask, found.after
        moves, finished = moves + found.moves, finished and found.finished
    return Improved(best, before, after, moves, finished)


def _better(masks: list[Mask], costs: Array) -> tuple[Mask, Array]:
    """The cheaper mask of each row."""
    chosen = costs.argmin(axis=0)
    return np.where(chosen[:, None] == 0, masks[0], masks[1]), costs.min(axis=0)
