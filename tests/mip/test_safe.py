"""The bound from multipliers, evaluated again in rational arithmetic, and against points of the feasible set."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from onnxprune.mip import Solver, Status, System, dual_bound
from onnxprune.operators.interval import Array

SEEDS = st.integers(0, 2**31)


def random_system(rng: np.random.Generator, *, spread: int = 6) -> tuple[System, Array, Array]:
    """Constraints around a known point, with magnitudes far apart; objective and the point."""
    columns, count = int(rng.integers(1, 7)), int(rng.integers(0, 6))
    size = 10.0 ** rng.integers(-spread, spread + 1, size=columns)
    low, high = -rng.random(columns) * size, rng.random(columns) * size
    point = low + rng.random(columns) * (high - low)
    rows = rng.normal(size=(count, columns)) * 10.0 ** rng.integers(-spread, spread + 1, size=(count, 1))
    rows *= rng.random(rows.shape) < 0.7
    value, width = rows @ point, np.abs(rows) @ size
    row_low, row_high = value - rng.random(count) * width * 1e-1, value + rng.random(count) * width * 1e-1
    row_low[rng.random(count) < 0.4] = -np.inf
    row_high[rng.random(count) < 0.4] = np.inf
    whole = np.zeros(columns, dtype=bool)
    return System(low, high, whole, sparse.csr_array(rows), row_low, row_high), rng.normal(size=columns), point


def rational_bound(system: System, objective: Array, duals: Array) -> Fraction:
    """The same formula without rounding; multipliers on infinite sides count as 0."""
    total = Fraction(0)
    left = [Fraction(c) for c in objective.tolist()]
    for row, dual, low, high in zip(system.rows.toarray(), duals, system.row_low, system.row_high, strict=True):
        side = high if dual > 0 else low
        if dual == 0 or not np.isfinite(side) or not np.isfinite(dual):
            continue
        total += Fraction(float(dual)) * Fraction(float(side))
        left = [c - Fraction(float(dual)) * Fraction(float(a)) for c, a in zip(left, row, strict=True)]
    for c, low, high in zip(left, system.low.tolist(), system.high.tolist(), strict=True):
        total += max(c * Fraction(low), c * Fraction(high))
    return total


@settings(max_examples=300, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(["solved", "perturbed", "garbage", "huge", "nonfinite"]))
def test_any_multipliers_give_a_valid_bound(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    system, objective, point = random_system(rng)
    duals = rng.normal(size=len(system.row_low))
    if kind in ("solved", "perturbed"):
        solution = Solver(system).solve(objective, 10)
        duals = np.zeros(len(duals)) if solution.duals is None else solution.duals
    if kind == "perturbed":
        duals = duals * (1 + 1e-3 * rng.normal(size=len(duals))) + 1e-9 * rng.normal(size=len(duals))
    if kind == "huge":
        duals = duals * 1e300
    if kind == "nonfinite" and len(duals):
        duals[0] = rng.choice([np.inf, -np.inf, np.nan])
    bound = dual_bound(system, objective, duals)
    assert not np.isnan(bound)
    if np.isfinite(bound):
        exact = rational_bound(system, objective, duals)
        assert Fraction(bound) >= exact
        if kind == "solved":
            assert bound <= float(exact) + 1e-9 * (1 + np.abs(objective) @ np.maximum(-system.low, system.high))
    inside = sum(Fraction(float(c)) * Fraction(float(x)) for c, x in zip(objective, point, strict=True))
    assert bound == np.inf or Fraction(bound) >= inside


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_a_solved_lp_is_bounded_tightly(seed: int) -> None:
    system, objective, _ = random_system(np.random.default_rng(seed), spread=1)
    solution = Solver(system).solve(objective, 10)
    assert solution.status is Status.OPTIMAL
    assert solution.duals is not None
    assert solution.value is not None
    bound = dual_bound(system, objective, solution.duals)
    size = 1 + float(np.abs(objective) @ np.maximum(-system.low, system.high))
    assert solution.value - 1e-6 * size <= bound <= solution.value + 1e-6 * size


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS)
def test_what_cancels_only_up_to_rounding_is_counted(seed: int) -> None:
    """The reduced costs vanish but for rounding, over boxes wide enough to make something of it."""
    rng = np.random.default_rng(seed)
    rows, duals, wide = rng.normal(size=(5, 8)), rng.random(5), np.full(8, 1e9)
    nothing = np.zeros(5)
    system = System(-wide, wide, np.zeros(8, bool), sparse.csr_array(rows), nothing, nothing)
    objective = system.rows.T @ duals
    assert Fraction(dual_bound(system, objective, duals)) >= rational_bound(system, objective, duals)


def test_wrong_signs_are_clipped() -> None:
    """x <= 1 alone: a negative multiplier would "prove" that x <= 1 bounds -x."""
    system = System(
        np.array([-5.0]),
        np.array([5.0]),
        np.zeros(1, bool),
        sparse.csr_array(np.array([[1.0]])),
        np.array([-np.inf]),
        np.ones(1),
    )
    assert dual_bound(system, np.array([1.0]), np.array([1.0])) == pytest.approx(1)
    assert dual_bound(system, np.array([-1.0]), np.array([-1.0])) == pytest.approx(5)
    least = System(system.low, system.high, system.integer, system.rows, -np.ones(1), np.array([np.inf]))
    assert dual_bound(least, np.array([-1.0]), np.array([-1.0])) == pytest.approx(1)
    assert dual_bound(least, np.array([1.0]), np.array([1.0])) == pytest.approx(5)


def test_unbounded_columns() -> None:
    """A column without an end is bounded only where its reduced cost vanishes exactly."""
    system = System(
        np.array([0.0, 0.0]),
        np.array([np.inf, 1.0]),
        np.zeros(2, bool),
        sparse.csr_array(np.array([[1.0, 1.0]])),
        np.array([-np.inf]),
        np.array([3.0]),
    )
    assert dual_bound(system, np.array([1.0, 0.0]), np.array([0.0])) == np.inf
    assert dual_bound(system, np.array([-1.0, 1.0]), np.array([0.0])) == pytest.approx(1)
    assert dual_bound(system, np.array([1.0, 0.0]), np.array([2.0])) == pytest.approx(6)


def test_an_infeasible_system_is_not_trusted() -> None:
    """Without multipliers that prove it, "infeasible" bounds nothing."""
    system = System(
        np.zeros(1),
        np.ones(1),
        np.zeros(1, bool),
        sparse.csr_array(np.array([[1.0]])),
        np.array([2.0]),
        np.array([np.inf]),
    )
    solution = Solver(system).solve(np.ones(1), 10)
    assert solution.status is Status.INFEASIBLE
    assert solution.duals is None
    assert dual_bound(system, np.ones(1), np.zeros(1)) >= 1
