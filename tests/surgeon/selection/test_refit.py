"""Masked least squares, by hand, exactly, and against its definition."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import InputError
from onnxprune.surgeon.selection import best_weights, refit, refit_cost
from onnxprune.surgeon.selection.arrays import damped
from tests.surgeon.selection.support import RIDGE, cost, moments, seeds


def test_two_weights_by_hand() -> None:
    h, w = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[4.0, 6.0]])
    mask = np.array([[True, False]])
    assert refit(h, w, mask, ridge=0.0)[0] == pytest.approx([7.0, 0.0])  # 4 + 1/2 * 6
    assert refit_cost(h, w, mask, ridge=0.0)[0] == pytest.approx(0.5 * 36 * 2.5)  # 1/2 w^2 / (H^-1)_22


def test_three_weights_in_rationals() -> None:
    h = [[4, 1, 2], [1, 3, 0], [2, 0, 5]]
    w = [1, -2, 3]
    # the last one goes: [4 1; 1 3] d = [2; 0] * 3
    determinant = Fraction(4 * 3 - 1)
    change = [Fraction(3 * 6) / determinant, Fraction(-6) / determinant]
    total = [*change, Fraction(-3)]
    exact = sum(total[i] * h[i][j] * total[j] for i in range(3) for j in range(3)) / 2
    mask = np.array([[True, True, False]])
    found = refit(np.array(h), np.array([w]), mask, ridge=0.0)[0]
    assert found == pytest.approx([float(1 + change[0]), float(-2 + change[1]), 0.0], rel=1e-14)
    assert refit_cost(np.array(h), np.array([w]), mask, ridge=0.0)[0] == pytest.approx(float(exact), rel=1e-14)


@given(seeds, st.integers(1, 10), st.integers(1, 5))
def test_costs_are_the_minimum(seed: int, size: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    h, w, mask = moments(rng, size), rng.normal(size=(rows, size)), rng.random((rows, size)) < rng.random()
    found = refit(h, w, mask, ridge=RIDGE)
    assert (found[~mask] == 0).all()
    slopes = (found - w) @ damped(h, RIDGE)
    assert np.abs(slopes[mask]).max(initial=0.0) <= 1e-7 * (1 + np.abs(h).max())
    for row in range(rows):
        expected = cost(h, w[row], mask[row])
        assert refit_cost(h, w, mask, ridge=RIDGE)[row] == pytest.approx(expected, rel=1e-6, abs=1e-10)


@given(seeds, st.integers(1, 8))
def test_targets_are_a_least_squares_fit(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, w = rng.normal(size=(30, size)), rng.normal(size=(3, size))
    outputs = inputs @ w.T + rng.normal(size=(30, 3))
    mask = rng.random((3, size)) < 0.6
    h, targets = inputs.T @ inputs, outputs.T @ inputs
    found = refit(h, w, mask, targets=targets, ridge=1e-9)
    for row in range(3):
        expected = np.zeros(size)
        kept = np.flatnonzero(mask[row])
        expected[kept] = np.linalg.lstsq(inputs[:, kept], outputs[:, row], rcond=None)[0]
        assert found[row] == pytest.approx(expected, abs=1e-5)
    free = best_weights(h, w, targets, ridge=1e-9)
    assert np.allclose(refit(h, free, mask, ridge=1e-9), found, atol=1e-5)


@given(seeds, st.integers(2, 8))
def test_order_and_scale_do_not_matter(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    h, w, mask = moments(rng, size), rng.normal(size=(2, size)), rng.random((2, size)) < 0.5
    order = rng.permutation(size)
    plain = refit_cost(h, w, mask, ridge=RIDGE)
    moved = refit_cost(h[np.ix_(order, order)], w[:, order], mask[:, order], ridge=RIDGE)
    scaled = refit_cost(4 * h, 3 * w, mask, ridge=RIDGE) if h.any() else 36 * plain
    assert moved == pytest.approx(plain, rel=1e-6, abs=1e-12)
    assert scaled == pytest.approx(36 * plain, rel=1e-6, abs=1e-12)


def test_dead_inputs_cost_next_to_nothing() -> None:
    h, w = np.diag([1.0, 0.0, 2.0]), np.ones((1, 3))
    assert refit_cost(h, w, np.array([[True, False, True]]), ridge=1e-9)[0] < 1e-8
    assert refit(np.zeros((3, 3)), w, np.array([[True, False, True]])).tolist() == [[1.0, 0.0, 1.0]]


def test_singular_moments_without_a_ridge_are_explained() -> None:
    with pytest.raises(InputError, match="larger ridge"):
        refit(np.zeros((2, 2)), np.ones((1, 2)), np.array([[True, False]]), ridge=0.0)
