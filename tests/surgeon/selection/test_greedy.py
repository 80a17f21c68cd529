"""Greedy removal and addition against step-by-step recomputation; sharing removals among rows."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import InputError
from onnxprune.surgeon.selection import (
    elimination,
    follows_pattern,
    greedy,
    greedy_additions,
    greedy_removals,
    pattern_removals,
    refit_cost,
    share_removals,
)
from onnxprune.surgeon.selection.row_shares import lower_hull
from tests.surgeon.selection.support import RIDGE, cost, moments, seeds


@given(seeds, st.integers(1, 9))
@settings(max_examples=60)
def test_every_step_is_the_cheapest(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    h, w = moments(rng, size), rng.normal(size=(2, size))
    found, added = greedy_removals(h, w, size, ridge=RIDGE), greedy_additions(h, w, size, ridge=RIDGE)
    for row in range(2):
        for step in range(size):
            here = found.mask(step)[row]
            options = [cost(h, w[row], here & (np.arange(size) != i)) for i in np.flatnonzero(here)]
            assert found.costs[row, step + 1] == pytest.approx(min(options), rel=1e-5, abs=1e-9)
            there = added.mask(step)[row]
            options = [cost(h, w[row], there | (np.arange(size) == i)) for i in np.flatnonzero(~there)]
            assert added.costs[row, step + 1] == pytest.approx(min(options), rel=1e-5, abs=1e-7 * added.costs[row, 0])
    assert (np.diff(found.costs) >= -1e-12).all()
    assert sorted(found.order[0].tolist()) == list(range(size))


@pytest.mark.parametrize("together", [1 << 12, 1 << 25])
def test_blocks_and_shrinking_change_nothing(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 90)) @ rng.normal(size=(90, 90))
    h, w = inputs.T @ inputs, rng.normal(size=(7, 90))
    monkeypatch.setattr(elimination, "_BLOCK", 1)
    plain, plainly_added = greedy_removals(h, w, 80), greedy_additions(h, w, 80)
    monkeypatch.setattr(elimination, "_BLOCK", 7)
    monkeypatch.setattr(elimination, "MEMORY", together)
    found, added = greedy_removals(h, w, 80), greedy_additions(h, w, 80)
    assert (found.order == plain.order).all()
    assert (added.order == plainly_added.order).all()
    assert np.allclose(found.costs, plain.costs, rtol=1e-8)
    assert np.allclose(found.costs[:, -1], refit_cost(h, w, found.mask(80)), rtol=1e-8)
    assert np.allclose(added.costs[:, -1], refit_cost(h, w, added.mask(80)), rtol=1e-6)


def test_what_is_gone_goes_first_and_stays_away() -> None:
    rng = np.random.default_rng(1)
    h, w = moments(rng, 8), rng.normal(size=(3, 8))
    gone = np.zeros((3, 8), dtype=np.bool_)
    gone[0, [1, 2]], gone[1, 7] = True, True
    found = greedy_removals(h, w, 5, removed=gone, ridge=RIDGE)
    assert set(found.order[0, :2].tolist()) == {1, 2}
    assert found.order[1, 0] == 7
    assert np.allclose(found.costs[:, -1], refit_cost(h, w, found.mask(5), ridge=RIDGE))
    assert not (greedy_additions(h, w, 5, removed=gone, ridge=RIDGE).mask(5) & gone).any()


@pytest.mark.parametrize("memory", [1, 1 << 25])
def test_starting_from_the_few_that_are_left_changes_nothing(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    rng = np.random.default_rng(2)
    h, w = moments(rng, 40), rng.normal(size=(30, 40))
    gone = rng.random((30, 40)) < np.linspace(0.2, 1, 30)[:, None]
    monkeypatch.setattr(greedy, "_FEW", 0)
    slow = greedy_removals(h, w, 40, removed=gone, ridge=RIDGE)
    monkeypatch.setattr(greedy, "_FEW", 2)
    monkeypatch.setattr(greedy, "MEMORY", memory)
    quick = greedy_removals(h, w, 40, removed=gone, ridge=RIDGE)
    for row, count in enumerate(gone.sum(axis=1)):
        assert set(quick.order[row, :count]) == set(np.flatnonzero(gone[row]))
        assert (quick.order[row, count:] == slow.order[row, count:]).all()
        np.testing.assert_allclose(quick.costs[row, count:], slow.costs[row, count:], rtol=1e-8)
    assert (np.diff(quick.costs) >= -1e-12).all()


@given(seeds, st.integers(1, 19), st.sampled_from([(2, 4), (1, 4), (4, 8), (3, 4), (0, 2)]))
@settings(max_examples=40)
def test_patterns_are_kept(seed: int, size: int, pattern: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    count = pattern_removals(size, pattern)
    mask = greedy_removals(moments(rng, size), rng.normal(size=(2, size)), count, group=pattern).mask(count)
    assert follows_pattern(mask, pattern)
    assert ((~mask).sum(axis=1) == count).all()


def test_masks_of_different_counts() -> None:
    found = greedy_removals(np.eye(3), np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), 3)
    assert found.mask(np.array([1, 2])).tolist() == [[False, True, True], [True, False, False]]


@given(seeds, st.integers(1, 4), st.integers(0, 12))
def test_shares_of_convex_curves_are_best(seed: int, rows: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    curves = [np.cumsum(np.append(0, np.sort(rng.integers(0, 9, size=rng.integers(0, 5))))) * 1.0 for _ in range(rows)]
    room = [len(curve) - 1 for curve in curves]
    if count > sum(room):
        with pytest.raises(InputError, match="lower sparsity"):
            share_removals(curves, count)
        return
    found = share_removals(curves, count)
    options = [c for c in product(*[range(r + 1) for r in room]) if sum(c) == count]
    assert found.sum() == count
    best = min(sum(curve[k] for curve, k in zip(curves, c, strict=True)) for c in options)
    assert sum(curve[k] for curve, k in zip(curves, found, strict=True)) == pytest.approx(best)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12))
def test_hulls_are_below_and_convex(values: list[int]) -> None:
    curve = np.array(values, dtype=np.float64)
    hull = lower_hull(curve)
    assert hull[0] == 0
    assert hull[-1] == len(curve) - 1
    below = np.interp(np.arange(len(curve)), hull, curve[hull])
    assert (below <= curve + 1e-9).all()
    assert (np.diff(np.diff(below)) >= -1e-9).all()


def test_shares_of_other_curves_have_the_right_count() -> None:
    curves = [np.array([0.0, 5.0, 5.0, 5.0]), np.array([0.0, 1.0, 10.0]), np.array([0.0])]
    for count in range(6):
        found = share_removals(curves, count)
        assert found.sum() == count
        assert (found <= [3, 2, 0]).all()
    assert share_removals(curves, 4).tolist() == [3, 1, 0]
