"""Blocks of a whole network's selection, against every choice there is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings

from onnxprune.surgeon.selection import cbs_select
from onnxprune.surgeon.selection.fisher import Fisher
from onnxprune.surgeon.selection.fisher_blocks import prove_blocks
from tests.surgeon.selection.support import seeds

SIZE, RIDGE = 8, 0.1


@given(seeds)
@settings(max_examples=8)
def test_blocks_are_solved_with_everything_else_fixed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gradients, weights = rng.normal(size=(10, 30)) @ rng.normal(size=(30, 30)), rng.normal(size=30)
    mask = rng.random(30) < 0.6
    mask[:4], mask[4:8] = True, False
    fisher = Fisher(gradients, RIDGE)

    def cost(removed: np.ndarray) -> float:
        return fisher.cost(np.where(removed, weights, 0.0))

    (block,) = prove_blocks(weights, gradients, mask, 1, ridge=RIDGE, seed=seed, size=SIZE)
    assert (~mask[block.index]).sum() == SIZE // 2
    costs = {}
    for chosen in combinations(block.index.tolist(), SIZE // 2):
        removed = ~mask
        removed[block.index] = False
        removed[list(chosen)] = True
        costs[frozenset(chosen)] = cost(removed)
    least, size = min(costs.values()), max(costs.values())
    assert block.chosen - block.result.value == pytest.approx(cost(~mask) - least, abs=1e-6 * size)
    assert costs[frozenset(block.index[block.result.chosen].tolist())] == pytest.approx(least, abs=1e-6 * size)
    assert block.result.gap <= 1e-5 * size


def test_exchanges_of_cbs_leave_nothing_to_single_exchanges() -> None:
    rng = np.random.default_rng(0)
    gradients, weights = rng.normal(size=(50, 40)), rng.normal(size=40)
    told = cbs_select(weights, gradients, 20, ridge=RIDGE, reach=40)
    for block in prove_blocks(weights, gradients, told.mask, 5, ridge=RIDGE, size=SIZE):
        assert block.result.value <= block.result.local <= block.chosen + 1e-9
