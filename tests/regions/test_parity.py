"""Parity rows: each halves the patterns, the tail is exact, and the bound holds as often as it says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from onnxprune.regions.parity import (
    Encoding,
    best_rank,
    odd_set,
    parity,
    parity_bound,
    runs_needed,
    share_of,
    tail_share,
)
from tests.regions import nets


def test_half_of_the_right_hand_sides_keep_a_pattern() -> None:
    units = np.array([0, 2])
    for pattern in itertools.product((0, 1), repeat=3):
        assert [parity(pattern, units, side) for side in (0, 1)].count(True) == 1


def test_an_odd_set_row_cuts_off_one_assignment() -> None:
    units = np.array([0, 1, 3])
    for pattern in itertools.product((0, 1), repeat=4):
        row, _, high = odd_set(pattern, units)
        cut = [other for other in itertools.product((0, 1), repeat=4) if row @ np.array(other) > high]
        assert {tuple(np.array(c)[units]) for c in cut} == {tuple(np.array(pattern)[units])}


def test_the_tail_is_that_of_the_binomial_distribution() -> None:
    by_hand = sum(math.comb(8, k) * 0.3**k * 0.7 ** (8 - k) for k in range(5, 9))
    assert tail_share(8, 5, 0.3) == pytest.approx(by_hand)
    for rank in (1, 4, 8):
        assert tail_share(8, rank, share_of(8, rank, 0.95)) == pytest.approx(0.05)
    rank, share = best_rank(8, 0.95)
    assert 1 <= rank <= 8
    assert 0 < share < 1


def test_the_exact_tail_needs_fewer_runs_than_the_chernoff_form() -> None:
    assert runs_needed(1, 0.995) == (8, 28)
    for a in (1, 2, 3):
        exact, chernoff = runs_needed(a, 0.95)
        assert exact < chernoff


@pytest.mark.parametrize("encoding", ["slack", "lazy"])
def test_bounds_below_the_count(encoding: Encoding) -> None:
    network = nets.general_position(6, 2, seed=3)  # 22 regions
    found = parity_bound(network, runs=4, size=3, encoding=encoding, confidence=0.99, seed=1)
    assert found.complete
    assert len(found.survived) == 4
    assert 1 <= found.lower <= 22
    assert 2 <= np.mean(found.survived) <= 8  # log2 of 22 is 4.5


def test_seeded_and_honest_about_time() -> None:
    network = nets.general_position(6, 2)
    one, two = (parity_bound(network, runs=3, size=2, seed=5) for _ in range(2))
    assert (one.survived, one.lower) == (two.survived, two.lower)
    late = parity_bound(network, runs=3, budget=0.0)
    assert (late.lower, late.complete) == (1.0, False)


def test_no_unit_that_switches() -> None:
    assert parity_bound(nets.touching(), runs=2).lower == 1.0
