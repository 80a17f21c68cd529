"""Pooling and resampling: bounds at every size, windows over padding, links and sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from onnxprune.operators import pooling
from onnxprune.operators.base import NodeView
from onnxprune.operators.channels import ChannelMap
from onnxprune.operators.interval import Interval
from tests.operators.support import (
    RULES,
    SEED,
    Case,
    check_bounds,
    check_exact,
    check_removal,
    end_lists,
    input_shapes,
    random_interval,
    run_model,
)

ROUND = 1e-6
STATIC = "float[2,3,5,7] x"
DYNAMIC = "float[N,4,H,W] x"
WINDOWS = [
    "kernel_shape=[2, 2]",
    "kernel_shape=[3, 3], strides=[2, 1], pads=[1, 0, 1, 2]",
    'kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER"',
    'kernel_shape=[2, 3], strides=[1, 2], auto_pad="SAME_LOWER"',
    'kernel_shape=[2, 2], strides=[2, 3], auto_pad="VALID"',
    "kernel_shape=[2, 2], dilations=[2, 3], pads=[1, 1, 1, 0]",
]
CEIL = "kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1"
MAX = [
    Case(f"y = MaxPool<{window}>(x)", inputs, opset=19) for window in [*WINDOWS, CEIL] for inputs in (STATIC, DYNAMIC)
]
MEAN = [
    Case(f"y = AveragePool<{window}, count_include_pad={counts}>(x)", inputs, opset=19, tolerance=ROUND)
    for window in WINDOWS
    for inputs in (STATIC, DYNAMIC)
    for counts in (0, 1)
]
OTHER = [
    Case(f"y = AveragePool<{CEIL}, count_include_pad={counts}, pads=[1, 1, 1, 1]>(x)", tolerance=ROUND)
    for counts in (0, 1)
] + [
    Case("y = GlobalAveragePool(x)", tolerance=ROUND),
    Case("y = GlobalAveragePool(x)", STATIC, tolerance=ROUND),
    Case("y = GlobalMaxPool(x)"),
    Case("y = GlobalMaxPool(x)", STATIC),
    Case("y = MaxPool<kernel_shape=[2]>(x)", "float[N,4,6] x", opset=10),
    Case("y = AveragePool<kernel_shape=[2]>(x)", "float[N,4,6] x", opset=7, tolerance=ROUND),
    Case("y = LpPool<kernel_shape=[2, 2]>(x)", tolerance=ROUND),
]


def resize(
    attributes: str, values: str, dtype: str = "float", *, inputs: str = "float[N,4,5,6] x", opset: int = 19
) -> Case:
    """A Resize by ``scales`` (dtype float) or to ``sizes`` (int64)."""
    count = values.count(",") + 1
    given = "e, v" if dtype == "float" else "e, e, v"
    constants = f"{dtype}[{count}] v = {{{values}}}, float[0] e = {{}}"
    return Case(f"y = Resize<{attributes}>(x, {given})", inputs, constants, opset=opset, tolerance=ROUND)


RESIZE = [
    resize('mode="nearest"', "1, 1, 2, 2"),
    resize('mode="linear"', "1, 1, 2, 1.5"),
    resize('mode="linear"', "1, 1, 2, 1.5", inputs=DYNAMIC),
    resize('mode="linear", coordinate_transformation_mode="align_corners"', "1, 1, 0.6, 0.7", inputs=DYNAMIC),
    resize('mode="linear", coordinate_transformation_mode="asymmetric"', "1, 1, 1, 2", opset=11),
    resize('mode="linear", coordinate_transformation_mode="pytorch_half_pixel"', "1, 1, 0.4, 2", opset=13),
    resize('mode="linear", antialias=1, axes=[2, 3]', "0.5, 0.4"),
    resize('mode="nearest", axes=[-1]', "3"),
    resize('mode="nearest"', "2, 4, 7, 3", "int64", inputs="float[2,4,5,6] x"),
    resize('mode="linear", axes=[3, 1, 2]', "9, 4, 5", "int64"),
    resize('mode="nearest", keep_aspect_ratio_policy="not_larger", axes=[2, 3]', "9, 9", "int64"),
    resize('mode="cubic"', "1, 1, 2, 2"),
    Case("y = Resize(x, v)", DYNAMIC, "float[4] v = {1, 1, 2, 2}", opset=10),
    Case('y = Resize<mode="linear">(x, v)', DYNAMIC, "float[4] v = {1, 1, 2, 0.5}", opset=10, tolerance=ROUND),
    Case('y = Upsample<mode="linear">(x, v)', DYNAMIC, "float[4] v = {1, 1, 2, 2}", opset=9, tolerance=ROUND),
    Case("y = Upsample<scales=[1.0, 1.0, 2.0, 3.0]>(x)", opset=7),
    Case(
        'y = Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize", '
        "extrapolation_value=5.0>(x, roi, e, v)",
        "float[2,4,5,6] x",
        "float[8] roi = {0, 0, 0, -0.5, 1, 1, 1, 1.5}, float[0] e = {}, int64[4] v = {2, 4, 5, 9}",
        tolerance=ROUND,
    ),
]
BLOCKS = [
    Case("y = DepthToSpace<blocksize=2>(x)", "float[N,8,H,W] x", opset=13),
    Case('y = DepthToSpace<blocksize=2, mode="CRD">(x)', "float[N,8,3,2] x", opset=13),
    Case("y = SpaceToDepth<blocksize=2>(x)", "float[N,3,4,6] x", opset=13),
]


@pytest.mark.parametrize("case", [*MAX, *MEAN, *OTHER, *RESIZE, *BLOCKS], ids=str)
@given(seed=SEED)
@settings(max_examples=20, deadline=None)
def test_bounds_hold_at_every_size(case: Case, seed: int) -> None:
    check_bounds(case, seed)


@pytest.mark.parametrize("case", [case for case in MAX if case.inputs == STATIC], ids=str)
@given(seed=SEED)
@settings(max_examples=10, deadline=None)
def test_max_pool_is_exact_position_by_position(case: Case, seed: int) -> None:
    check_exact(case, seed)


@pytest.mark.parametrize("case", [case for case in (*MEAN, OTHER[3]) if case.inputs == STATIC], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_mean_is_tight_position_by_position(case: Case, seed: int) -> None:
    dims = input_shapes(case, {})["x"]
    x = random_interval(np.random.default_rng(seed), dims, full=True)
    (y,) = case.intervals({"x": x}) or ()
    for ends, side in ((y.lower, x.lower), (y.upper, x.upper)):
        (values,) = run_model(case.model, {"x": side.astype(np.float32)})
        np.testing.assert_allclose(ends, values, rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", [*MAX, *MEAN, *OTHER, *RESIZE], ids=str)
@given(seed=SEED)
@settings(max_examples=8, deadline=None)
def test_free_indices_can_go(case: Case, seed: int) -> None:
    check_removal(case, seed)


@pytest.mark.parametrize("case", [*MAX, *MEAN, *OTHER, *RESIZE[:-1]], ids=str)
def test_channels_pass(case: Case) -> None:
    links = case.links()
    assert links is not None
    assert not {("x", 1), ("y", 1)} & set(links.locks)
    assert {axis for _, axis in links.locks} <= {2, 3}
    assert any(check_removal(case, seed) for seed in range(20))


def per_channel(*ends: tuple[float, float]) -> Interval:
    low, high = np.transpose(ends)
    return Interval.of(low.reshape(1, -1, 1, 1), high.reshape(1, -1, 1, 1))


@pytest.mark.parametrize("counts", [0, 1])
def test_dead_channels_stay_exactly_zero(counts: int) -> None:
    pool = f"kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad={counts}"
    for inputs in ("float[N,2,H,W] x", "float[1,2,5,5] x"):
        for body in (f"y = AveragePool<{pool}>(x)", "y = GlobalAveragePool(x)", "y = GlobalMaxPool(x)"):
            (y,) = Case(body, inputs, opset=13).intervals({"x": per_channel((0, 0), (1, 2))}) or ()
            assert end_lists(y.map(lambda ends: ends[0, 0].ravel())) == [[0], [0]]
    full = Interval.of(np.zeros((1, 2, 5, 5)), np.zeros((1, 2, 5, 5)))
    (y,) = Case(f"y = AveragePool<{pool}>(x)", "float[1,2,5,5] x", opset=13).intervals({"x": full}) or ()
    assert not y.magnitude().any()


def test_counted_padding_pulls_towards_zero() -> None:
    x = per_channel((1, 2), (-2, -1))
    pool = "kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad"
    (counted,) = Case(f"y = AveragePool<{pool}=1>(x)", "float[N,2,H,W] x").intervals({"x": x}) or ()
    assert end_lists(counted.map(np.ravel)) == [[0, -2], [2, 0]]
    (left_out,) = Case(f"y = AveragePool<{pool}=0>(x)", "float[N,2,H,W] x").intervals({"x": x}) or ()
    assert end_lists(left_out.map(np.ravel)) == [[1, -2], [2, -1]]


def test_max_pool_never_sees_its_padding() -> None:
    x = per_channel((-2, -1))
    pool = "kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1"
    (y,) = Case(f"y = MaxPool<{pool}>(x)", "float[N,1,H,W] x").intervals({"x": x}) or ()
    assert end_lists(y.map(np.ravel)) == [[-2], [-1]]


def test_max_pool_windows_that_may_lie_in_the_padding_are_open_below() -> None:
    x = per_channel((-2, -1))
    for pool in (
        "kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1",
        "kernel_shape=[2, 2], dilations=[3, 3], pads=[1, 1, 1, 1]",
    ):
        (y,) = Case(f"y = MaxPool<{pool}>(x)", "float[N,1,H,W] x").intervals({"x": x}) or ()
        assert end_lists(y.map(np.ravel)) == [[-np.inf], [-1]]


def test_indices_of_max_pool_keep_every_channel() -> None:
    case = Case("y, i = MaxPool<kernel_shape=[2, 2]>(x)", outputs=("y", "i"))
    assert case.links() is None
    found = case.intervals({"x": Interval.of(0.0, 1.0)}) or ()
    assert [end_lists(x) for x in found] == [[0, 1], [-np.inf, np.inf]]


def test_lp_pool_is_opaque() -> None:
    assert Case("y = LpPool<kernel_shape=[2, 2]>(x)").intervals({"x": Interval.of(0.0, 1.0)}) is None


def test_too_many_windows_are_hulled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "ENTRY_LIMIT", 10)
    x = Interval.point(np.arange(8.0).reshape(1, 1, 1, 8))
    for op in ("MaxPool", "AveragePool"):
        (y,) = Case(f"y = {op}<kernel_shape=[1, 2]>(x)", "float[1,1,1,8] x").intervals({"x": x}) or ()
        assert end_lists(y.map(np.ravel)) == [[0], [7]]


def test_resize_keeps_channels_apart_and_hulls_positions() -> None:
    x = Interval.point([[[[1.0, 5.0]], [[7.0, 7.0]]]])
    (y,) = resize('mode="linear"', "1, 1, 2, 2", inputs="float[N,2,1,2] x").intervals({"x": x}) or ()
    assert end_lists(y.map(np.ravel)) == [[1, 7], [5, 7]]


def test_resize_by_computed_numbers() -> None:
    x = Interval.point([[[[1.0]], [[7.0]]]])
    scaled = Case("y = Resize(x, , v)", "float[N,2,H,W] x, float[4] v")
    (y,) = scaled.intervals({"x": x}) or ()
    assert end_lists(y.map(np.ravel)) == [[1], [7]]
    links = scaled.links()
    assert links is not None
    assert ("x", 1) in links.locks


def test_extrapolated_values_count() -> None:
    (y,) = RESIZE[-1].intervals({"x": Interval.of(0.0, 1.0)}) or ()
    assert end_lists(y) == [0, 5]


def test_cubic_is_opaque() -> None:
    assert resize('mode="cubic"', "1, 1, 2, 2").intervals({"x": Interval.of(0.0, 1.0)}) is None


def test_blocks_hull_the_channels_that_meet() -> None:
    x = per_channel(*((k, k) for k in range(8)))
    (dcr,) = BLOCKS[0].intervals({"x": x}) or ()
    assert end_lists(dcr.map(np.ravel)) == [[0, 1], [6, 7]]
    (crd,) = BLOCKS[1].intervals({"x": x}) or ()
    assert end_lists(crd.map(np.ravel)) == [[0, 4], [3, 7]]
    (y,) = BLOCKS[2].intervals({"x": per_channel((0, 0), (1, 1), (2, 2))}) or ()
    assert end_lists(y.map(np.ravel)) == [[0, 1, 2] * 4] * 2


@pytest.mark.parametrize("case", [MAX[0], MEAN[0], *OTHER, RESIZE[0]], ids=str)
def test_unknown_rank_is_opaque(case: Case) -> None:
    node = case.node()
    assert not RULES[node.op].channels(NodeView(node.node, {}, case.opset), ChannelMap({}))
