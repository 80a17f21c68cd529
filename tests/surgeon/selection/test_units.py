"""Whole channels: several readers, taps as groups, inputs that always stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import InputError
from onnxprune.surgeon.selection import Reader, expand, greedy_units, improve_units, refit_cost, units_cost
from onnxprune.surgeon.selection.arrays import Mask
from tests.surgeon.selection.support import RIDGE, moments, seeds, subsets


def readers(seed: int, channels: int) -> list[Reader]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(int(rng.integers(1, 4))):
        taps, fixed, rows = int(rng.integers(1, 4)), int(rng.integers(0, 2)), int(rng.integers(1, 4))
        size = channels * taps + fixed
        found.append(Reader(moments(rng, size), rng.normal(size=(rows, size)), taps, float(rng.integers(1, 4))))
    return found


def expected(what: list[Reader], mask: Mask) -> float:
    """The same by refitting every reader on expanded masks."""
    costs = [refit_cost(r.moments, r.weights, expand(mask, r), ridge=RIDGE).sum() * r.trade_off for r in what]
    return float(sum(costs))


def test_masks_are_expanded_to_taps_and_fixed_inputs() -> None:
    reader = Reader(np.eye(5), np.ones((2, 5)), taps=2)
    assert expand(np.array([False, True]), reader).tolist() == [[False, False, True, True, True]] * 2


@given(seeds, st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_costs_are_those_of_the_refit(seed: int, channels: int) -> None:
    what = readers(seed, channels)
    for count in range(channels + 1):
        for mask in subsets(channels, count):
            assert units_cost(what, mask, ridge=RIDGE) == pytest.approx(expected(what, mask), rel=1e-4, abs=1e-8)


@given(seeds, st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_greedy_steps_and_exchanges_are_the_best_there_are(seed: int, channels: int) -> None:
    what = readers(seed, channels)
    count = channels // 2
    greedy = greedy_units(what, channels, count, ridge=RIDGE)
    here = np.ones(channels, dtype=np.bool_)
    for step, chosen in enumerate(greedy.order.tolist()):
        costs = [expected(what, here & (np.arange(channels) != i)) for i in np.flatnonzero(here)]
        here[chosen] = False
        assert greedy.curve[step + 1] == pytest.approx(min(costs), rel=1e-4, abs=1e-8)
    assert (greedy.mask == here).all()
    assert greedy.cost == pytest.approx(expected(what, here), rel=1e-4, abs=1e-8)
    found = improve_units(what, greedy.mask, ridge=RIDGE)
    assert found.finished
    assert found.mask.sum() == greedy.mask.sum()
    assert found.cost <= greedy.cost * (1 + 1e-6) + 1e-9
    for i in np.flatnonzero(~found.mask):
        for j in np.flatnonzero(found.mask):
            mask = found.mask.copy()
            mask[i], mask[j] = True, False
            assert expected(what, mask) >= found.cost * (1 - 1e-3) - 1e-8


def test_a_constant_input_takes_over_the_mean() -> None:
    rng = np.random.default_rng(0)
    channel = 5 + 0.01 * rng.normal(size=(500, 1))  # nearly constant: nothing is lost but the variation
    inputs = np.concatenate([channel, rng.normal(size=(500, 1)), np.ones((500, 1))], axis=1)
    what = [Reader(inputs.T @ inputs / 500, np.ones((1, 3)))]
    assert greedy_units(what, 2, 1, ridge=1e-12).order.tolist() == [0]
    assert units_cost(what, np.array([False, True]), ridge=1e-12) == pytest.approx(0.5e-4, rel=0.2)


def test_time_that_ends_and_readers_that_do_not_fit() -> None:
    what = readers(3, 4)
    mask = np.array([True, False, True, False])
    assert not improve_units(what, mask, seconds=0.0).finished
    with pytest.raises(InputError, match="does not fit 4 x 2"):
        units_cost([Reader(np.eye(6), np.ones((1, 6)), taps=2)], mask)
