"""The published methods on per-sample gradients: selection, update, iterative hard thresholding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.surgeon.selection import Selected, cbs_select, cbs_update, chita
from onnxprune.surgeon.selection.arrays import Array, Mask
from onnxprune.surgeon.selection.fisher import Fisher
from tests.surgeon.selection.support import seeds, subsets


def gradients(seed: int, samples: int, size: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(samples, size)) @ rng.normal(size=(size, size))
    found[:, rng.random(size) < 0.1] = 0.0
    return found, rng.normal(size=size)


def hessian(g: Array, ridge: float) -> Array:
    return np.asarray(g.T @ g / len(g) + ridge * np.eye(g.shape[1]))


def zeroing_cost(h: Array, w: Array, mask: Mask) -> float:
    removed = np.where(mask, 0.0, w)
    return float(removed @ h @ removed) / 2


@given(seeds, st.integers(1, 20), st.integers(1, 12))
def test_products_are_those_of_the_matrix(seed: int, samples: int, size: int) -> None:
    g, w = gradients(seed, samples, size)
    h, fisher = hessian(g, 0.1), Fisher(g, 0.1)
    assert np.allclose(fisher.times(w), h @ w)
    assert np.allclose(fisher.diagonal(), np.diag(h))
    assert fisher.cost(w) == pytest.approx(float(w @ h @ w) / 2)


@given(seeds, st.integers(1, 20), st.integers(1, 12), st.sampled_from([0.0, 0.01]))
def test_update_minimises_the_quadratic(seed: int, samples: int, size: int, ridge: float) -> None:
    g, w = gradients(seed, samples, size)
    mask = np.random.default_rng(seed).random(size) < 0.5
    h, found = hessian(g, ridge), cbs_update(w, g, mask, ridge=ridge)
    assert (found[~mask] == 0).all()
    slope = h @ (found - w)
    assert np.abs(slope[mask]).max(initial=0.0) <= 1e-8 * (1 + np.abs(h).max() * np.abs(w).max())
    assert zeroing_cost(h, w, mask) >= (found - w) @ h @ (found - w) / 2 - 1e-9


def test_both_forms_of_the_update_agree() -> None:
    g, w = gradients(3, 12, 12)
    mask = np.arange(12) % 2 == 0
    over_samples = cbs_update(w, g[:4], mask, ridge=0.01)
    over_weights = cbs_update(w, np.concatenate([g[:4], np.zeros((8, 12))]) * np.sqrt(3), mask, ridge=0.01)
    assert np.allclose(over_samples, over_weights)


@given(seeds, st.integers(2, 8), st.floats(0, 1))
@settings(max_examples=50)
def test_selection_is_never_worse_than_magnitude_nor_better_than_the_best(seed: int, size: int, share: float) -> None:
    g, w = gradients(seed, 15, size)
    count = int(share * size)
    h = hessian(g, 1e-5)
    found = cbs_select(w, g, count, restarts=5, least_gain=0.0)
    assert (~found.mask).sum() == count
    assert found.cost == pytest.approx(zeroing_cost(h, w, found.mask), abs=1e-9)
    best = min(zeroing_cost(h, w, mask) for mask in subsets(size, count))
    smallest = np.ones(size, dtype=np.bool_)
    smallest[np.argsort(np.abs(w), kind="stable")[:count]] = False
    assert best - 1e-9 <= found.cost <= zeroing_cost(h, w, smallest) + 1e-9


def test_selection_ends_where_no_exchange_within_reach_gains() -> None:
    g, w = gradients(5, 30, 12)
    found = cbs_select(w, g, 6, restarts=0, least_gain=1e-9, reach=12, failures=100)
    h = hessian(g, 1e-5)
    for i in np.flatnonzero(~found.mask):
        for j in np.flatnonzero(found.mask):
            mask = found.mask.copy()
            mask[i], mask[j] = True, False
            assert zeroing_cost(h, w, mask) >= found.cost - 1e-8


def test_weights_that_cancel_go_together() -> None:
    g = np.random.default_rng(0).normal(size=(40, 4))
    g[:, 1] = g[:, 0]  # H couples the first two, and their weights have opposite signs
    w = np.array([1.0, -1.05, 1.02, 9.0])  # magnitude alone removes the first and the third
    found = cbs_select(w, g, 2, restarts=0)
    assert found.mask.tolist() == [False, False, True, True]
    assert found.cost == pytest.approx(0.0, abs=0.01)
    assert found.swaps == 1


def test_the_round_with_the_lowest_loss_is_kept() -> None:
    g, w = gradients(1, 30, 20)
    masks: list[Mask] = []

    def loss(mask: Mask) -> float:
        masks.append(mask)
        return [0.0, -1.0][len(masks) - 1] if len(masks) <= 2 else 1.0

    found = cbs_select(w, g, 10, restarts=0, least_gain=0.0, loss=loss)
    assert len(masks) > 2
    assert (found.mask == masks[1]).all()


@given(seeds, st.integers(2, 10), st.floats(0, 1))
@settings(max_examples=50)
def test_chita_keeps_the_count_and_does_not_lose_to_magnitude(seed: int, size: int, share: float) -> None:
    g, w = gradients(seed, 15, size)
    count = int(share * size)
    found, values = chita(w, g, count, ridge=1e-4)
    assert isinstance(found, Selected)
    assert (~found.mask).sum() == count
    assert (values[~found.mask] == 0).all()
    h = hessian(g, 1e-4)
    smallest = np.ones(size, dtype=np.bool_)
    smallest[np.argsort(np.abs(w), kind="stable")[:count]] = False
    refitted = float((values - w) @ h @ (values - w)) / 2
    assert refitted <= found.cost + 1e-9
    assert found.cost <= zeroing_cost(h, w, smallest) + 1e-9


def test_single_precision_gradients_are_enough() -> None:
    g, w = gradients(2, 50, 30)
    exact, rounded = cbs_select(w, g, 15, restarts=3), cbs_select(w, g.astype(np.float32), 15, restarts=3)
    assert rounded.cost == pytest.approx(exact.cost, rel=0.05)
    assert np.allclose(
        cbs_update(w, g.astype(np.float32), exact.mask, ridge=0.1), cbs_update(w, g, exact.mask, ridge=0.1), atol=1e-3
    )
