"""Parity rows: each halves the patterns, the tail is exact, and the bound holds as often as it says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from onnxprune.regions import RegionNetwork, Walker, parity
from onnxprune.regions.interior import slack_of
from onnxprune.regions.network import Pattern
from onnxprune.regions.parity import best_rank, parity_bound, share_of
from tests.regions import nets


def test_half_of_the_right_hand_sides_keep_a_pattern() -> None:
    run = parity._Run.random(3, 2, np.random.default_rng(0))
    patterns = np.array(list(itertools.product((0, 1), repeat=3)))
    run.sides[:] = 0
    even = run.satisfied(patterns)
    run.sides[0] = 1
    assert ((even > 0) != (run.satisfied(patterns) > 0)).all()
    chosen = np.flatnonzero(run.rows[0])
    assert len(chosen) == 2
    np.testing.assert_array_equal(run.satisfied(patterns) > 0, patterns[:, chosen].sum(axis=1) % 2 == 1)


def test_rows_count_in_their_order() -> None:
    run = parity._Run(np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0]]), np.array([0, 1, 1]))
    assert run.satisfied(np.array([[1, 1, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1]])).tolist() == [3, 2, 0, 1]


def test_the_tail_is_that_of_the_binomial_distribution() -> None:
    assert share_of(8, 8, 0.95) == pytest.approx(0.05 ** (1 / 8))
    for rank in (1, 4, 8):
        share = share_of(8, rank, 0.95)
        assert sum(math.comb(8, k) * share**k * (1 - share) ** (8 - k) for k in range(rank, 9)) == pytest.approx(0.05)
    rank, share = best_rank(8, 0.95)
    assert (rank, share) == (5, share_of(8, 5, 0.95))


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_bounds_below_the_count(confidence: float) -> None:
    network = nets.general_position(6, 2, seed=3)  # 22 regions
    found = parity_bound(network, runs=4, size=3, confidence=confidence, seed=1)
    assert found.complete
    assert len(found.survived) == 4
    assert 1 <= found.lower <= 22
    assert 2 <= np.median(found.survived) <= 8  # log2 of 22 is 4.5


def test_rows_that_end_at_units_of_their_own_have_the_same_solutions() -> None:
    patterns, rng = np.array(list(itertools.product((0, 1), repeat=5))), np.random.default_rng(0)
    contradictions = 0
    for number in range(1, 8):
        run = parity._Run.random(5, 2, rng)
        left = {tuple(p) for p in patterns[run.satisfied(patterns) >= number].tolist()}
        rows = run.echelon(number)
        contradictions += rows is None
        if rows is None:
            assert not left
            continue
        used = rows[np.diagonal(rows) == 1]
        assert not np.triu(rows[:, :5], 1).any()
        solutions = patterns[((patterns @ used[:, :5].T) % 2 == used[:, 5]).all(axis=1)]
        assert {tuple(p) for p in solutions.tolist()} == left
    assert 0 < contradictions < 7


@pytest.mark.parametrize("seed", range(6))
def test_a_walk_turns_back_at_broken_rows_only(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = nets.random_network(rng, 3, [5, 4])
    cells = Walker(network).collect()[0]
    for number in (1, 3, 5):
        run = parity._Run.random(network.unstable, 3, rng)
        rows = run.echelon(number)
        expected = cells[run.satisfied(cells.astype(np.int64)) >= number]
        if rows is None:
            assert not len(expected)
            continue
        found, done = Walker(network).collect(parity=rows)
        assert done
        assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.tolist()))


@pytest.mark.parametrize("walks", [True, False])
def test_survivors_are_looked_for_until_there_are_none(walks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descents everything is up to walks or programmes, and either finds what enumeration finds."""
    monkeypatch.setattr(parity, "DESCENTS", 1)
    if not walks:
        monkeypatch.setattr(parity._Search, "_walk", lambda *_: (None, False))
    network = nets.zigzag(3, 2)
    cells, _ = Walker(network).collect()
    found = parity_bound(network, runs=3, size=2, seed=4)
    assert (found.solves > 0) != walks
    best = []
    for number in range(3):
        run = parity._Run.random(6, 2, np.random.default_rng([4, number]))
        best.append(int(run.satisfied(cells.astype(np.int64)).max()))
    assert all(told <= most for told, most in zip(found.survived, best, strict=True))
    assert sorted(found.survived)[-found.rank] == sorted(best)[-found.rank]


def _enumerated(cells: np.ndarray) -> object:
    def any_of(self: parity._Search, run: parity._Run, goal: int, deadline: float) -> Pattern | None:
        places = np.flatnonzero(run.satisfied(cells) >= goal)
        return tuple(cells[places[0]].tolist()) if len(places) else None

    return any_of


@pytest.mark.parametrize("size", [2, 4])
def test_the_bound_holds_as_often_as_it_says(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nets.random_network(np.random.default_rng(0), 2, [5, 4])
    cells = Walker(network).collect()[0].astype(np.int64)
    monkeypatch.setattr(parity._Search, "_any", _enumerated(cells))
    monkeypatch.setattr(parity._Search, "_is_region", lambda *_: True)
    monkeypatch.setattr(parity, "DESCENTS", 1)
    bounds = [parity_bound(network, runs=6, size=size, seed=seed).lower for seed in range(400)]
    assert sum(bound > len(cells) for bound in bounds) <= binom.ppf(0.999, 400, 0.05)
    assert np.median(bounds) >= len(cells) / 16


@pytest.mark.slow
@pytest.mark.parametrize("walks", [True, False])
def test_nothing_is_claimed_that_is_not_so(walks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network per seed, as a whole."""
    if not walks:
        monkeypatch.setattr(parity._Search, "_walk", lambda *_: (None, False))
    wrong, known = 0, 0
    for seed in range(200):
        network = nets.random_network(np.random.default_rng(seed), 2, [4, 3])
        if network.unstable:
            known += 1
            wrong += parity_bound(network, runs=8, size=3, seed=seed).lower > Walker(network).count()[0]
    assert known > 190
    assert wrong <= 0.05 * known


def test_seeded_and_honest_about_time() -> None:
    network = nets.general_position(6, 2)
    one, two = (parity_bound(network, runs=3, size=2, seed=5) for _ in range(2))
    assert (one.survived, one.lower) == (two.survived, two.lower)
    late = parity_bound(network, runs=3, budget=0.0)
    assert (late.lower, late.complete, late.solves) == (1.0, False, 0)
    halted = parity_bound(network, runs=3, stopped=lambda: True)
    assert (halted.lower, halted.complete) == (1.0, False)


def test_a_walk_that_takes_too_long_leaves_the_rest_to_programmes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "DESCENTS", 1)
    network = nets.general_position(6, 2)
    patient = parity_bound(network, runs=3, size=2)
    monkeypatch.setattr(parity, "WALKED", 3)
    found = parity_bound(network, runs=3, size=2)
    assert patient.solves == 0 < found.solves
    assert found.lower == patient.lower


def test_no_unit_that_switches() -> None:
    assert parity_bound(nets.touching(), runs=2).lower == 1.0


def test_what_a_solver_proposes_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    network: RegionNetwork = nets.mirrored()  # cells 01 and 10
    monkeypatch.setattr(parity, "DESCENTS", 0)
    monkeypatch.setattr(parity._Search, "_walk", lambda *_: (None, False))
    found = parity_bound(network, runs=4, size=1, seed=0)
    for pattern in ((0, 0), (1, 1)):
        assert slack_of(network, pattern) <= 0
    assert max(found.survived) <= 2 + parity.SPARE
    assert found.lower <= 2
