"""CBS-S block after block: every block of a row proved best or replaced by the best, everything else fixed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onnxprune.surgeon.selection.arrays import Floats, Index, Mask
from onnxprune.surgeon.selection.block import BlockResult, block_of
from onnxprune.surgeon.selection.block_search import solve_block


def repair_by_blocks(
    weights: Floats, moments: Floats, mask: Mask, blocks: Iterable[Index], *, nodes: int = 1_000_000
) -> tuple[Mask, list[BlockResult]]:
    """Certify a selection on blocks, or repair it there.

    Args:
        weights: Shape (d,).
        moments: Shape (d, d), H.
        mask: Shape (d,), True where kept: what local search arrived at.
        blocks: The weights of each block, such as :func:`interacting` ones; blocks may share weights.
        nodes: Nodes per block at most.

    Returns:
        The mask, never worse on ``1/2 sum A y y``, and per block what exchanges find there (``local``), the best, and
        the bound: ``local - bound`` is the optimality gap that exchanges leave in the block.
    """
    mask, results = mask.copy(), []
    for index in blocks:
        block = block_of(weights, moments, mask, index)
        result = solve_block(block, ~mask[index], nodes=nodes)
        if result.value < block.value(~mask[index]):
            mask[index] = ~result.chosen
        results.append(result)
    return np.asarray(mask), results
