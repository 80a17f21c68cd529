"""Exact blocks: our branch and bound, the MILP, and enumeration agree."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.surgeon.selection import (
    Block,
    block_of,
    improve_block,
    interacting,
    prove_block,
    repair_by_blocks,
    solve_block,
)
from onnxprune.surgeon.selection.arrays import Mask
from onnxprune.surgeon.selection.convexify import across_sum, best_diagonal
from tests.surgeon.selection.support import moments, seeds, subsets


def random_block(seed: int, size: int, convex: bool = True) -> Block:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=size)
    matrix = moments(rng, size)
    if not convex:
        matrix = rng.normal(size=(size, size))
        matrix = matrix + matrix.T
    return Block(w[:, None] * matrix * w, rng.normal(size=size) * (seed % 2), int(rng.integers(0, size + 1)))


def best_value(block: Block) -> float:
    return min(block.value(~mask) for mask in subsets(block.size, block.count))


@given(seeds, st.integers(1, 9), st.booleans())
@settings(deadline=None)
def test_branch_and_bound_is_exact(seed: int, size: int, convex: bool) -> None:
    block = random_block(seed, size, convex)
    found = solve_block(block)
    assert found.chosen.sum() == block.count
    assert found.value == pytest.approx(block.value(found.chosen))
    assert found.value == pytest.approx(best_value(block), abs=1e-8 * (block.scale + 1))
    assert found.gap == 0.0
    assert found.local >= found.value


@given(seeds, st.integers(2, 8), st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_programme_agrees(seed: int, size: int, convex: bool) -> None:
    block = random_block(seed, size, convex)
    found = prove_block(block)
    best = best_value(block)
    assert found.value == pytest.approx(best, abs=1e-8 * (block.scale + 1))
    assert best - 3e-6 * block.scale - 1e-12 <= found.bound <= best + 1e-6 * block.scale + 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_both_proofs_agree_on_blocks_beyond_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, w = rng.normal(size=(12, 18)), rng.normal(size=18)
    block = Block(w[:, None] * (inputs.T @ inputs) * w, np.zeros(18), 9)
    ours, theirs = solve_block(block), prove_block(block)
    assert ours.gap == 0.0
    assert theirs.gap <= 3e-6 * block.scale
    assert ours.value == pytest.approx(theirs.value, abs=1e-7 * block.scale)
    assert (ours.chosen == theirs.chosen).all()


def test_three_weights_in_rationals() -> None:
    rows: list[list[int]] = [[2, 1, 0], [1, 2, 1], [0, 1, 3]]
    w = [Fraction(3), Fraction(-4), Fraction(1, 2)]
    products = [[w[i] * rows[i][j] * w[j] for j in range(3)] for i in range(3)]
    values = {pair: sum(products[i][j] for i in pair for j in pair) / 2 for pair in [(0, 1), (0, 2), (1, 2)]}
    best = min(values, key=lambda pair: values[pair])
    found = solve_block(Block(np.array(products, dtype=np.float64), np.zeros(3), 2))
    assert np.flatnonzero(found.chosen).tolist() == list(best)
    assert found.value == pytest.approx(float(values[best]), rel=1e-14)


@given(seeds, st.integers(2, 8), st.booleans())
@settings(deadline=None)
def test_the_convex_form_is_convex_and_equal_on_binaries(seed: int, size: int, convex: bool) -> None:
    block = random_block(seed, size, convex)
    shift = best_diagonal(block)
    basis = across_sum(size)
    assert np.allclose(basis.sum(axis=0), 0)
    moved = block.quadratic - np.diag(shift)
    assert np.linalg.eigvalsh(basis.T @ moved @ basis)[0] > 0
    for mask in subsets(size, block.count):
        y = 1.0 - mask
        told = y @ moved @ y / 2 + (block.linear + shift / 2) @ y
        assert told == pytest.approx(block.value(~mask), abs=1e-8 * (1 + np.abs(shift).max() + block.scale))


def test_too_few_nodes_leave_a_gap_that_holds() -> None:
    rng = np.random.default_rng(4)
    w = rng.normal(size=24)
    inputs = rng.normal(size=(12, 24))
    block = Block(w[:, None] * (inputs.T @ inputs) * w, np.zeros(24), 12)
    full = solve_block(block)
    short = solve_block(block, nodes=1)
    assert full.gap == 0.0
    assert short.bound <= full.value <= short.value
    assert short.gap > 0


@given(seeds, st.integers(2, 8))
def test_exchanges_end_in_a_local_optimum(seed: int, size: int) -> None:
    block = random_block(seed, size)
    start = np.random.default_rng(seed).random(size) < 0.5
    found = improve_block(block, start)
    assert found.sum() == block.count
    for i in np.flatnonzero(found):
        for j in np.flatnonzero(~found):
            other = found.copy()
            other[i], other[j] = False, True
            assert block.value(other) >= block.value(found) - 1e-9 * (block.scale + 1)


@given(seeds, st.integers(2, 9))
def test_blocks_of_a_row_change_what_the_row_changes(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    w, h, mask = rng.normal(size=size), moments(rng, size), rng.random(size) < 0.5
    index = rng.permutation(size)[: rng.integers(1, size + 1)]
    block = block_of(w, h, mask, index)

    def row_cost(kept: Mask) -> float:
        removed = np.where(kept, 0.0, w)
        return float(removed @ h @ removed) / 2

    base = mask.copy()
    base[index] = True
    for chosen in subsets(len(index), block.count):
        new = mask.copy()
        new[index] = chosen
        assert row_cost(new) - row_cost(base) == pytest.approx(block.value(~chosen), abs=1e-9 * (1 + row_cost(new)))


def test_repair_certifies_and_improves() -> None:
    rng = np.random.default_rng(0)
    inputs, w = rng.normal(size=(30, 60)), rng.normal(size=60)
    h = inputs.T @ inputs / 30
    mask = np.arange(60) % 2 == 0
    blocks = [interacting(w, h, int(seed), 20) for seed in rng.permutation(60)[:10]]
    found, results = repair_by_blocks(w, h, mask, blocks)
    before, after = np.where(mask, 0.0, w), np.where(found, 0.0, w)
    assert found.sum() == mask.sum()
    assert after @ h @ after < before @ h @ before
    assert all(result.gap == 0.0 for result in results)
    assert repair_by_blocks(w, h, found, blocks[-1:])[0].tolist() == found.tolist()


def test_the_strongest_interactions_come_first() -> None:
    h = np.array([[1.0, 0.1, -0.9], [0.1, 1.0, 0.0], [-0.9, 0.0, 1.0]])
    assert interacting(np.array([1.0, 1.0, 1.0]), h, 0, 2).tolist() == [0, 2]
    assert interacting(np.array([1.0, 50.0, 1.0]), h, 0, 2).tolist() == [0, 1]
    assert interacting(np.ones(3), h, 0, 3, np.array([True, True, False])).tolist() == [0, 1]
