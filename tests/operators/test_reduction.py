"""Reductions: bounds at every size, rounding, links."""

from __future__ import annotations

from fractions import Fraction
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.operators.base import NodeView
from onnxprune.operators.channels import ChannelMap
from onnxprune.operators.interval import Interval
from onnxprune.operators.reduction import mean_over, sum_over
from tests.operators.support import RULES, SEED, Case, check_bounds, check_exact, check_removal, end_lists, pairs

ROUND = 1e-6
STATIC = "float[2,3,4] x"
AXES = "int64[2] a = {-1, 0}"
REDUCED = [
    case
    for op in ("ReduceMean", "ReduceMax", "ReduceMin")
    for case in (
        Case(f"y = {op}<axes=[2, 3]>(x)", opset=13, tolerance=ROUND),
        Case(f"y = {op}<axes=[-2], keepdims=0>(x)", opset=11, tolerance=ROUND),
        Case(f"y = {op}<axes=[0, -1]>(x)", STATIC, opset=13, tolerance=ROUND),
        Case(f"y = {op}(x, a)", STATIC, AXES, tolerance=ROUND),
        Case(f"y = {op}<keepdims=0>(x, a)", STATIC, AXES, tolerance=ROUND),
        Case(f"y = {op}<keepdims=0>(x)", tolerance=ROUND),
        Case(f"y = {op}<noop_with_empty_axes=1>(x)"),
    )
]
SUMMED = [
    Case("y = ReduceSum<axes=[1]>(x)", opset=11, tolerance=ROUND),
    Case("y = ReduceSum<axes=[2, 3], keepdims=0>(x)", opset=11, tolerance=ROUND),
    Case("y = ReduceSum(x, a)", STATIC, AXES, tolerance=ROUND),
    Case("y = ReduceSum<keepdims=0>(x)", STATIC, opset=13, tolerance=ROUND),
    Case("y = ReduceSum<noop_with_empty_axes=1, keepdims=0>(x)", opset=13),
]
OTHERS = [
    *(Case(f"y = {op}<axes=[1]>(x)", opset=13) for op in ("ReduceL1", "ReduceL2", "ReduceSumSquare")),
    *(Case(f"y = {op}<axes=[1]>(x)", opset=13, tolerance=ROUND) for op in ("ReduceProd", "ReduceLogSumExp")),
    Case("y = ReduceL1<noop_with_empty_axes=1>(x)"),
    Case("y = ArgMax<axis=-2>(x)"),
    Case("y = ArgMin<axis=1, keepdims=0>(x)"),
]


@pytest.mark.parametrize("case", [*REDUCED, *SUMMED, *OTHERS], ids=str)
@given(seed=SEED)
@settings(max_examples=20, deadline=None)
def test_bounds_hold_at_every_size(case: Case, seed: int) -> None:
    check_bounds(case, seed)


@pytest.mark.parametrize("case", [c for c in REDUCED if c.inputs == STATIC and "Mean" not in c.body], ids=str)
@given(seed=SEED)
@settings(max_examples=10, deadline=None)
def test_extremes_are_exact(case: Case, seed: int) -> None:
    check_exact(case, seed)


@pytest.mark.parametrize("case", [*REDUCED, *SUMMED, *OTHERS], ids=str)
@given(seed=SEED)
@settings(max_examples=10, deadline=None)
def test_free_indices_can_go(case: Case, seed: int) -> None:
    check_removal(case, seed)


@pytest.mark.parametrize("case", [REDUCED[0], REDUCED[1], REDUCED[4], SUMMED[1], OTHERS[6]], ids=str)
def test_something_is_free(case: Case) -> None:
    assert any(check_removal(case, seed) for seed in range(20))


NUMBERS = st.lists(st.floats(-1e9, 1e9) | st.sampled_from([1e-320, -1e300, 1e300, 3e307]), min_size=1)


@given(values=NUMBERS)
@settings(max_examples=200, deadline=None)
def test_sum_and_mean_contain_the_rational_result(values: list[float]) -> None:
    x = Interval.point(values)
    total = sum(map(Fraction, values))
    for result, exact in ((sum_over(x, (0,)), total), (mean_over(x, (0,)), total / len(values))):
        low, high = float(result.lower[0]), float(result.upper[0])
        assert low == -inf or Fraction(low) <= exact
        assert high == inf or exact <= Fraction(high)


@given(value=st.floats(allow_nan=False, allow_infinity=False), count=st.integers(1, 50))
def test_the_mean_of_equal_values_is_exact(value: float, count: int) -> None:
    assert end_lists(mean_over(Interval.point([value] * count), (0,))) == [[value], [value]]


def test_sum_of_zeros_is_exact_and_infinities_stay_outside() -> None:
    assert end_lists(sum_over(Interval.point([0.0, -0.0]), (0,))) == [[0], [0]]
    open_ends = Interval.of([-inf, 1.0, 2.0], [3.0, inf, 4.0])
    assert end_lists(sum_over(open_ends, (0,))) == [[-inf], [inf]]
    assert end_lists(mean_over(open_ends, (0,))) == [[-inf], [inf]]
    huge = Interval.point([1.7e308] * 3)
    total = sum_over(huge, (0,))
    assert total.lower.tolist() <= [1.7e308 * 1.01]
    assert total.upper.tolist() == [inf]


def test_mean_of_dynamic_positions_is_the_hull_of_each_channel() -> None:
    x = Interval.of(np.reshape([0.0, -1], (1, 2, 1, 1)), np.reshape([0.0, 3], (1, 2, 1, 1)))
    case = Case("y = ReduceMean<axes=[2, 3], keepdims=0>(x)", "float[N,2,H,W] x", opset=13)
    (y,) = case.intervals({"x": x}) or ()
    assert end_lists(y) == [[[0, -1]], [[0, 3]]]


def test_mean_of_integers_is_a_hull() -> None:
    case = Case("y = ReduceMean<axes=[0]>(x)", "int32[2] x", opset=13)
    (y,) = case.intervals({"x": Interval.point([1.0, 2.0])}) or ()
    assert end_lists(y) == [[1], [2]]


def test_sum_over_unknown_sizes() -> None:
    case = Case("y = ReduceSum<axes=[1], keepdims=0>(x)", "float[4,N] x", opset=11)
    x = Interval.of([[0.0], [1], [-2], [-1]], [[0.0], [2], [-1], [1]])
    (y,) = case.intervals({"x": x}) or ()
    assert end_lists(y) == [[0, 0, -inf, -inf], [0, inf, 0, inf]]


def test_sum_over_known_sizes_counts_uniform_axes() -> None:
    case = Case("y = ReduceSum<axes=[0, 1]>(x)", "float[3,2] x", opset=11)
    (y,) = case.intervals({"x": Interval.of([[1.0, -1.0]], [[1.0, 2.0]])}) or ()
    low, high = float(y.lower[0, 0]), float(y.upper[0, 0])
    assert -1e-12 < low <= 0
    assert 9 <= high < 9 + 1e-12


def test_computed_axes_are_opaque() -> None:
    case = Case("y = ReduceMean(x, a)", "float[2,3] x, int64[1] a")
    assert case.intervals({"x": Interval.of(0.0, 1.0)}) is None
    assert case.links() is None


def test_a_norm_over_no_axes_may_be_the_input() -> None:
    assert OTHERS[5].intervals({"x": Interval.of(-1.0, 1.0)}) is None


def test_positions_of_extremes() -> None:
    x = Interval.of(0.0, 1.0)
    assert end_lists((OTHERS[7].intervals({"x": x}) or ())[0]) == [0, 3]
    assert end_lists((OTHERS[6].intervals({"x": x}) or ())[0]) == [0, inf]


@pytest.mark.parametrize(("keepdims", "place"), [(1, 2), (0, 1)])
def test_reduced_axes_are_locked_and_others_move_up(keepdims: int, place: int) -> None:
    body = f"y = ReduceMax<axes=[1], keepdims={keepdims}>(x)"
    links = Case(body, STATIC, opset=13).links()
    assert links is not None
    assert links.locks[("x", 1)] == "reduced over"
    assert pairs(links, ("x", 0), ("y", 0)) == [(0, 0), (1, 1)]
    assert pairs(links, ("x", 2), ("y", place)) == [(k, k) for k in range(4)]
    assert set(links.locks) == {("x", 1), ("y", 1)} if keepdims else {("x", 1)}


@pytest.mark.parametrize("case", [REDUCED[0], OTHERS[6]], ids=str)
def test_unknown_rank_is_opaque(case: Case) -> None:
    node = case.node()
    assert not RULES[node.op].channels(NodeView(node.node, {}, case.opset), ChannelMap({}))
