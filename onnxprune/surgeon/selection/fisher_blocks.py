"""Blocks of a selection over a whole network: how far exchanges are from best, by MILP, where it can be known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.surgeon.selection.arrays import Array, Floats, Index, Mask
from onnxprune.surgeon.selection.block import Block, BlockResult
from onnxprune.surgeon.selection.block_milp import prove_block
from onnxprune.surgeon.selection.fisher import Fisher

SIZE = 20
"""Weights of a block."""
SECONDS = 2.0
"""Time limit of a block."""


@dataclass(frozen=True)
class ProvedBlock:
    """A block and what is known about the best choice in it.

    Attributes:
        index: Shape (b,), its weights.
        chosen: Predicted loss change that the selection has there, up to a constant.
        result: The best found, where exchanges end, and the bound; in the same unit.
    """

    index: Index
    chosen: float
    result: BlockResult


def prove_blocks(
    weights: Floats, gradients: Floats, mask: Mask, count: int, *, ridge: float, seed: int = 0, size: int = SIZE
) -> Iterator[ProvedBlock]:
    """Choose blocks of a selection by CBS-S anew, everything outside fixed.

    Args:
        weights: Shape (N,).
        gradients: Shape (n, N), per-sample gradients.
        mask: Shape (N,), True where kept.
        count: Number of blocks.
        ridge: Added to the diagonal of the Fisher matrix.
        seed: Of the choice of blocks.
        size: Weights of a block: half of them kept, half of them removed, those that interact most with one of them.
    """
    fisher, w = Fisher(gradients, ridge), np.asarray(weights, dtype=np.float64)
    rng = np.random.default_rng(seed)
    pull = fisher.times(np.where(mask, 0.0, w))
    removed = np.flatnonzero(~mask)
    for first in rng.permutation(removed)[:count]:
        index = _interacting(fisher, w, mask, int(first), size)
        block = fisher_block(fisher, w, mask, index, pull)
        start = ~mask[index]
        yield ProvedBlock(index, block.value(start), prove_block(block, start, seconds=SECONDS))


def fisher_block(fisher: Fisher, weights: Array, mask: Mask, index: Index, pull: Array) -> Block:
    """The block of some weights, with everything that is removed outside of it.

    Args:
        fisher: The Fisher matrix H.
        weights: Shape (N,), w.
        mask: Shape (N,), True where kept.
        index: Shape (b,), the weights of the block.
        pull: Shape (N,), ``H_{:,P} w_P`` for all removed weights P.
    """
    columns, inside = fisher.columns(index), weights[index]
    matrix = columns.T @ columns / fisher.samples + fisher.ridge * np.eye(len(index))
    own = np.where(mask[index], 0.0, inside)
    return Block(inside[:, None] * matrix * inside, inside * (pull[index] - matrix @ own), int((~mask[index]).sum()))


def _interacting(fisher: Fisher, weights: Array, mask: Mask, first: int, size: int) -> Index:
    one = np.zeros(len(weights))
    one[first] = weights[first]
    strength = np.abs(weights * fisher.times(one))
    strength[first] = np.inf
    halves = []
    for side, room in ((~mask, size - size // 2), (mask, size // 2)):
        among = np.flatnonzero(side)
        halves.append(among[np.argsort(-strength[among], kind="stable")[:room]])
    return np.concatenate(halves)
