"""N:M patterns: validity, every group best given the others, sweeps that never lose."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import InputError
from onnxprune.surgeon.selection import follows_pattern, greedy_removals, improve_patterns, pattern_removals, refit_cost
from tests.surgeon.selection.support import RIDGE, cost, moments, seeds


@pytest.mark.parametrize(
    ("size", "pattern", "count"), [(8, (2, 4), 4), (9, (2, 4), 4), (11, (2, 4), 5), (3, (4, 8), 0), (6, (0, 2), 6)]
)
def test_counts(size: int, pattern: tuple[int, int], count: int) -> None:
    assert pattern_removals(size, pattern) == count


def test_what_follows_a_pattern() -> None:
    mask = np.array([[True, False, True, False, True, True]])
    assert follows_pattern(mask, (2, 4))
    assert not follows_pattern(mask, (1, 4))
    assert not follows_pattern(np.array([[True, True, True, False]]), (2, 4))


@given(seeds, st.integers(1, 3), st.sampled_from([(2, 4), (1, 4), (3, 4), (1, 2), (4, 4), (0, 2)]), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_every_group_is_best_given_the_others(seed: int, groups: int, pattern: tuple[int, int], more: int) -> None:
    kept, span = pattern
    rng = np.random.default_rng(seed)
    size = groups * span + more % span
    h, w = moments(rng, size), rng.normal(size=(2, size))
    count = pattern_removals(size, pattern)
    start = greedy_removals(h, w, count, group=pattern, ridge=RIDGE).mask(count)
    found = improve_patterns(h, w, start, pattern, ridge=RIDGE)
    assert found.finished
    assert follows_pattern(found.mask, pattern)
    assert (found.after <= found.before).all()
    assert found.after == pytest.approx(refit_cost(h, w, found.mask, ridge=RIDGE))
    for row in range(2):
        for group in range(groups):
            for chosen in combinations(range(span), kept):
                mask = found.mask[row].copy()
                mask[group * span : (group + 1) * span] = np.isin(np.arange(span), chosen)
                assert cost(h, w[row], mask) >= found.after[row] * (1 - 1e-4) - 1e-9


def test_sweeps_gain_on_dependent_inputs() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 64)) @ rng.normal(size=(64, 64))
    h, w = inputs.T @ inputs / 200, rng.normal(size=(4, 64))
    start = greedy_removals(h, w, 32, group=(2, 4)).mask(32)
    found = improve_patterns(h, w, start, (2, 4))
    assert found.after.sum() < 0.8 * found.before.sum()
    assert not improve_patterns(h, w, start, (2, 4), seconds=0.0).finished


def test_other_masks_and_patterns_are_refused() -> None:
    h, w = np.eye(32), np.ones((1, 32))
    with pytest.raises(InputError, match="exactly 2 of every 4"):
        improve_patterns(h, w, np.ones((1, 32), dtype=np.bool_), (2, 4))
    with pytest.raises(InputError, match="patterns per group"):
        improve_patterns(h, w, np.arange(32)[None, :] < 16, (16, 32))
