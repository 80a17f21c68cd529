"""Bounds from the triangle relaxation: valid, tight where they must be, and quick to stop."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.mip import LayerLP, LPResult, Solver, dual_bound
from tests.mip.support import network, pattern_ranges, random_network, run


@pytest.mark.parametrize("solver", ["highs", "cbc"])
def test_a_relaxation_by_hand(solver: str) -> None:
    """relu(x) + relu(-x) over [-1, 1]: the triangles sum to 1 at most, interval bounds to 2."""
    blocks = network([([[1.0], [-1.0]], [0, 0]), ([[1.0, 1.0]], [-0.5])], [-1], [1])
    lp = LayerLP(blocks, 1, solver)
    assert lp.bound(0, 1).bound == pytest.approx(0.5)
    assert lp.bound(0, -1).bound == pytest.approx(0.5)
    boxes = LayerLP(blocks, 1, solver, window=0)
    assert boxes.bound(0, 1).bound == pytest.approx(1.5)
    assert boxes.bound(0, 1).point is None


def test_bounds_are_proved_by_their_duals() -> None:
    blocks = random_network(np.random.default_rng(5), depth=4)
    lp = LayerLP(blocks, 3)
    for unit in blocks.blocks[3].open.tolist():
        for sign in (1, -1):
            result = lp.bound(unit, sign)
            target = lp.encoding.preactivation(3, unit).times(sign)
            proved = dual_bound(lp.encoding.system, target.coefficients, result.duals) + target.high
            assert result.bound == pytest.approx(proved, abs=1e-12)
            solution = Solver(lp.encoding.system).solve(target.coefficients, 10)
            assert solution.value is not None
            assert result.bound == pytest.approx(solution.value + target.high, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_bounds_hold_with_three_inputs(seed: int) -> None:
    """Against one linear programme per activation pattern."""
    blocks = random_network(np.random.default_rng(seed), inputs=3, depth=3, width=3)
    truth = pattern_ranges(blocks)
    for index in range(3):
        for window in (None, 1, 0):
            lp = LayerLP(blocks, index, window=window)
            for unit in blocks.blocks[index].open.tolist():
                low, high = truth[index][unit]
                assert lp.bound(unit, 1).bound >= high - 1e-7
                assert lp.bound(unit, -1).bound >= -low - 1e-7


def test_an_lp_cut_short_still_bounds() -> None:
    rng = np.random.default_rng(0)
    sizes = [(80, 60), (80, 80), (10, 80)]
    layers = [(rng.normal(size=s) / np.sqrt(s[1]), np.zeros(s[0])) for s in sizes]
    blocks = network(layers, -np.ones(60), np.ones(60))
    for seconds in (0.0, 1e-6, 0.01):
        result = LayerLP(blocks, 2).bound(0, 1, seconds)
        assert result.seconds < 1.0
        assert np.isfinite(result.bound)
        seen = max(run(blocks, point)[2][0] for point in rng.uniform(-1, 1, size=(50, 60)))
        assert result.bound >= seen
        assert result.optimal or result.point is None
    assert LayerLP(blocks, 2).bound(0, 1, 60.0).optimal


def test_points_are_good_guesses_inside_the_box() -> None:
    """With one layer the relaxation is the network: the point attains the bound."""
    blocks = random_network(np.random.default_rng(1), depth=1)
    lp = LayerLP(blocks, 0)
    for unit in blocks.blocks[0].open.tolist():
        result = lp.bound(unit, 1)
        assert result.point is not None
        assert (result.point >= blocks.low).all()
        assert (result.point <= blocks.high).all()
        assert run(blocks, result.point)[0][unit] == pytest.approx(result.bound)


def test_a_sweep_can_be_stopped() -> None:
    blocks = random_network(np.random.default_rng(5), depth=4)
    lp = LayerLP(blocks, 3)
    done: list[LPResult] = []
    pairs = [(unit, sign) for unit in blocks.blocks[3].open.tolist() for sign in (1, -1)]
    for result in lp.sweep(pairs, 10, lambda: len(done) >= 2):
        done.append(result)
    assert [(r.unit, r.sign) for r in done] == pairs[:2]


def test_an_empty_domain_proves_nothing() -> None:
    """x >= 2 within [0, 1]: "infeasible" is the solver's word and bounds nothing."""
    blocks = network([([[1.0]], [-0.5])], [0], [1], rows=[[-1.0]], limits=[-2.0])
    result = LayerLP(blocks, 0).bound(0, 1)
    assert result.bound >= 0.5
    assert result.point is None
