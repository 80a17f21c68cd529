"""The best set of a few weights to remove on the refit cost, by branch and bound on the OBS bound.

Removing more never costs less: with R removed so far at the cost c, and ``left`` more to go among the undecided, any
completion costs at least c plus the ``left``-th smallest single cost ``v_i^2 / (2 S_ii)``. Weights are decided in a
fixed order, the most expensive first, so that keeping one takes a row and column out of S, and removing one is a
rank-one update, for all nodes of a depth at once ("leaps and bounds"; Furnival & Wilson 1974).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.surgeon.selection.arrays import Array, Floats, Mask, damped, inverse
from onnxprune.surgeon.selection.block import BlockResult
from onnxprune.surgeon.selection.greedy import greedy_removals
from onnxprune.surgeon.selection.refit import refit_cost
from onnxprune.surgeon.selection.swaps import improve_by_swaps

_MEMORY = 1 << 22
"""Entries of S treated together."""
_TOLERANCE = 1e-9
"""Relative differences below this count as none."""


def best_removals(
    moments: Floats, weights: Floats, count: int, *, ridge: float = 1e-6, nodes: int = 10_000_000
) -> BlockResult:
    """The set of ``count`` weights of a row whose removal, with the others refitted, costs least; with proof.

    Args:
        moments: Shape (d, d), d up to about 30.
        weights: Shape (d,).
        count: How many go.
        ridge: Share of the mean of the diagonal of H that is added to it, and counts as part of H.
        nodes: Nodes at most; where they do not suffice, the bound is below the value.

    Raises:
        InputError: If the moments are singular and the ridge is too small.
    """
    began = time.perf_counter()
    row = np.asarray(weights, dtype=np.float64)[None, :]
    start = greedy_removals(moments, row, count, ridge=ridge).mask(count)
    start = improve_by_swaps(moments, row, start, ridge=ridge).mask
    local = float(refit_cost(moments, row, start, ridge=ridge)[0])
    matrix = inverse(damped(np.asarray(moments, dtype=np.float64), ridge))
    chosen, _, bound, used = cheapest_set(matrix, row[0], count, ~start[0], local, nodes)
    value = float(refit_cost(moments, row, ~chosen[None, :], ridge=ridge)[0])
    return BlockResult(chosen, value, min(bound, value), local, used, time.perf_counter() - began)


@dataclass(frozen=True)
class _Nodes:
    """Nodes of one depth.

    Attributes:
        depth: Weights decided.
        matrix: Shape (nodes, u, u), S of the u undecided ones.
        values: Shape (nodes, u), v.
        cost: Shape (nodes,).
        left: Shape (nodes,), removals to come.
        chosen: Shape (nodes, d).
    """

    depth: int
    matrix: Array
    values: Array
    cost: Array
    left: NDArray[np.int64]
    chosen: Mask

    def part(self, which: Mask | slice) -> _Nodes:
        """Some of them."""
        matrix, values, cost = self.matrix[which], self.values[which], self.cost[which]
        return _Nodes(self.depth, matrix, values, cost, self.left[which], self.chosen[which])

    def bounds(self) -> Array:
        """The OBS bound of each node, shape (nodes,)."""
        single = self.values**2 / (2 * np.einsum("nii->ni", self.matrix))
        place = np.maximum(self.left - 1, 0)
        smallest = np.take_along_axis(np.sort(single, axis=1), place[:, None], axis=1)[:, 0]
        return np.where(self.left > 0, self.cost + smallest, self.cost)

    def children(self, value: float) -> _Nodes:
        """The next weight removed where that costs less than ``value``, and kept where enough others are left."""
        pivot, first = self.matrix[:, 0, 0], self.values[:, 0]
        cost = self.cost + first**2 / (2 * pivot)
        cheap, spare = cost < value, self.left < self.values.shape[1]
        column = self.matrix[cheap, 1:, 0]
        scaled = column / pivot[cheap, None]
        removed = self.matrix[cheap, 1:, 1:] - scaled[:, :, None] * column[:, None, :]
        values = self.values[cheap, 1:] - scaled * first[cheap, None]
        chosen = self.chosen[cheap]
        chosen[:, self.depth] = True
        return _Nodes(
            self.depth + 1,
            np.concatenate([removed, self.matrix[spare, 1:, 1:]]),
            np.concatenate([values, self.values[spare, 1:]]),
            np.concatenate([cost[cheap], self.cost[spare]]),
            np.concatenate([self.left[cheap] - 1, self.left[spare]]),
            np.concatenate([chosen, self.chosen[spare]]),
        )


def cheapest_set(
    matrix: Array, values: Array, count: int, start: Mask, cost: float, nodes: int = 10_000_000
) -> tuple[Mask, float, float, int]:
    """``min 1/2 v_R' (S_RR)^-1 v_R`` over sets R of ``count`` weights.

    Args:
        matrix: Shape (d, d), S.
        values: Shape (d,), v.
        count: Size of R.
        start: Shape (d,), a set to beat, True where removed.
        cost: Its cost.
        nodes: Nodes at most.

    Returns:
        The best set that was found, its cost, a lower bound, and the number of nodes.
    """
    if not 0 < count < len(values):
        return start, cost, cost, 0
    order = np.argsort(-(values**2) / np.diag(matrix), kind="stable")
    none = np.zeros((1, len(values)), dtype=np.bool_)
    root = _Nodes(
        0, matrix[np.ix_(order, order)][None], values[order][None], np.zeros(1), np.array([count], dtype=np.int64), none
    )
    best, lowest, used, stack = start, np.inf, 0, [root]
    while stack:
        batch = stack.pop()
        together = max(1, _MEMORY // max(batch.matrix[0].size, 1)) if len(batch.cost) else 1
        if len(batch.cost) > together:
            stack.append(batch.part(slice(together, None)))
            batch = batch.part(slice(together))
        bounds = batch.bounds() if batch.values.size else batch.cost
        worse = cost * (1 - _TOLERANCE)
        if used >= nodes:
            lowest = min(lowest, float(bounds[bounds < worse].min(initial=np.inf)))
            continue
        used += len(bounds)
        ended = batch.left == 0
        if ended.any() and float(batch.cost[ended].min()) < worse:
            found = batch.part(ended)
            place = int(found.cost.argmin())
            cost, best = float(found.cost[place]), np.zeros(len(values), dtype=np.bool_)
            best[order] = found.chosen[place]
        batch = batch.part(~ended & (bounds < cost * (1 - _TOLERANCE)))
        if len(batch.cost):
            stack.append(batch.children(cost * (1 - _TOLERANCE)))
    return best, cost, min(cost, lowest), used
