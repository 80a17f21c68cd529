"""Reshape, Flatten, Expand, Tile, Pad: bounds, links and rewritten numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from onnxprune.operators import reshape
from onnxprune.operators.base import NodeView, TensorType
from onnxprune.operators.channels import ChannelMap, Resized
from onnxprune.operators.interval import Interval
from onnxprune.operators.reshape import Block, reshape_blocks
from tests.operators.support import RULES, SEED, Case, check_bounds, check_exact, check_removal, end_lists, pairs

VIEW = "s = Shape(x) n = Gather(s, i) u = Unsqueeze(n, a) t = Concat<axis=0>(u, m) y = Reshape(x, t)"
FLAT = "float[3,4] x"
FREE = [
    Case("y = Pad(x, p)", "float[N,4] x", "int64[4] p = {0, 2, 0, 1}"),
    Case("y = Flatten(x)", "float[N,4,2,3] x"),
    Case("y = Flatten<axis=-1>(x)", "float[N,H,5] x"),
    Case("y = Flatten<axis=0>(x)", "float[3,4] x"),
    Case("y = Reshape(x, t)", "float[N,4,2,3] x", "int64[2] t = {0, 24}"),
    Case("y = Reshape(x, t)", "float[N,4,1,1] x", "int64[2] t = {-1, 4}"),
    Case("y = Reshape(x, t)", "float[N,4,H,W] x", "int64[3] t = {0, 4, -1}"),
    Case("y = Reshape(x, t)", "float[N,4] x", "int64[4] t = {0, 0, 1, 1}"),
    Case("y = Reshape(x, t)", "float[2,3,4] x", "int64[2] t = {6, -1}"),
    Case("y = Reshape(x, t)", "float[2,3,4,5] x", "int64[3] t = {-1, 4, 5}"),
    Case("y = Reshape(x, t)", "float[6,1,4] x", "int64[2] t = {6, 4}"),
    Case("y = Reshape(x, t)", "float[2,6] x", "int64[3] t = {2, 3, 2}"),
    Case("y = Expand(x, t)", "float[N,4,1,1] x", "int64[4] t = {1, 4, 3, 1}"),
    Case("y = Expand(x, t)", "float[4,1] x", "int64[4] t = {2, 3, 1, 5}"),
    Case("y = Tile(x, r)", "float[N,4,H,3] x", "int64[4] r = {1, 1, 1, 2}"),
    Case("y = Pad<pads=[0, 0, 1, 2, 0, 0, 0, 1]>(x)", opset=10),
    Case("y = Pad<mode='edge', pads=[0, 0, 1, 2, 0, 0, 0, 1]>(x)".replace("'", '"'), opset=10),
    Case("y = Pad(x, p, v)", "float[3,4] x", "int64[4] p = {1, 0, 2, 0}, float v = {-7}"),
    Case("y = Pad(x, p)", "float[3,4] x", "int64[4] p = {-1, 0, 2, 0}"),
    Case("y = Pad(x, p, , a)", "float[N,4,3] x", "int64[2] p = {1, 1}, int64[1] a = {-1}"),
]
LOCKED = [
    Case("y = Reshape(x, t)", "float[3,4] x", "int64[1] t = {-1}"),
    Case("y = Reshape(x, t)", "float[N,4,H,W] x", "int64[2] t = {0, -1}"),
    Case("y = Reshape(x, t)", "float[N,4,6] x", "int64[4] t = {0, 2, 4, 3}"),
    Case("y = Reshape(x, t)", "float[N,4,6] x", "int64[2] t = {-1, 4}"),
    Case("y = Reshape<allowzero=1>(x, t)", "float[3,4] x", "int64[2] t = {4, 3}"),
    Case(VIEW, "float[N,4,H,W] x", "int64 i = {0}, int64[1] a = {0}, int64[1] m = {-1}"),
    Case(VIEW, "float[N,4,2,3] x", "int64 i = {0}, int64[1] a = {0}, int64[1] m = {24}"),
    Case("s = Shape(z) y = Reshape(x, s)", "float[N,4] x, float[N,4] z"),
    Case("s = Shape(z) y = Expand(x, s)", "float[1,4] x, float[N,4] z"),
    Case("y = Tile(x, r)", "float[3,4] x", "int64[2] r = {2, 3}"),
    Case('y = Pad<mode="reflect">(x, p)', "float[N,4,H,W] x", "int64[8] p = {0, 2, 1, 1, 0, 1, 1, 1}"),
    Case("y = Pad(x, p)", "float[N,4] x, int64[4] p", opset=18),
]
CASES = FREE + LOCKED
RUNNABLE = [case for case in CASES if "p" not in case.inputs.split()]


@pytest.mark.parametrize("case", RUNNABLE, ids=str)
@given(seed=SEED)
@settings(max_examples=25, deadline=None)
def test_bounds_hold_at_every_size(case: Case, seed: int) -> None:
    check_bounds(case, seed)


@pytest.mark.parametrize(
    "case",
    [case for case in RUNNABLE if not {"N", "H", "-1,"} & set(case.inputs) and "edge" not in case.body],
    ids=str,
)
@given(seed=SEED)
@settings(max_examples=10, deadline=None)
def test_static_bounds_are_exact(case: Case, seed: int) -> None:
    if "{-1, 0" not in case.constants:  # a cropped axis is hulled
        check_exact(case, seed)


@pytest.mark.parametrize("case", RUNNABLE, ids=str)
@given(seed=SEED)
@settings(max_examples=25, deadline=None)
def test_free_indices_can_go(case: Case, seed: int) -> None:
    check_removal(case, seed)


@pytest.mark.parametrize("case", FREE, ids=str)
def test_something_is_free(case: Case) -> None:
    assert any(check_removal(case, seed) for seed in range(20))


@pytest.mark.parametrize("case", LOCKED, ids=str)
def test_static_axes_are_locked(case: Case) -> None:
    links = case.links()
    assert links is not None
    free = links.mentioned - set(links.locks)
    assert not {axis for axis in free if axis in links.sizes and links.sizes[axis] == 4}


def test_reshape_blocks() -> None:
    n, h = "N", "H"
    assert reshape_blocks([n, 4, 2, 3], [n, 24]) == [Block((0,), (0,)), Block((1, 2, 3), (1,))]
    assert reshape_blocks([n, 4, h, 5], ["?", 5]) == [Block((0, 1, 2), (0,)), Block((3,), (1,))]
    assert reshape_blocks([n, 1, 4], [n, 4, 1]) == [Block((0,), (0,)), Block((2,), (1,))]
    assert reshape_blocks([n, 6], ["?", 2, 3]) == [Block((0,), (0,)), Block((1,), (1, 2))]
    assert reshape_blocks([n, h], [h, n]) == [Block((0, 1), (0, 1))]
    assert reshape_blocks([2, 3, 4], [4, 6]) == [Block((0, 1, 2), (0, 1))]
    assert reshape_blocks([6, 4], [2, 3, 4]) == [Block((0,), (0, 1)), Block((1,), (2,))]


def channel_bounds(low: list[float], high: list[float]) -> Interval:
    return Interval.of(np.reshape(low, (1, -1, 1, 1)), np.reshape(high, (1, -1, 1, 1)))


def test_flatten_repeats_each_channel() -> None:
    (y,) = Case("y = Flatten(x)", "float[N,2,1,3] x").intervals({"x": channel_bounds([0, -1], [0, 5])}) or ()
    assert end_lists(y) == [[[0, 0, 0, -1, -1, -1]], [[0, 0, 0, 5, 5, 5]]]


def test_flatten_over_dynamic_positions_is_one_hull() -> None:
    (y,) = Case("y = Flatten(x)", "float[N,2,H,3] x").intervals({"x": channel_bounds([0, -1], [0, 5])}) or ()
    assert end_lists(y) == [[[-1]], [[5]]]


def test_dynamic_positions_merge_without_touching_channels() -> None:
    case = Case("y = Reshape(x, t)", "float[N,2,H,W] x", "int64[3] t = {0, 2, -1}")
    (y,) = case.intervals({"x": channel_bounds([0, -1], [0, 5])}) or ()
    assert end_lists(y) == [[[[0], [-1]]], [[[0], [5]]]]


def test_large_reshape_is_hulled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reshape, "ENTRY_LIMIT", 5)
    (y,) = Case("y = Flatten(x)", "float[N,2,1,3] x").intervals({"x": channel_bounds([0, -1], [0, 5])}) or ()
    assert end_lists(y) == [-1, 5]


def test_flatten_links_a_channel_with_its_positions() -> None:
    links = Case("y = Flatten(x)", "float[N,2,1,3] x").links()
    assert links is not None
    assert pairs(links, ("x", 1), ("y", 1)) == [(k // 3, k) for k in range(6)]
    assert links.locks == {("x", 2): "has size 1", ("x", 3): "merged by Reshape"}


@pytest.mark.parametrize(("entry", "free"), [(-1, True), (24, False)])
def test_exported_view_links_where_its_entry_adapts(entry: int, free: bool) -> None:
    constants = f"int64 i = {{0}}, int64[1] a = {{0}}, int64[1] m = {{{entry}}}"
    node = Case(VIEW, "float[N,4,2,3] x", constants).node()
    types = {**node.types, "y": TensorType(None, ("N", 24))}
    links = ChannelMap({("x", 1): 4, ("x", 2): 2, ("x", 3): 3, ("y", 1): 24})
    assert RULES["Reshape"].channels(NodeView(node.node, types, 18), links)
    assert pairs(links, ("x", 1), ("y", 1)) == [(k // 6, k) for k in range(24)]
    assert (("y", 1) not in links.locks) == (("x", 1) not in links.locks) == free


def test_split_axis_is_locked() -> None:
    links = Case("y = Reshape(x, t)", "float[N,6] x", "int64[3] t = {0, 2, 3}").links()
    assert links is not None
    assert links.locks == dict.fromkeys([("x", 1), ("y", 1), ("y", 2)], "split by Reshape")


def resized_target(case: Case, kept: dict[tuple[str, int], list[int]]) -> list[int] | None:
    node = case.node()
    RULES[node.op].resize(node, Resized({axis: np.array(indices) for axis, indices in kept.items()}))
    return node.ints("shape", 1)


def test_reshape_writes_new_numbers_only_where_needed() -> None:
    free = Case("y = Reshape(x, t)", "float[N,4,2] x", "int64[2] t = {0, -1}")
    assert resized_target(free, {("x", 1): [1, 2], ("y", 1): [2, 3, 4, 5]}) == [0, -1]
    copied = Case("y = Reshape(x, t)", "float[N,4,2] x", "int64[3] t = {0, 0, 2}")
    assert resized_target(copied, {("x", 1): [1, 2], ("y", 1): [1, 2]}) == [0, 0, 2]
    fixed = Case("y = Reshape(x, t)", "float[N,4,2] x", "int64[3] t = {0, 4, 2}")
    assert resized_target(fixed, {("x", 1): [1, 2], ("y", 1): [1, 2]}) == [0, 2, 2]


def test_copied_size_is_written_when_it_copies_another_axis() -> None:
    case = Case("y = Reshape(x, t)", "float[2,1,2,3] x", "int64[2] t = {0, 6}")
    assert resized_target(case, {("x", 0): [1], ("y", 0): [1]}) == [0, 6]
    assert resized_target(case, {("y", 0): [1]}) == [1, 6]


def test_zero_padding_keeps_exact_zeros_apart() -> None:
    case = Case("y = Pad(x, p)", "float[N,2,H,W] x", "int64[8] p = {0, 1, 0, 0, 0, 1, 0, 0}")
    (y,) = case.intervals({"x": channel_bounds([1, 2], [1, 3])}) or ()
    assert end_lists(y.map(np.ravel)) == [[0, 1, 2, 0], [0, 1, 3, 0]]


def test_uniform_padding_takes_in_the_value() -> None:
    case = Case("y = Pad(x, p, v)", "float[N,1,H,W] x, float v", "int64[8] p = {0, 0, 1, 0, 0, 0, 0, 0}")
    (y,) = case.intervals({"x": channel_bounds([1], [2]), "v": Interval.of(-3.0, -2.0)}) or ()
    assert end_lists(y.map(np.ravel)) == [[-3], [2]]


def test_computed_padding() -> None:
    case = Case("y = Pad(x, p, v)", "float[3] x, int64[2] p", "float v = {9}")
    (y,) = case.intervals({"x": Interval.point([1.0, 2.0, 3.0])}) or ()
    assert end_lists(y) == [1, 9]
