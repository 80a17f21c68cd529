"""Normalisation: bounds that hold for any input, exact constants, links."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from onnx.reference import ReferenceEvaluator

from onnxprune.operators.base import NodeView
from onnxprune.operators.channels import ChannelMap
from onnxprune.operators.interval import Interval
from tests.operators.support import RULES, SEED, Case, check_bounds, check_removal, end_lists, input_shapes, pairs

ROUND = 1e-5
SCALES = "float[4] g = {1, -2, 0, 0.5}, float[4] b = {0, 3, -1, 2}"
LAST = "float[N,H,4] x"
SOFTMAX = [
    Case(f"y = {op}<axis={axis}>(x)", opset=opset, tolerance=ROUND)
    for op in ("Softmax", "LogSoftmax", "Hardmax")
    for axis in (1, -1)
    for opset in (11, 13)
] + [Case("y = Softmax(x)", opset=11, tolerance=ROUND), Case("y = Softmax(x)", opset=13, tolerance=ROUND)]
LAYER = [
    Case("y = LayerNormalization(x, g, b)", LAST, SCALES, tolerance=ROUND),
    Case("y = LayerNormalization<epsilon=4.0>(x, g)", LAST, SCALES, tolerance=ROUND),
    Case("y = LayerNormalization<axis=1>(x, g, b)", "float[N,3,4] x", SCALES, tolerance=ROUND),
    Case("y, m, d = LayerNormalization(x, g, b)", LAST, SCALES, outputs=("y", "m", "d"), tolerance=1e-3),
]
RMS = [
    Case("y = RMSNormalization(x, g)", LAST, SCALES, opset=23, tolerance=ROUND),
    Case("y = RMSNormalization<axis=1, epsilon=4.0>(x, g)", "float[N,3,4] x", SCALES, opset=23, tolerance=ROUND),
]
INSTANCE = [
    Case("y = InstanceNormalization(x, g, b)", constants=SCALES, tolerance=ROUND),
    Case("y = InstanceNormalization<epsilon=4.0>(x, g, b)", "float[2,4,3,2] x", SCALES, tolerance=ROUND),
]
GROUP = [
    Case("y = GroupNormalization<num_groups=2>(x, g, b)", constants=SCALES, opset=21, tolerance=ROUND),
    Case("y = GroupNormalization<num_groups=2>(x, g, b)", "float[N,4,2,2] x", SCALES, opset=21, tolerance=ROUND),
    Case(
        "y = GroupNormalization<num_groups=2>(x, g, b)",
        constants="float[2] g = {1, -2}, float[2] b = {0, 3}",
        tolerance=ROUND,
    ),
]
LOCAL = [
    Case("y = LRN<size=3, alpha=0.1, bias=1.0, beta=0.5>(x)", tolerance=ROUND),
    Case("y = LRN<size=3, bias=0.5>(x)", tolerance=ROUND),
    Case("y = LpNormalization<axis=1, p=2>(x)", tolerance=ROUND),
    Case("y = LpNormalization<axis=-1, p=1>(x)", tolerance=ROUND),
]
ALL = [*SOFTMAX, *LAYER, *RMS, *INSTANCE, *GROUP, *LOCAL]


@pytest.mark.parametrize("case", ALL, ids=str)
@given(seed=SEED)
@settings(max_examples=20, deadline=None)
def test_bounds_hold_at_every_size(case: Case, seed: int) -> None:
    check_bounds(case, seed)


@pytest.mark.parametrize("case", [case for case in ALL if len(case.outputs) == 1], ids=str)
@given(seed=SEED)
@settings(max_examples=10, deadline=None)
def test_free_indices_can_go(case: Case, seed: int) -> None:
    check_removal(case, seed)


@pytest.mark.parametrize("case", [*LAYER, *RMS, *INSTANCE, *GROUP], ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_bounds_hold_for_outliers(case: Case, seed: int) -> None:
    """One entry far from the others brings the normalised value close to its limit."""
    rng = np.random.default_rng(seed)
    dims = input_shapes(case, {"N": 2, "H": 2, "W": 1})["x"]
    x = np.zeros(dims, np.float32)
    x[rng.random(dims) < 0.2] = rng.choice([-1e4, 1e4])
    found = case.intervals({"x": Interval.everything()}) or ()
    for result, values in zip(found, ReferenceEvaluator(case.model).run(None, {"x": x}), strict=True):
        assert (values >= result.lower - 1e-3).all()
        assert (values <= result.upper + 1e-3).all()


def test_the_limit_of_a_standardised_value_is_sqrt_n_minus_one() -> None:
    (y,) = LAYER[0].intervals({"x": Interval.everything()}) or ()
    root = sqrt(3)
    np.testing.assert_allclose(y.lower.ravel(), [-root, 3 - 2 * root, -1, 2 - root / 2], rtol=1e-12)
    np.testing.assert_allclose(y.upper.ravel(), [root, 3 + 2 * root, -1, 2 + root / 2], rtol=1e-12)
    assert y.lower.ravel()[2] == y.upper.ravel()[2] == -1


def test_the_limit_follows_the_spread_over_the_root_of_epsilon() -> None:
    (y,) = INSTANCE[1].intervals({"x": Interval.of(-1.0, 2.0)}) or ()
    np.testing.assert_allclose(y.upper.ravel(), [1.5, 6, -1, 2.75], rtol=1e-12)


def test_a_constant_channel_is_exactly_the_shift() -> None:
    x = Interval.of(np.reshape([5.0, -1, -1, -1], (1, 4, 1, 1)), np.reshape([5.0, 1, 1, 1], (1, 4, 1, 1)))
    (y,) = INSTANCE[0].intervals({"x": x}) or ()
    assert (y.lower[0, 0], y.upper[0, 0]) == (0, 0)
    assert (y.lower[0, 2], y.upper[0, 2]) == (-1, -1)
    assert (y.lower[0, 1], y.upper[0, 1]) != (3, 3)


def test_unknown_sizes_and_ranges_leave_only_zero_scales() -> None:
    (y,) = INSTANCE[0].intervals({"x": Interval.everything()}) or ()
    assert end_lists(y.map(np.ravel)) == [[-inf, -inf, -1, -inf], [inf, inf, -1, inf]]


def test_one_entry_is_normalised_to_zero() -> None:
    case = Case("y = InstanceNormalization(x, g, b)", "float[N,4,1,1] x", SCALES)
    (y,) = case.intervals({"x": Interval.everything()}) or ()
    assert end_lists(y.map(np.ravel)) == [[0, 3, -1, 2]] * 2


def test_group_scales_before_opset_21_are_per_group() -> None:
    (y,) = GROUP[2].intervals({"x": Interval.of(np.zeros((1, 4, 1, 1)), np.zeros((1, 4, 1, 1)))}) or ()
    assert end_lists(y.map(np.ravel)) == [[0, 0, 3, 3]] * 2


def test_signs_and_zeros_stay() -> None:
    x = Interval.of([[0.0, 1, -3, -1]], [[0.0, 2, -1, 3]])
    for body in ("LRN<size=3>", "LpNormalization<axis=1>"):
        (y,) = Case(f"y = {body}(x)", "float[N,4] x").intervals({"x": x}) or ()
        low, high = np.sign(y.lower).tolist(), np.sign(y.upper).tolist()
        assert [low, high] == [[[0, 0, -1, -1]], [[0, 1, 0, 1]]]


def test_rms_keeps_signs() -> None:
    (y,) = RMS[0].intervals({"x": Interval.of([[[0.0, 1, -3, -1]]], [[[0.0, 2, -1, 3]]])}) or ()
    assert end_lists(y.map(lambda ends: np.sign(ends).ravel())) == [[0, -1, 0, -1], [0, 0, 0, 1]]


def test_lrn_that_may_amplify_is_opaque() -> None:
    assert LOCAL[1].intervals({"x": Interval.of(0.0, 1.0)}) is None


@pytest.mark.parametrize(
    ("body", "opset", "locked"),
    [
        ("Softmax", 11, {1, 2, 3}),
        ("Softmax<axis=-2>", 11, {2, 3}),
        ("Softmax", 13, {3}),
        ("LogSoftmax<axis=1>", 13, {1}),
        ("LRN<size=3>", 13, {1}),
        ("LpNormalization<axis=2>", 13, {2}),
    ],
)
def test_normalised_axes_are_locked(body: str, opset: int, locked: set[int]) -> None:
    links = Case(f"y = {body}(x)", "float[2,3,4,5] x", opset=opset).links()
    assert links is not None
    assert links.locks == {(name, axis): "normalised over" for name in "xy" for axis in locked}


def test_instance_channels_go_with_scale_and_shift() -> None:
    links = INSTANCE[0].links()
    assert links is not None
    for other in (("x", 1), ("g", 0), ("b", 0)):
        assert pairs(links, other, ("y", 1)) == [(k, k) for k in range(4)]
    assert any(check_removal(INSTANCE[0], seed) for seed in range(5))


@pytest.mark.parametrize("case", [LAYER[0], RMS[0], GROUP[0], GROUP[2]], ids=str)
def test_mixed_channels_are_locked(case: Case) -> None:
    links = case.links()
    assert links is not None
    assert all(size != 4 for axis, size in links.sizes.items() if axis[0] in "xy" and axis not in links.locks)


def test_statistics_as_results_are_opaque() -> None:
    assert LAYER[3].links() is None


@pytest.mark.parametrize("case", [*SOFTMAX[:1], LAYER[0], RMS[0], INSTANCE[0], GROUP[0], *LOCAL[1:3]], ids=str)
def test_unknown_rank_is_opaque(case: Case) -> None:
    node = case.node()
    assert not RULES[node.op].channels(NodeView(node.node, {}, case.opset), ChannelMap({}))
