"""The best set on the refit cost, against enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.surgeon.selection import best_removals
from tests.surgeon.selection.support import RIDGE, cost, moments, seeds, subsets


@given(seeds, st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_no_set_is_cheaper(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    h, w, count = moments(rng, size), rng.normal(size=size), int(rng.integers(0, size + 1))
    found = best_removals(h, w, count, ridge=RIDGE)
    best = min(cost(h, w, mask) for mask in subsets(size, count))
    assert found.chosen.sum() == count
    assert found.value == pytest.approx(best, rel=1e-5, abs=1e-9)
    assert found.gap <= 1e-9 * found.value
    assert found.local >= found.value * (1 - 1e-9)


def test_thirty_weights_and_too_few_nodes() -> None:
    rng = np.random.default_rng(5)
    inputs = rng.normal(size=(90, 30)) @ rng.normal(size=(30, 30))
    h, w = inputs.T @ inputs, rng.normal(size=30)
    full, short = best_removals(h, w, 15), best_removals(h, w, 15, nodes=1)
    assert full.gap <= 1e-9 * full.value
    assert full.value < 0.99 * full.local
    assert short.bound <= full.value <= short.value
    assert short.gap > 0


def test_order_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    h, w, order = moments(rng, 12), rng.normal(size=12), rng.permutation(12)
    plain = best_removals(h, w, 5, ridge=RIDGE)
    moved = best_removals(h[np.ix_(order, order)], 3 * w[order], 5, ridge=RIDGE)
    assert moved.value == pytest.approx(9 * plain.value, rel=1e-6)
