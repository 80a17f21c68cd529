"""``merge_parallel``: equal units and positive multiples, and everything that tells two units apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from tests.passes.support import ints, net, run_pass, settle, taps, unchanged

NAME = "merge_parallel"
BODY = "h = Gemm <transB = 1> (x, w1, b1) r = Relu (h) y = Gemm <transB = 1> (r, w2, b2)"
TABLES: dict[str, Any] = {
    "w1": [[1, 2], [3, -1], [2, 4]], "b1": [3, 1, 6],
    "w2": [[1, 10, 5]], "b2": [7],
}  # fmt: skip
"""Unit 2 is twice unit 0."""
EQUAL: dict[str, Any] = {"w1": [[1, 2], [3, -1], [1, 2]], "b1": [3, 1, 3]}


def dense(activation: str = "r = Relu (h)", body: str = BODY, **options: Any) -> ModelProto:
    return net(body.replace("r = Relu (h)", activation), **{**TABLES, **options})


@pytest.mark.parametrize(("tables", "column"), [(EQUAL, 6), ({}, 11)])
def test_the_column_of_the_merged_unit_is_added(tables: dict[str, Any], column: float) -> None:
    done = run_pass(NAME, dense(**tables))
    assert done.layer("h") == [[[1, 2], [3, -1]], [3, 1]]
    assert done.layer("y") == [[[column, 10]], [7]]
    assert (done.report.removed, done.report.merged) == ({"h": [2]}, {"h": 1})
    assert (done.deviation, done.report.rounding, done.report.needed_domain) == (0, 0, False)


def test_a_whole_family_becomes_one_unit() -> None:
    done = settle(NAME, dense(w1=[[1, 2], [2, 4], [4, 8]], b1=[1, 2, 4], w2=[[1, 10, 100]]))
    assert done.layer("h") == [[[1, 2]], [1]]
    assert done.layer("y") == [[[1 + 2 * 10 + 4 * 100]], [7]]
    assert done.report.merged == {"h": 2}


def test_two_families() -> None:
    done = settle(NAME, dense(
        w1=[[1, 2], [1, 1], [2, 4], [1, 1]], b1=[1, 5, 2, 5], w2=[[1, 2, 3, 4]],
    ))  # fmt: skip
    assert done.layer("h") == [[[1, 2], [1, 1]], [1, 5]]
    assert done.layer("y") == [[[7, 6]], [7]]


def test_zeros_of_either_sign_are_equal() -> None:
    done = settle(NAME, dense(w1=[[1, 0.0], [-0.0, 1], [1, -0.0]], b1=[0.0, 2, -0.0]))
    assert done.report.merged == {"h": 1}


def test_a_factor_that_is_no_binary_fraction_is_rounded_and_says_so() -> None:
    done = run_pass(NAME, dense(w1=[[3, 6], [3, -1], [1, 2]], b1=[3, 1, 1], w2=[[1, 10, 1]]), tolerance=1e-5)
    exact = 1 + 1 / 3
    assert done.layer("y")[0] == [[float(np.float32(exact)), 10]]
    assert done.report.rounding == abs(float(np.float32(exact)) - exact)
    assert done.deviation == 0


@pytest.mark.parametrize(
    ("activation", "equal", "multiple"),
    [
        ("r = Relu (h)", True, True),
        ("r = LeakyRelu <alpha = 0.25> (h)", True, True),
        ("r = Abs (h)", True, True),
        ("r = Identity (h)", True, True),
        ("r = PRelu (h, same)", True, True),
        ("r = PRelu (h, slopes)", False, False),
        ("r = Sigmoid (h)", True, False),
        ("r = Clip (h, zero, six)", True, False),
        ("r = Tanh (h)", True, False),
        ("r = HardSwish (h)", True, False),
        ("r = Elu (h)", True, False),
        ("t = Add (h, three) r = Relu (t)", True, False),
        ("t = Add (h, same) r = Relu (t)", True, False),
        ("t = Add (h, slopes) r = Relu (t)", False, False),
        ("t = Mul (h, slopes) r = Relu (t)", False, False),
        ("r = Max (h, same)", True, False),
        ("r = Max (h, slopes)", False, False),
        ("t = Mul (h, h) r = Relu (t)", True, False),
        ("t = Relu (h) r = Add (h, t)", True, True),
        ("t = Sigmoid (h) r = Mul (h, t)", True, False),
        ("t = Sigmoid (x3) r = Mul (h, t)", False, False),
        ("r = Add (h, x3)", False, False),
        ("r = Mul (h, x1)", True, None),
        ("s = Softmax <axis = 1> (h) r = Relu (s)", False, False),
    ],
)
def test_what_the_activation_allows(activation: str, equal: bool, multiple: bool | None) -> None:
    inputs = "float[N,2] x, float[N,3] x3, float[N,1] x1"
    for tables, expected in ((EQUAL, equal), ({}, multiple)):
        model = dense(activation, inputs=inputs, same=[0.5, 0.5, 0.5], slopes=[0.5, 0.5, 0.25], **tables)
        done = run_pass(NAME, model, tolerance=1e-4)
        if expected is not None:  # None: allowed, and not asked for
            assert done.report.removed == ({"h": [2]} if expected else {})


@pytest.mark.parametrize(
    ("w1", "b1"),
    [
        ([[1, 2], [3, -1], [-1, -2]], [3, 1, -3]),
        ([[1, 2], [3, -1], [2, 4]], [3, 1, 5]),
        ([[1, 2], [3, -1], [2, 4]], [0, 1, 1]),
        ([[1, 2], [3, -1], [1, 2]], [3, 1, -3]),
        ([[1, 2], [3, -1], [1, 2.0000002]], [3, 1, 3]),
        ([[1, 2], [3, -1], [0, 2]], [3, 1, 3]),
        ([[0, 0], [3, -1], [0, 0]], [3, 1, 6]),
    ],
)
def test_rows_that_are_not_positive_multiples(w1: Any, b1: Any) -> None:
    unchanged(NAME, dense(w1=w1, b1=b1))


@pytest.mark.parametrize("bias", [0, 3])
def test_multiples_behind_a_matmul(bias: int) -> None:
    body = "h = MatMul (x, w1) r = Relu (h) y = Gemm <transB = 1> (r, w2, b2)"
    done = run_pass(NAME, net(body, w1=[[1, 3, 2], [2, -1, 4]], w2=[[1, 10, 5]], b2=[bias]))
    assert done.layer("h") == [[[1, 3], [2, -1]]]
    assert done.layer("y") == [[[11, 10]], [bias]]


CONV = "c = Conv <pads = [1, 1, 1, 1]> (x, k1, b1) r = Relu (c)"


def convolution(body: str, k1: Any, b1: Any, **tables: Any) -> ModelProto:
    return net(
        f"{CONV} {body}", "float[N,1,H,W] x, float[N,1,H,W] z", "float[N,a,b,c] y", k1=taps(k1, 3), b1=b1, **tables
    )


@pytest.mark.parametrize(
    ("body", "k2", "expected"),
    [
        ("y = Conv <pads = [1, 1, 1, 1]> (r, k2)", taps([[1, 2, 3]], 3), [[7, 2]]),
        ("y = ConvTranspose <strides = [2, 2]> (r, k2)", taps([[1], [2], [3]], 2), [[7], [2]]),
        ("m = MaxPool <kernel_shape = [2, 2], pads = [1, 1, 1, 1]> (r) y = Conv (m, k2)", taps([[1, 2, 3]]), [[7, 2]]),
        ("m = GlobalMaxPool (r) y = Conv (m, k2)", taps([[1, 2, 3]]), [[7, 2]]),
        (
            "m = Transpose <perm = [0, 2, 3, 1]> (r) y = MatMul (m, k2)",
            np.array([[1], [2], [3]], np.float32),
            [[7], [2]],
        ),
        ("m = Concat <axis = 1> (r, z) y = Conv (m, k2)", taps([[1, 2, 3, 4]]), [[7, 2, 4]]),
        ("m = Concat <axis = 1> (r, r) y = Conv (m, k2)", taps([[1, 2, 3, 4, 5, 6]]), [[7, 2, 16, 5]]),
        ("m = Gather <axis = 1> (r, i) y = Conv (m, k2)", taps([[1, 2, 3]]), [[2, 5]]),
        ("d = Conv <group = 3, pads = [1, 1, 1, 1]> (r, kd) y = Conv (d, k2)", taps([[1, 2, 3]]), [[7, 2]]),
    ],
)
def test_channels_are_followed(body: str, k2: Any, expected: Any) -> None:
    model = convolution(
        body, [[1], [3], [2]], [1, 0, 2], k2=k2, i=ints(2, 1, 0), kd=taps([[5], [6], [5]], 3)
    )  # fmt: skip
    done = run_pass(NAME, model)
    assert done.report.removed == {"c": [2]} | ({"d": [2]} if "group" in body else {})
    assert done.layer("y") == [expected]


def test_positions_of_a_flattened_channel_stay_apart() -> None:
    body = "c = Conv (x, k1, b1) r = Relu (c) m = Flatten (r) y = Gemm <transB = 1> (m, w)"
    model = net(body, "float[N,1,1,2] x", k1=taps([[1], [2]]), b1=[1, 2], w=[[1, 2, 3, 4]])
    assert run_pass(NAME, model).layer("y") == [[[7, 10]]]


@pytest.mark.parametrize(("second", "merged"), [([[5], [10]], True), ([[5], [5]], False), ([[5], [15]], False)])
def test_both_branches_of_a_sum_must_be_parallel(second: Any, merged: bool) -> None:
    model = convolution(
        "d = Conv (z, k2) m = Add (r, d) s = Relu (m) y = Conv (s, k3)", [[1], [2]], [1, 2],
        k2=taps(second), k3=taps([[1, 10]]),
    )  # fmt: skip
    done = run_pass(NAME, model)
    assert done.report.removed == ({"c": [1], "d": [1]} if merged else {})
    if merged:
        assert done.layer("y") == [[[21]]]


@pytest.mark.parametrize(
    ("kd", "bd", "factor", "merged"),
    [
        ([[5], [5]], [0, 0], 2, True),
        ([[5], [5]], [3, 3], 1, True),
        ([[5], [5]], [3, 3], 2, False),
        ([[5], [5]], [3, 4], 1, False),
        ([[5], [10]], [0, 0], 2, False),
        ([[5], [10]], [0, 0], 1, False),
    ],
)
def test_a_depthwise_layer_must_treat_both_alike(kd: Any, bd: Any, factor: int, merged: bool) -> None:
    model = convolution(
        "d = Conv <group = 2> (r, kd, bd) s = Relu (d) y = Conv (s, k2)", [[1], [factor]], [1, factor],
        kd=taps(kd, 1), bd=bd, k2=taps([[1, 10]]),
    )  # fmt: skip
    assert bool(run_pass(NAME, model).report.removed) == merged


@pytest.mark.parametrize(
    ("second", "factor", "merged"),
    [
        ([[1, 1], [1, 2]], 1, True),
        ([[2, 2], [2, 4]], 2, False),
        ([[1, 1], [1, 3]], 1, False),
    ],
)
def test_a_grouped_layer_scales_what_is_scaled_already(second: Any, factor: int, merged: bool) -> None:
    rows = [[1], [3]]
    model = convolution(
        "d = Conv <group = 2> (r, kd) s = Relu (d) y = Conv (s, k2)",
        [*rows, *(np.array(rows) * factor).tolist()], [1, 0, factor, 0],
        kd=taps([[1, 1], [1, 2], *second]), k2=taps([[1, 10, 100, 1000]]),
    )  # fmt: skip
    assert bool(run_pass(NAME, model).report.removed) == merged


@pytest.mark.parametrize("equal", [True, False])
def test_a_constant_joined_along_another_axis_is_not_scaled(equal: bool) -> None:
    factor = 1 if equal else 2
    model = convolution(
        "m = Concat <axis = 2> (r, border) y = Conv (m, k2)", [[1], [factor]], [1, factor],
        border=np.ones((1, 2, 1, 3), np.float32), k2=taps([[1, 10]]),
    )  # fmt: skip
    fixed = net("", "float[1,1,2,3] x, float[1,1,2,3] z", "float[a,b,c,d] y")
    del model.graph.input[:]
    model.graph.input.extend(fixed.graph.input)
    assert bool(run_pass(NAME, model).report.removed) == equal


def test_a_channel_that_takes_another_way_to_the_same_reader() -> None:
    """Gather brings both copies of a channel together, in the opposite order for the second channel."""
    model = convolution(
        "s = Sigmoid (r) m = Concat <axis = 1> (r, s) g = Gather <axis = 1> (m, i) y = Conv (g, k2)",
        [[1], [1]], [1, 1], i=ints(0, 2, 3, 1), k2=taps([[1, 10, 100, 1000]]),
    )  # fmt: skip
    done = run_pass(NAME, model, tolerance=1e-2)
    assert done.layer("y")[0] in ([[1 + 1000, 10 + 100]], [[1, 10, 100, 1000]])


def test_gated_channels_with_exchanged_roles() -> None:
    """p = (y0, y2) gates with q = (y3, y1): y0 = y1 and y2 = y3 do not make the products equal."""
    model = convolution(
        "p = Gather <axis = 1> (c, i) q = Gather <axis = 1> (c, j) s = Sigmoid (q) m = Mul (p, s) y = Conv (m, k2)",
        [[1], [1], [2], [2]], [1, 1, 0, 0], i=ints(0, 2), j=ints(3, 1), k2=taps([[1, 10]]),
    )  # fmt: skip
    unchanged_within(model)


def unchanged_within(model: ModelProto) -> None:
    assert not run_pass(NAME, model, tolerance=1e-2).report.modified


@pytest.mark.parametrize("outputs", ["float[N,1] y, float[N,3] r", "float[N,1] y, float[N,3] h"])
def test_units_that_are_outputs_stay(outputs: str) -> None:
    unchanged(NAME, dense(outputs=outputs))


def test_a_shared_reader_weight_is_merged_for_its_reader_only() -> None:
    body = f"{BODY} z = Gemm <transB = 1> (x3, w2, b2)"
    done = run_pass(NAME, dense(body=body, inputs="float[N,2] x, float[N,3] x3", outputs="float[N,1] y, float[N,1] z"))
    assert done.layer("y") == [[[11, 10]], [7]]
    assert done.layer("z") == [[[1, 10, 5]], [7]]


def test_protected_units_stay() -> None:
    assert not run_pass(NAME, dense(), protected={"h": frozenset({2})}).report.modified


def test_a_domain_is_not_needed() -> None:
    assert not run_pass(NAME, dense(), "0:1").report.needed_domain
