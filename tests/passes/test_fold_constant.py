"""``fold_constant``: constants into biases, through every kind of graph."""

from __future__ import annotations

from math import erf, sqrt
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.passes.support import GELU, HARD_SWISH, ints, net, run_pass, settle, taps, unchanged, why
from tests.passes.test_fold_dense import FIRST, LAST, NAME, dense


def test_a_constant_unit_goes_into_the_bias() -> None:
    done = run_pass(NAME, dense())
    assert done.layer("h") == [[[1, 2], [3, -1]], [1, 0]]
    assert done.layer("y") == [[[1, 2], [4, 6]], [17, 14]]
    assert done.report.removed == {"h": [1]}
    assert (done.deviation, done.report.rounding, done.report.needed_domain) == (0, 0, False)


@pytest.mark.parametrize(
    ("activation", "bias", "value"),
    [
        ("r = Relu (h)", 3, 3.0),
        ("r = LeakyRelu <alpha = 0.5> (h)", -4, -2.0),
        ("r = Sigmoid (h)", 0, 0.5),
        ("r = Clip (h, zero, six)", 9, 6.0),
        ("r = HardSwish (h)", 3, 3.0),
        ("r = HardSwish (h)", -1.5, -0.375),
        (HARD_SWISH, 3, 3.0),
        (HARD_SWISH, -1.5, -0.375),
        (GELU, 1, (1 + erf(sqrt(0.5))) / 2),
        (GELU, -1, -(1 + erf(-sqrt(0.5))) / 2),
        ("r = Exp (h)", 0, 1.0),
        ("s = Sigmoid (h) r = Mul (h, s)", 0.5, 0.5 / (1 + np.exp(-0.5))),
    ],
)
def test_the_value_is_that_of_the_activation(activation: str, bias: float, value: float) -> None:
    model = dense(first=FIRST.replace("r = Relu (h)", activation), b1=[1, bias, 0])
    done = run_pass(NAME, model, tolerance=1e-4)
    assert done.report.removed == {"h": [1]}
    np.testing.assert_allclose(done.layer("y")[1], [7 + 5 * value, 8 + 3 * value], rtol=1e-6)
    assert 0 <= done.deviation < 1e-12
    assert done.report.rounding < 1e-6


def test_the_rounding_of_a_bias_is_stated() -> None:
    done = run_pass(NAME, dense(w2=[[1, 0.1, 2], [4, 3, 6]], b1=[1, 1, 0]), tolerance=1e-5)
    exact = 7 + np.float64(np.float32(0.1))
    assert done.report.rounding == abs(float(np.float32(exact)) - exact) > 0
    assert done.deviation == 0


CONV = "c = Conv (x, k1, b1) r = Relu (c)"
FOUR: dict[str, Any] = {"k1": taps([[1, 0], [0, 0], [0, 1], [0, 0]]), "b1": [1, 2, 0, 3]}
"""Channel 1 is 2 and channel 3 is 3 for every input."""


class Path(NamedTuple):
    """What lies between four channels, two of them constant, and the output; constants expected afterwards."""

    body: str
    expected: dict[str, list[Any]]
    tables: dict[str, Any]
    size: str = "H,W"
    tolerance: float = 0.0


ROW = taps([[1, 2, 3, 4]])
WIDE = [[1, 2, 3, 4, 5, 6, 7, 8]]
PATHS = {
    "convolution": Path("y = Conv (r, k2, b2)", {"y": [[[1, 3]], [116]]}, {"k2": taps([[1, 2, 3, 4]], 2), "b2": [52]}),
    "transposed convolution": Path(
        "y = ConvTranspose (r, k2)", {"y": [[[1], [3]], [16]]}, {"k2": taps([[1], [2], [3], [4]])},
    ),
    "Concat": Path(
        "d = Conv (x, k2, b2) s = Relu (d) m = Concat <axis = 1> (r, s) y = Conv (m, k3)",
        {"d": [[[1, 1]], [2]], "y": [[[1, 3, 5]], [22]]},
        {"k2": taps([[1, 1], [0, 0]]), "b2": [2, 1], "k3": taps([[1, 2, 3, 4, 5, 6]])},
    ),
    "Split": Path(
        "p, q = Split <axis = 1> (r, parts) a = Conv (p, k2) b = Conv (q, k3) y = Add (a, b)",
        {"p": [[1, 1]], "a": [[[5]]], "b": [[[3]], [16]]},
        {"parts": ints(1, 3), "k2": taps([[5]]), "k3": taps([[2, 3, 4]])},
    ),
    "Slice": Path(
        "m = Slice (r, i1, i4, i1) y = Conv (m, k2)",
        {"m": [[1], [2], [1]], "y": [[[3]], [16]]},
        {"i1": ints(1), "i4": ints(4), "k2": taps([[2, 3, 4]])},
    ),
    "Flatten": Path("m = Flatten (r) y = Gemm <transB = 1> (m, w)", {"y": [[[1, 2, 5, 6]], [59]]}, {"w": WIDE}, "1,2"),
    "Reshape": Path(
        "m = Reshape (r, shape) y = Gemm <transB = 1> (m, w)",
        {"m": [[0, -1]], "y": [[[1, 2, 5, 6]], [59]]},
        {"shape": ints(0, -1), "w": WIDE},
        "1,2",
    ),
    "Transpose": Path(
        "m = Transpose <perm = [0, 2, 3, 1]> (r) n = MatMul (m, w) y = Add (n, b2)",
        {"n": [[[1], [3]]], "y": [[18]]},
        {"w": [[1], [2], [3], [4]], "b2": [2]},
    ),
    "pooling": Path(
        "a = MaxPool <kernel_shape = [2, 2]> (r) m = GlobalAveragePool (a) y = Conv (m, k2)",
        {"y": [[[1, 3]], [16]]},
        {"k2": ROW},
        tolerance=1e-5,
    ),
    "depthwise": Path(
        "d = Conv <group = 4> (r, kd, bd) m = Relu (d) y = Conv (m, k2)",
        {"d": [[[1], [3]], [0, 0]], "y": [[[1, 3]], [38]]},
        {"kd": taps([[1], [2], [3], [4]]), "bd": [0, 1, 0, -5], "k2": ROW},
    ),
    "constant gate": Path(
        "p = GlobalAveragePool (r) q = Conv (p, kq) g = Conv (q, kg) s = Sigmoid (g) m = Mul (r, s) y = Conv (m, k2)",
        {"q": [[[1, 3]], [16]], "g": [[[5], [7]]], "y": [[[1, 3]], [8]]},
        {"kq": ROW, "kg": taps([[5], [0], [7], [0]]), "k2": ROW},
        tolerance=1e-3,
    ),
    "residual": Path(
        "d = Conv (x, k2, b2) s = Relu (d) m = Add (r, s) y = Conv (m, k3)",
        {"d": [[[1, 1], [3, 3]], [0, 0]], "y": [[[1, 3]], [14 + 48]]},
        {"k2": taps([[1, 1], [0, 0], [3, 3], [0, 0]]), "b2": [0, 5, 0, 9], "k3": ROW},
    ),
}  # fmt: skip


@pytest.mark.parametrize("path", [pytest.param(path, id=name) for name, path in PATHS.items()])
def test_constant_channels_are_followed(path: Path) -> None:
    output = "float[N,1] y" if "Gemm" in path.body else "float[N,a,b,c] y"
    model = net(f"{CONV} {path.body}", f"float[N,2,{path.size}] x", output, **FOUR, **path.tables)
    done = settle(NAME, model, tolerance=path.tolerance)
    assert {name: done.layer(name) for name in path.expected} == path.expected
    assert done.deviation < 1e-12


@pytest.mark.parametrize(("second", "removed"), [([5, -1], [1]), ([-1, 5], []), ([5, 5], [1])])
def test_an_index_of_a_sum_goes_when_all_branches_are_constant(second: list[int], removed: list[int]) -> None:
    rows = [[1, 1] if i else [0, 0] for i in (second[0] < 0, second[1] < 0)]
    model = net(
        "c = Conv (x, k1, b1) r = Relu (c) d = Conv (x, k2, b2) s = Relu (d) m = Add (r, s) y = Conv (m, k3)",
        "float[N,2,H,W] x", "float[N,1,H,W] y",
        k1=taps([[1, 2], [0, 0]]), b1=[0, 2], k2=taps([rows[1], rows[0]]), b2=[abs(b) for b in second[::-1]],
        k3=taps([[1, 10]]),
    )  # fmt: skip
    done = run_pass(NAME, model)
    assert done.report.removed == ({"c": removed, "d": removed} if removed else {})
    if removed:
        assert done.layer("y") == [[[1]], [10 * (2 + 5)]]


@pytest.mark.parametrize(
    "body",
    [
        "d = Conv <group = 4, pads = [1, 1, 1, 1]> (r, kd) y = Conv (d, k2)",
        "p = GlobalAveragePool (r) g = Conv (p, kg) s = Sigmoid (g) m = Mul (r, s) y = Conv (m, k2)",
        "m = Mul (r, x4) y = Conv (m, k2)",
        "m = Pad (r, edges) y = Conv (m, k2)",
        "m = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (r) y = Conv (m, k2)",
        "y = ConvTranspose <group = 4, strides = [2, 2]> (r, kt)",
    ],
)
def test_what_makes_a_constant_vary(body: str) -> None:
    model = net(
        f"{CONV} {body}", "float[N,2,H,W] x, float[N,4,H,W] x4", "float[N,a,b,c] y", **FOUR,
        kd=taps([[1], [2], [3], [4]], 3), k2=ROW, kg=taps([[1, 2, 3, 4]] * 4), edges=ints(0, 0, 1, 1, 0, 0, 1, 1),
        kt=taps([[1], [1], [1], [1]], 2),
    )  # fmt: skip
    unchanged(NAME, model)


@pytest.mark.parametrize("first", [[[1, 2], [0, 0], [3, -1]], [[1, 2], [-1, -1], [3, -1]]])
def test_constant_on_a_domain_only(first: list[list[float]]) -> None:
    model = dense("y = Clip (r, zero, one)", outputs="float[N,3] y")
    unchanged(NAME, model, "0:1")
    clipped = FIRST.replace("r = Relu (h)", "r = Clip (h, zero, one)")
    done = run_pass(NAME, dense(first=clipped, w1=first, b1=[0, 4, 0]), "0:1")
    assert (done.report.removed, done.report.needed_domain) == ({"h": [1]}, first[1] != [0, 0])


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_tiny_weights_are_constant_within_a_stated_deviation(bias: float) -> None:
    model = dense(w1=[[1, 2], [1e-31, 1e-31], [3, -1]], b1=[1, bias, 0])
    unchanged(NAME, model)
    done = run_pass(NAME, model, "0:1")
    assert done.report.removed == {"h": [1]}
    assert done.report.needed_domain
    assert list(done.report.deviations) == ["y"]
    assert 4.9e-31 < done.deviation < (1e-29 if bias == 0 else 1e-14)
    assert done.layer("y")[1] == [7 + 5 * bias, 8 + 3 * bias]


def test_batch_normalization_with_zero_gain() -> None:
    model = net(
        "c = Conv (x, k1) h = BatchNormalization (c, gain, shift, mean, spread) r = Relu (h) y = Conv (r, k2)",
        "float[N,1,H,W] x", "float[N,1,H,W] y",
        k1=taps([[1], [2]]), gain=[1, 0], shift=[0, 2], mean=[1, 2], spread=[1, 4], k2=taps([[1, 3]]),
    )  # fmt: skip
    done = run_pass(NAME, model, tolerance=1e-4)
    assert done.layer("h") == [[1], [0], [1], [1]]
    assert done.layer("y") == [[[1]], [6]]


def test_a_grouped_convolution_keeps_a_group_of_constants() -> None:
    model = net(
        f"{CONV} d = Conv <group = 2> (r, kd) m = Relu (d) y = Conv (m, k2)", "float[N,2,H,W] x", "float[N,1,H,W] y",
        k1=taps([[1, 1], [1, 2], [0, 0], [0, 0]]), b1=[0, 0, 2, 3], kd=taps([[1, 2], [3, 4], [5, 6], [7, 8]]), k2=ROW,
    )  # fmt: skip
    done = run_pass(NAME, model)
    assert done.attributes("d")["group"] == 1
    assert done.layer("y") == [[[1, 2]], [3 * (5 * 2 + 6 * 3) + 4 * (7 * 2 + 8 * 3)]]


def test_one_unit_stays_where_all_are_constant() -> None:
    done = settle(NAME, dense(w1=[[0, 0]] * 3, b1=[1, 2, 3]))
    assert done.layer("h") == [[[0, 0]], [1]]
    assert done.layer("y") == [[[1], [4]], [7 + 5 * 2 + 2 * 3, 8 + 3 * 2 + 6 * 3]]


@pytest.mark.parametrize(
    ("tail", "outputs", "reason"),
    [
        ("", "float[N,2] y, float[N,3] r", "graph output"),
        ("z = Softmax <axis = 1> (r)", "float[N,2] y, float[N,3] z", "Softmax: normalised over"),
        ("z = Mul (r, x3)", "float[N,2] y, float[N,3] z", "graph output"),
        ('s = Mul (r, x3) z = Einsum <equation = "ij->i"> (s)', "float[N,2] y, float[N] z", "Einsum is opaque"),
    ],
)
def test_what_keeps_a_constant_unit(tail: str, outputs: str, reason: str) -> None:
    model = dense(f"{LAST} {tail}", inputs="float[N,2] x, float[N,3] x3", outputs=outputs)
    assert why(model, "r", 1) == reason
    unchanged(NAME, model)


def test_protected_units_stay() -> None:
    assert not run_pass(NAME, dense(), protected={"h": frozenset({1})}).report.modified
