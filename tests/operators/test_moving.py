"""Operators that move entries: Concat, Split, Slice, Gather, Transpose, Squeeze, Unsqueeze."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from onnxprune.operators import concatenation, tensors
from onnxprune.operators.channels import ChannelMap, Resized
from onnxprune.operators.indexing import Cut
from onnxprune.operators.interval import Interval
from tests.operators.support import RULES, SEED, Case, check_bounds, check_exact, check_removal, end_lists, pairs

FLAT = "float[3,4] x"
MOVING = [
    Case("y = Concat<axis=1>(x, z)", "float[N,4,H,W] x, float[N,3,H,W] z"),
    Case("y = Concat<axis=-2>(x, z, x)", "float[3,4] x, float[2,4] z"),
    Case("y = Concat<axis=2>(x, z)", "float[2,4,H,W] x, float[2,4,3,W] z"),
    Case("y = Concat<axis=1>(x, c)", "float[1,2] x", "float[1,3] c = {1, 0, 2}"),
    Case("a, b = Split<axis=1>(x)", opset=13, outputs=("a", "b")),
    Case("a, b = Split<axis=-3, split=[3, 1]>(x)", opset=11, outputs=("a", "b")),
    Case("a, b = Split<axis=1>(x)", opset=11, outputs=("a", "b")),
    Case("a, b, c = Split<axis=1>(x, s)", constants="int64[3] s = {1, 2, 1}", outputs=("a", "b", "c")),
    Case("a, b = Split<axis=1, num_outputs=2>(x)", "float[N,5] x", outputs=("a", "b")),
    Case("a, b = Split<axis=0, num_outputs=2>(x)", "float[5,3] x", outputs=("a", "b")),
    Case("y = Slice<starts=[1, 0], ends=[-1, 9], axes=[1, 2]>(x)", opset=9),
    Case("y = Slice<starts=[1, 2], ends=[3, 100]>(x)", FLAT, opset=9),
    Case("y = Slice(x, s, e, a)", constants="int64[1] s = {1}, int64[1] e = {3}, int64[1] a = {-3}"),
    Case(
        "y = Slice(x, s, e, a, t)",
        FLAT,
        "int64[2] s = {-1, 0}, int64[2] e = {-100, 4}, int64[2] a = {0, 1}, int64[2] t = {-1, 3}",
    ),
    Case("y = Gather<axis=1>(x, i)", constants="int64[5] i = {3, 0, -1, 0, 1}"),
    Case("y = Gather<axis=-1>(x, i)", FLAT, "int64 i = {-2}"),
    Case("y = Gather(x, i)", FLAT, "int32[2,2] i = {0, 2, 2, 1}"),
    Case("y = Transpose<perm=[1, 0, 3, 2]>(x)"),
    Case("y = Transpose(x)", FLAT),
    Case("y = Squeeze<axes=[0, 3]>(x)", "float[1,4,H,1] x", opset=11),
    Case("y = Squeeze(x, a)", "float[1,4,H,1] x", "int64[1] a = {-1}"),
    Case("y = Squeeze(x)", "float[1,4,1,3] x"),
    Case("y = Squeeze(x)", "float[1,4,1,3] x", opset=11),
    Case("y = Unsqueeze<axes=[0, 4]>(x)", "float[N,4,H] x", opset=11),
    Case("y = Unsqueeze(x, a)", "float[N,4,H] x", "int64[2] a = {-1, 1}"),
]
STATIC = [case for case in MOVING if "N" not in case.inputs and "H" not in case.inputs]


@pytest.mark.parametrize("case", MOVING, ids=str)
@given(seed=SEED)
@settings(max_examples=25, deadline=None)
def test_bounds_hold_at_every_size(case: Case, seed: int) -> None:
    check_bounds(case, seed)


@pytest.mark.parametrize("case", STATIC, ids=str)
@given(seed=SEED)
@settings(max_examples=10, deadline=None)
def test_moving_is_exact(case: Case, seed: int) -> None:
    check_exact(case, seed)


@pytest.mark.parametrize("case", MOVING, ids=str)
@given(seed=SEED)
@settings(max_examples=25, deadline=None)
def test_free_indices_can_go(case: Case, seed: int) -> None:
    check_removal(case, seed)


@pytest.mark.parametrize("case", [MOVING[k] for k in (0, 4, 5, 6, 7, 8, 10, 12, 14, 17, 21, 24)], ids=str)
def test_something_is_free(case: Case) -> None:
    assert any(check_removal(case, seed) for seed in range(20))


def test_concat_of_uniform_parts_repeats_them() -> None:
    case = Case("y = Concat<axis=1>(x, z)", "float[N,2,H,W] x, float[N,3,H,W] z")
    z = Interval.of(np.reshape([3.0, 4, 5], (1, 3, 1, 1)), 6.0)
    (y,) = case.intervals({"x": Interval.of(np.zeros((1, 1, 1, 1)), 1.0), "z": z}) or ()
    assert y.shape == (1, 5, 1, 1)
    assert end_lists(y.map(np.ravel)) == [[0, 0, 3, 4, 5], [1, 1, 6, 6, 6]]


def test_concat_with_a_dynamic_part_is_one_hull() -> None:
    case = Case("y = Concat<axis=1>(x, z)", "float[N,2] x, float[N,M] z")
    x, z = Interval.point([[1.0, 2.0]]), Interval.of([[-1.0]], [[0.0]])
    (y,) = case.intervals({"x": x, "z": z}) or ()
    assert end_lists(y) == [[[-1]], [[2]]]
    links = case.links()
    assert links is not None
    assert {("x", 1), ("y", 1)} <= set(links.locks)


def test_concat_skips_empty_parts() -> None:
    case = Case("y = Concat<axis=0>(x, c)", "float[2] x", "float[0] c = {}")
    (y,) = case.intervals({"x": Interval.point([1.0, 2.0])}) or ()
    assert end_lists(y) == [[1, 2], [1, 2]]


def test_bounds_that_would_be_too_large_are_hulled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "ENTRY_LIMIT", 5)
    monkeypatch.setattr(concatenation, "ENTRY_LIMIT", 5)
    case = Case("y = Concat<axis=1>(x, x)", "float[1,3] x")
    (y,) = case.intervals({"x": Interval.point([[1.0, 2.0, 3.0]])}) or ()
    assert end_lists(y) == [[[1]], [[3]]]
    case = Case("y = Gather(x, i)", "float[2] x", "int64[6] i = {0, 1, 0, 1, 0, 1}")
    (y,) = case.intervals({"x": Interval.point([1.0, 2.0])}) or ()
    assert end_lists(y) == [[1], [2]]


def test_computed_cuts_hull_only_their_axes() -> None:
    case = Case("y = Slice(x, s, e, a)", "float[2,2] x, int64[1] s, int64[1] e", "int64[1] a = {1}")
    (y,) = case.intervals({"x": Interval.point([[1.0, 2.0], [3.0, 4.0]])}) or ()
    assert end_lists(y) == [[[1], [3]], [[2], [4]]]


def test_computed_gather_hulls_the_axis() -> None:
    case = Case("y = Gather(x, i)", "int64[N,L] i", "float[2,2] x = {1, 2, 3, 4}")
    (y,) = case.intervals({}) or ()
    assert end_lists(y) == [[[[1, 2]]], [[[3, 4]]]]


@pytest.mark.parametrize(
    ("start", "end", "step", "size", "expected"),
    [
        (0, 2**63 - 1, 1, 3, [0, 1, 2]),
        (-2, -1, 1, 3, [1]),
        (-1, -(2**63), -1, 3, [2, 1, 0]),
        (5, 0, -2, 4, [3, 1]),
        (3, 1, 1, 4, []),
        (0, 3, 1, 0, []),
    ],
)
def test_cut_positions(start: int, end: int, step: int, size: int, expected: list[int]) -> None:
    assert Cut(start, end, step).positions(size).tolist() == expected


def test_concat_links_with_offsets() -> None:
    links = Case("y = Concat<axis=1>(x, z)", "float[N,2] x, float[N,3] z").links()
    assert links is not None
    assert pairs(links, ("x", 1), ("y", 1)) == [(0, 0), (1, 1)]
    assert pairs(links, ("z", 1), ("y", 1)) == [(0, 2), (1, 3), (2, 4)]
    assert not links.locks


def test_slice_leaves_what_it_cuts_away_free() -> None:
    links = Case("y = Slice<starts=[1], ends=[3], axes=[1]>(x)", "float[N,4] x", opset=9).links()
    assert links is not None
    assert pairs(links, ("x", 1), ("y", 1)) == [(1, 0), (2, 1)]
    assert ("x", 1) in links.mentioned
    assert not links.locks


def test_slice_with_steps_locks() -> None:
    constants = "int64[1] s = {0}, int64[1] e = {4}, int64[1] a = {1}, int64[1] t = {2}"
    links = Case("y = Slice(x, s, e, a, t)", "float[N,4] x", constants).links()
    assert links is not None
    assert set(links.locks) == {("x", 1), ("y", 1)}


def test_gather_links_every_copy() -> None:
    links = Case("y = Gather<axis=1>(x, i)", "float[N,3] x", "int64[3] i = {2, -1, 0}").links()
    assert links is not None
    assert pairs(links, ("x", 1), ("y", 1)) == [(0, 2), (2, 0), (2, 1)]


def test_scalar_gather_locks_its_axis() -> None:
    links = Case("y = Gather<axis=1>(x, i)", "float[2,3,4] x", "int64 i = {1}").links()
    assert links is not None
    assert ("x", 1) in links.locks
    assert pairs(links, ("x", 2), ("y", 1)) == [(k, k) for k in range(4)]


def test_equal_parts_stay_implicit_and_unequal_ones_are_written() -> None:
    case = Case("a, b = Split<axis=1, num_outputs=2>(x)", "float[N,4] x", outputs=("a", "b"))
    kept = {("x", 1): np.array([1, 2]), ("a", 1): np.array([1]), ("b", 1): np.array([0])}
    node = case.node()
    RULES["Split"].resize(node, Resized(kept))
    assert node.attr("num_outputs") == 2
    assert not node.has_input(1)
    kept = {("x", 1): np.array([0, 1, 2]), ("b", 1): np.array([0])}
    RULES["Split"].resize(node, Resized(kept))
    # Two and one would be the implicit parts of three, too.
    assert node.attr("num_outputs") == 2
    kept = {("x", 1): np.array([1, 2, 3]), ("a", 1): np.array([1])}
    RULES["Split"].resize(node, Resized(kept))
    assert node.attr("num_outputs") is None
    assert node.ints("split", 1) == [1, 2]


def test_squeeze_names_its_axes_before_a_channel_axis_shrinks_to_one() -> None:
    case = Case("y = Squeeze(x)", "float[1,4,1,3] x")
    node = case.node()
    RULES["Squeeze"].resize(node, Resized({("x", 1): np.array([2]), ("y", 0): np.array([2])}))
    assert node.ints("axes", 1) == [0, 2]


@pytest.mark.parametrize("case", MOVING, ids=str)
def test_unknown_rank_is_opaque(case: Case) -> None:
    node = case.node()
    node.types = {}
    assert not RULES[node.op].channels(node, ChannelMap({}))
    found = RULES[node.op].interval(node, [Interval.of(-1.0, 2.0)] * node.n_inputs)
    assert found is not None
    assert all(end_lists(x) == [-1, 2] for x in found)
