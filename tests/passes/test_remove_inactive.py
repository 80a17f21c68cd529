"""``remove_inactive``: units that output 0, through every kind of graph, and what keeps them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from onnx import ModelProto

import onnxprune
from tests.passes.support import GELU, HARD_SWISH, Done, ints, net, run_pass, settle, taps, unchanged, why

NAME = "remove_inactive"
DENSE = "h = Gemm <transB = 1> (x, w1, b1) r = Relu (h) y = Gemm <transB = 1> (r, w2, b2)"
TABLES: dict[str, Any] = {
    "w1": [[1, 2], [0, 0], [3, -1]], "b1": [1, -1, 0],
    "w2": [[1, 5, 2]], "b2": [7],
}  # fmt: skip


def dense(body: str = DENSE, **options: Any) -> ModelProto:
    return net(body, **{**TABLES, **options})


def test_a_dead_unit_goes_with_its_row_bias_and_column() -> None:
    done = run_pass(NAME, dense())
    assert done.layer("h") == [[[1, 2], [3, -1]], [1, 0]]
    assert done.layer("y") == [[[1, 2]], [7]]
    assert done.report.removed == {"h": [1]}
    assert (done.deviation, done.report.rounding, done.report.needed_domain) == (0, 0, False)
    assert done.names == {"w1", "b1", "w2", "b2"}


@pytest.mark.parametrize(
    ("activation", "bias", "dead"),
    [
        ("r = Relu (h)", 0, True),
        ("r = Relu (h)", -1, True),
        ("r = Relu (h)", 2, False),
        ("r = Identity (h)", 0, True),
        ("r = LeakyRelu (h)", 0, True),
        ("r = LeakyRelu (h)", -1, False),
        ("r = Sigmoid (h)", 0, False),
        ("r = Tanh (h)", 0, True),
        ("r = Clip (h, zero, six)", -1, True),
        ("r = Clip (h, zero, six)", 7, False),
        ("r = ThresholdedRelu <alpha = 2.0> (h)", 2, True),
        ("r = HardSwish (h)", -3, True),
        ("r = HardSwish (h)", -1, False),
        (HARD_SWISH, -4, True),
        (HARD_SWISH, -1, False),
        (GELU, 0, True),
        (GELU, -1, False),
        ("r = Elu (h)", 0, True),
        ("r = Softplus (h)", 0, False),
        ("r = HardSigmoid (h)", -3, True),
        ("t = Add (h, one) r = Relu (t)", -1, True),
        ("t = Sub (h, one) r = Relu (t)", 1, True),
        ("t = Sub (h, one) r = Relu (t)", 2, False),
    ],
)
def test_what_the_activation_makes_of_a_zero_row(activation: str, bias: float, dead: bool) -> None:
    model = dense(DENSE.replace("r = Relu (h)", activation), b1=[1, bias, 0])
    done = run_pass(NAME, model, tolerance=1e-5)
    assert done.report.removed == ({"h": [1]} if dead else {})


CONV = "c = Conv (x, k1, b1) r = Relu (c)"
FOUR: dict[str, Any] = {"k1": taps([[1, 0], [0, 0], [0, 1], [0, 0]]), "b1": [1, -1, 0, -2]}
"""Channels 1 and 3 are dead."""


class Path(NamedTuple):
    """What lies between four channels, two of them dead, and the output; constants expected afterwards."""

    body: str
    expected: dict[str, list[Any]]
    tables: dict[str, Any]
    size: str = "H,W"
    attributes: dict[str, dict[str, Any]] = {}  # noqa: RUF012 # never changed
    tolerance: float = 0.0


ROW = taps([[1, 2, 3, 4]])
PATHS = {
    "convolution": Path("y = Conv (r, k2)", {"y": [[[1, 3]]]}, {"k2": ROW}),
    "padded convolution": Path(
        "y = Conv <pads = [1, 1, 1, 1]> (r, k2, b2)",
        {"y": [[[1, 3]], [5]]},
        {"k2": taps([[1, 2, 3, 4]], 3), "b2": [5]},
    ),
    "transposed convolution": Path(
        "y = ConvTranspose <strides = [2, 2]> (r, k2)",
        {"y": [[[1], [3]]]},
        {"k2": taps([[1], [2], [3], [4]], 2)},
    ),
    "Concat": Path(
        "d = Conv (x, k2, b2) s = Relu (d) m = Concat <axis = 1> (r, s) y = Conv (m, k3)",
        {"y": [[[1, 3, 5]]], "d": [[[1, 1]], [2]]},
        {"k2": taps([[1, 1], [0, 0]]), "b2": [2, -1], "k3": taps([[1, 2, 3, 4, 5, 6]])},
    ),
    "Split": Path(
        "p, q = Split <axis = 1> (r, parts) a = Conv (p, k2) b = Conv (q, k3) y = Add (a, b)",
        {"p": [[1, 1]], "a": [[[5]]], "b": [[[3]]]},
        {"parts": ints(1, 3), "k2": taps([[5]]), "k3": taps([[2, 3, 4]])},
    ),
    "Slice": Path(
        "m = Slice (r, i1, i4, i1) y = Conv (m, k2)",
        {"m": [[1], [2], [1]], "y": [[[3]]]},
        {"i1": ints(1), "i4": ints(4), "k2": taps([[2, 3, 4]])},
    ),
    "Gather": Path(
        "m = Gather <axis = 1> (r, i) y = Conv (m, k2)",
        {"m": [[1, 0]], "y": [[[2, 4]]]},
        {"i": ints(3, 2, 1, 0), "k2": ROW},
    ),
    "Flatten": Path(
        "m = Flatten (r) y = Gemm <transB = 1> (m, w)",
        {"y": [[[1, 2, 5, 6]]]},
        {"w": [[1, 2, 3, 4, 5, 6, 7, 8]]},
        "1,2",
    ),
    "Reshape": Path(
        "m = Reshape (r, shape) y = Gemm <transB = 1> (m, w)",
        {"m": [[0, 4]], "y": [[[1, 2, 5, 6]]]},
        {"shape": ints(0, 8), "w": [[1, 2, 3, 4, 5, 6, 7, 8]]},
        "1,2",
    ),
    "Transpose": Path(
        "m = Transpose <perm = [0, 2, 3, 1]> (r) y = MatMul (m, w)",
        {"y": [[[1], [3]]]},
        {"w": [[1], [2], [3], [4]]},
    ),
    "Pad": Path(
        "m = Pad (r, deep) y = Conv (m, k2)",
        {"y": [[[1, 2, 4, 6]]]},
        {"deep": ints(0, 1, 0, 0, 0, 1, 0, 0), "k2": taps([[1, 2, 3, 4, 5, 6]])},
    ),
    "pooling": Path(
        "a = MaxPool <kernel_shape = [2, 2]> (r) m = GlobalAveragePool (a) y = Conv (m, k2)",
        {"y": [[[1, 3]]]},
        {"k2": ROW},
        tolerance=1e-5,
    ),
    "depthwise": Path(
        "d = Conv <group = 4, pads = [1, 1, 1, 1]> (r, kd, bd) m = Relu (d) y = Conv (m, k2)",
        {"d": [[[1], [3]], [0, 1]], "y": [[[1, 3]]]},
        {"kd": taps([[1], [2], [3], [4]], 3), "bd": [0, -1, 1, 0], "k2": ROW},
        attributes={"d": {"group": 2}},
    ),
    "squeeze and excite": Path(
        "p = GlobalAveragePool (r) q = Conv (p, kq) g = Conv (q, kg) s = Sigmoid (g) m = Mul (r, s) y = Conv (m, k2)",
        {"q": [[[1, 3]]], "g": [[[5], [7]]], "y": [[[1, 3]]]},
        {"kq": ROW, "kg": taps([[5], [6], [7], [8]]), "k2": ROW},
        tolerance=1e-4,
    ),
    "residual": Path(
        "d = Conv (x, k2, b2) s = Relu (d) m = Add (r, s) y = Conv (m, k3)",
        {"d": [[[1, 1], [3, 3], [0, 0]], [0, 0, 9]], "y": [[[1, 3, 4]]]},
        {"k2": taps([[1, 1], [0, 0], [3, 3], [0, 0]]), "b2": [0, -2, 0, 9], "k3": ROW},
    ),
}


@pytest.mark.parametrize("path", [pytest.param(path, id=name) for name, path in PATHS.items()])
def test_dead_channels_are_followed(path: Path) -> None:
    rank = 2 if "Gemm" in path.body else 4
    output = "float[N,1] y" if rank == 2 else "float[N,a,b,c] y"
    done = run_pass(
        NAME, net(f"{CONV} {path.body}", f"float[N,2,{path.size}] x", output, **FOUR, **path.tables),
        tolerance=path.tolerance,
    )  # fmt: skip
    assert {name: done.layer(name) for name in path.expected} == path.expected
    for name, expected in path.attributes.items():
        assert done.attributes(name).items() >= expected.items()
    assert not run_pass(NAME, done.model, tolerance=path.tolerance).report.modified


@pytest.mark.parametrize(("bias", "removed"), [([0, 5, 0, 0], [3]), ([0, 5, 0, 1], []), ([1, 0, 1, 0], [1, 3])])
def test_a_depthwise_bias_may_revive_a_channel(bias: list[float], removed: list[int]) -> None:
    body = f"{CONV} d = Conv <group = 4> (r, kd, bd) m = Relu (d) y = Conv (m, k2)"
    model = net(body, "float[N,2,H,W] x", "float[N,1,H,W] y", **FOUR, kd=taps([[1]] * 4), bd=bias, k2=ROW)
    assert run_pass(NAME, model).report.removed.get("c", []) == removed


@pytest.mark.parametrize(("dead", "group"), [((2, 3), 1), ((0, 1), 1), ((1, 2, 3), 1), ((3,), 2), ((1, 2), 2)])
def test_a_grouped_convolution_loses_whole_groups(dead: tuple[int, ...], group: int) -> None:
    rows = [[0, 0] if i in dead else [1, i] for i in range(4)]
    model = net(
        f"{CONV} d = Conv <group = 2> (r, kd) m = Relu (d) y = Conv (m, k2)",
        "float[N,2,H,W] x", "float[N,1,H,W] y",
        k1=taps(rows), b1=[0] * 4, kd=taps([[1, 2], [3, 4], [5, 6], [7, 8]]), k2=ROW,
    )  # fmt: skip
    done = run_pass(NAME, model)
    assert done.attributes("d")["group"] == group
    if group == 1:
        first = 0 if 0 not in dead else 2
        assert done.layer("c")[0] == rows[first : first + 2]
        assert done.layer("d") == [[[1, 2], [3, 4]] if first == 0 else [[5, 6], [7, 8]]]
        assert done.layer("y") == [[[1, 2]] if first == 0 else [[3, 4]]]


def test_batch_normalization_with_zero_gain() -> None:
    model = net(
        "c = Conv (x, k1) h = BatchNormalization (c, gain, shift, mean, spread) r = Relu (h) y = Conv (r, k2)",
        "float[N,1,H,W] x", "float[N,1,H,W] y",
        k1=taps([[1], [2], [3]]), gain=[1, 0, 0], shift=[1, -1, 2], mean=[1, 2, 3], spread=[1, 4, 9],
        k2=taps([[1, 2, 3]]),
    )  # fmt: skip
    done = run_pass(NAME, model, tolerance=1e-5)
    assert done.layer("c") == [[[1], [3]]]
    assert done.layer("h") == [[1, 0], [1, 2], [1, 3], [1, 9]]
    assert done.layer("y") == [[[1, 3]]]


@pytest.mark.parametrize(("weights", "bias", "dead"), [([-1, -1], -1, True), ([1, 1], -3, True), ([1, -1], -1, False)])
def test_on_a_domain_only(weights: list[float], bias: float, dead: bool) -> None:
    model = dense(w1=[[1, 2], weights, [3, -1]], b1=[1, bias, 0])
    done = run_pass(NAME, model, "0:1")
    assert (done.report.removed, done.report.needed_domain) == (({"h": [1]}, True) if dead else ({}, False))
    unchanged(NAME, model)


def test_a_dead_unit_needs_no_domain_even_if_there_is_one() -> None:
    assert not run_pass(NAME, dense(), "0:1").report.needed_domain


@pytest.mark.parametrize(
    ("tail", "outputs", "reason"),
    [
        ("", "float[N,1] y, float[N,3] r", "graph output"),
        ("z = Shape (r)", "float[N,1] y, int64[2] z", "its size is a graph output"),
        ("s = Shape (r) z = Cast <to = 1> (s)", "float[N,1] y, float[2] z", "Shape: its size is read by Shape"),
        ("z = Softmax <axis = 1> (r)", "float[N,1] y, float[N,3] z", "Softmax: normalised over"),
        ("s = Softmax <axis = 1> (r) z = Gemm <transB = 1> (s, w2)", "float[N,1] y, float[N,1] z",
         "Softmax: normalised over"),
        ("s = LayerNormalization (r, g) z = Gemm <transB = 1> (s, w2)", "float[N,1] y, float[N,1] z",
         "LayerNormalization: normalised over"),
        ("z = ReduceMean <axes = [1]> (r)", "float[N,1] y, float[N,1] z", "ReduceMean: reduced over"),
        ("i = ArgMax <axis = 1> (r) z = Cast <to = 1> (i)", "float[N,1] y, float[N,1] z",
         "ArgMax: its positions are the result"),
        ("s = CumSum (r, place) z = Gemm <transB = 1> (s, w2)", "float[N,1] y, float[N,1] z",
         "CumSum: summed up along it"),
        ("t = Transpose (r) z = MatMul (r, t)", "float[N,1] y, float[N,N] z", "MatMul is opaque"),
        ("""z = If (flag) <then_branch = yes () => (float[N,3] p) { p = Mul (r, r) },
                           else_branch = no () => (float[N,3] q) { q = Neg (x3) }>""",
         "float[N,1] y, float[N,3] z", "read by a sub-graph"),
    ],
)  # fmt: skip
def test_what_keeps_a_dead_unit(tail: str, outputs: str, reason: str) -> None:
    inputs = "float[N,2] x, float[N,3] x3, bool flag"
    model = dense(f"{DENSE} {tail}", inputs=inputs, outputs=outputs, place=np.array(1), g=[1, 1, 1])
    assert why(model, "r", 1) == reason
    unchanged(NAME, model)
    report = onnxprune.optimize(model, goal="size", passes=NAME).report
    assert report["layers"][0]["kept_because"] == {reason: 3}


def test_a_size_nobody_uses_does_not_keep_a_unit() -> None:
    body = f"{DENSE} s = Shape (r) n = Gather (s, first) z = Cast <to = 1> (n)"
    done = run_pass(NAME, dense(body, outputs="float[N,1] y, float z", first=np.array(0)))
    assert done.report.removed == {"h": [1]}


def test_protected_units_stay() -> None:
    report = run_pass(NAME, dense(), protected={"h": frozenset({1})}).report
    assert not report.modified


def test_one_unit_stays_where_all_are_dead() -> None:
    done = settle(NAME, dense(w1=[[0, 0]] * 3, b1=[-1, -2, 0]))
    assert done.layer("h") == [[[0, 0]], [-1]]
    assert done.layer("y") == [[[1]], [7]]


TWINS = """
    h = Gemm <transB = 1> (x, w1, b1) r = Relu (h) p = Gemm <transB = 1> (r, w2, b2)
    k = Gemm <transB = 1> (z, w1, b1) s = Relu (k) q = Gemm <transB = 1> (s, w2, b2) y = Sub (p, q)
"""


def twins(outputs: str) -> Done:
    return run_pass(NAME, dense(TWINS, inputs="float[N,2] x, float[N,2] z", outputs=outputs))


def test_shared_weights_stay_shared_where_all_readers_lose_the_same() -> None:
    done = twins("float[N,1] y")
    assert done.names == {"w1", "b1", "w2", "b2"}
    assert done.layer("h") == done.layer("k") == [[[1, 2], [3, -1]], [1, 0]]


def test_shared_weights_part_where_one_reader_keeps_its_unit() -> None:
    done = twins("float[N,1] y, float[N,3] s")
    assert done.layer("h") == [[[1, 2], [3, -1]], [1, 0]]
    assert done.layer("k") == [[[1, 2], [0, 0], [3, -1]], [1, -1, 0]]
    assert (done.layer("p"), done.layer("q")) == ([[[1, 2]], [7]], [[[1, 5, 2]], [7]])
    assert len(done.names) == 7
