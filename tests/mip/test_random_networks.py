"""All methods against exact enumeration on many tiny networks, and against one another."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.bounds.blocks import Blocks
from onnxprune.mip import LayerLP, Pair, UnitMILP, Verdict, prove_jointly
from tests.mip.support import exact_ranges, pattern_ranges, random_network, refuted

CLEAR = 1e-2
"""Tops of pre-activations beyond this are far from every eps here."""
Tops = dict[Pair, float]


def tops(blocks: Blocks, *, exact: bool = True) -> Tops:
    """Largest value of ``sign * g`` over the domain per open pair."""
    ranges = exact_ranges(blocks) if exact else pattern_ranges(blocks)
    found: Tops = {}
    for index, block in enumerate(blocks.blocks):
        for unit in block.open.tolist():
            low, high = ranges[index][unit]
            found |= {(index, unit, 1): float(high), (index, unit, -1): float(-low)}
    return found


def unit_by_unit(blocks: Blocks, truth: Tops, window: int | None = None) -> set[Pair]:
    """Proved pairs; LP bounds, points and refutations are checked on the way."""
    proved = set()
    for index in sorted({pair[0] for pair in truth}):
        lp, milp = LayerLP(blocks, index, window=window), UnitMILP(blocks, index, window=window)
        for unit in blocks.blocks[index].open.tolist():
            for sign in (1, -1):
                pair = (index, unit, sign)
                assert lp.bound(unit, sign).bound >= truth[pair] - 1e-9 * (truth[pair] != 0)
                answer = milp.prove(unit, sign, 20)
                assert answer.verdict is Verdict.PROVED or answer.feasible
                proved |= {pair} if answer.verdict is Verdict.PROVED else set()
                if window is None and truth[pair] > CLEAR:
                    point = milp.refute(unit, sign, 20).point
                    assert point is not None
                    assert pair in refuted(blocks, point)
    return proved


def check(seed: int) -> int:
    rng = np.random.default_rng(seed)
    blocks = random_network(rng, depth=int(rng.integers(2, 4)), skips=seed % 3 == 0)
    truth = tops(blocks)
    if any(0 < abs(top) < 1e-3 for top in truth.values()):
        return 0  # too close to eps for an exact comparison
    proved = unit_by_unit(blocks, truth)
    assert proved == {pair for pair, top in truth.items() if top < 0}
    joint = prove_jointly(blocks, truth, lambda x: refuted(blocks, x), seconds=60)
    assert joint.proved == proved
    assert joint.struck == {pair for pair, top in truth.items() if top > 0}
    assert joint.undecided == {pair for pair, top in truth.items() if top == 0}
    return sum(top == 0 for top in truth.values())


def test_both_methods_find_exactly_what_is_true() -> None:
    """Seed 517: a witness by a margin of eps alone is undone by the solver's tolerances over three layers."""
    touching = sum(check(seed) for seed in (*range(100), 517))
    assert touching > 0, "no unit touches 0: that case went untested"


@pytest.mark.slow
def test_both_methods_find_exactly_what_is_true_a_thousand_times() -> None:
    for seed in range(100, 1100):
        check(seed)


@pytest.mark.parametrize("window", [0, 1, 2])
def test_windows_never_claim_what_is_false(window: int) -> None:
    found = 0
    for seed in range(12):
        blocks = random_network(np.random.default_rng(seed), depth=4, width=3)
        truth = tops(blocks)
        proved = unit_by_unit(blocks, truth, window)
        assert all(truth[pair] < 0 for pair in proved)
        joint = prove_jointly(blocks, truth, lambda x, b=blocks: refuted(b, x), window=window, seconds=60)  # type: ignore[misc]
        assert all(truth[pair] < 0 for pair in joint.proved)
        assert all(truth[pair] > 0 for pair in joint.struck)
        found += len(proved)
    assert found > 0 or window == 0


@pytest.mark.parametrize("seed", range(4))
def test_three_inputs(seed: int) -> None:
    blocks = random_network(np.random.default_rng(50 + seed), inputs=3, depth=3, width=3)
    truth = tops(blocks, exact=False)
    proved = unit_by_unit(blocks, truth)
    assert {pair for pair, top in truth.items() if top < -CLEAR} <= proved
    assert all(truth[pair] < 0 for pair in proved)


@pytest.mark.parametrize("seed", range(6))
def test_domains_with_constraints(seed: int) -> None:
    """A half-plane through the middle of the box."""
    rng = np.random.default_rng(seed)
    blocks = random_network(rng)
    normal = rng.integers(1, 4, size=(1, 2)).astype(np.float64)
    cut = Blocks(
        blocks.low, blocks.high, blocks.blocks, type(blocks.rows)(normal), normal @ (blocks.low + blocks.high) / 2
    )
    truth = tops(cut)
    proved = unit_by_unit(cut, truth)
    assert {pair for pair, top in truth.items() if top < -1e-3} <= proved
    assert all(truth[pair] < 0 for pair in proved)


@pytest.mark.parametrize("seed", range(8))
def test_the_other_solver_agrees(seed: int) -> None:
    blocks = random_network(np.random.default_rng(200 + seed), depth=2)
    truth = tops(blocks)
    for solver in ("highs", "cbc"):
        joint = prove_jointly(blocks, truth, lambda x: refuted(blocks, x), solver=solver, seconds=60)
        assert joint.proved == {pair for pair, top in truth.items() if top < 0}
        assert joint.struck == {pair for pair, top in truth.items() if top > 0}
