"""``remove_unused``: units whose outgoing weights are all zero, whatever they output."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import ModelProto

from tests.passes.support import ints, net, run_pass, settle, taps, unchanged, why

NAME = "remove_unused"
BODY = "h = Gemm <transB = 1> (x, w1, b1) r = Relu (h) y = Gemm <transB = 1> (r, w2, b2)"
TABLES: dict[str, Any] = {"w1": [[1, 2], [3, 4], [5, 6]], "b1": [1, 2, 3], "w2": [[1, 0, 2]], "b2": [7]}


def dense(body: str = BODY, **options: Any) -> ModelProto:
    return net(body, **{**TABLES, **options})


def test_an_unread_unit_goes() -> None:
    done = run_pass(NAME, dense())
    assert done.layer("h") == [[[1, 2], [5, 6]], [1, 3]]
    assert done.layer("y") == [[[1, 2]], [7]]
    assert done.report.removed == {"h": [1]}
    assert (done.deviation, done.report.rounding, done.report.needed_domain) == (0, 0, False)


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "Tanh", "Exp", "HardSwish", "Identity", "Softplus"])
def test_the_activation_does_not_matter(activation: str) -> None:
    done = run_pass(NAME, dense(BODY.replace("Relu", activation)), tolerance=1e-5)
    assert done.report.removed == {"h": [1]}


@pytest.mark.parametrize(
    ("second", "removed"), [([[9, 0, 9]], [1]), ([[9, -0.0, 9]], [1]), ([[9, 1e-30, 9]], []), ([[0, 1, 0]], [])]
)
def test_every_reader_must_give_it_zero(second: list[list[float]], removed: list[int]) -> None:
    body = f"{BODY} z = Gemm <transB = 1> (r, w3)"
    done = run_pass(NAME, dense(body, outputs="float[N,1] y, float[N,1] z", w3=second))
    assert done.report.removed.get("h", []) == removed


@pytest.mark.parametrize(
    ("body", "tables", "removed"),
    [
        ("y = Conv <pads = [1, 1, 1, 1]> (r, k2)", {"k2": taps([[1, 0, 2, 0]], 3)}, [1, 3]),
        ("y = ConvTranspose (r, k2)", {"k2": taps([[1], [0], [2], [0]], 3)}, [1, 3]),
        ("m = Slice (r, i1, i3, i1) y = Conv (m, k2)", {"i1": ints(1), "i3": ints(3), "k2": taps([[1, 2]])}, [0, 3]),
        ("m = Gather <axis = 1> (r, i) y = Conv (m, k2)", {"i": ints(2, 0), "k2": taps([[1, 0]])}, [0, 1, 3]),
        ("m = Concat <axis = 1> (r, r) y = Conv (m, k2)", {"k2": taps([[1, 0, 0, 0, 2, 0, 3, 0]])}, [1, 3]),
        ("p, q = Split <axis = 1> (r) m = Mul (p, q) y = Conv (m, k2)", {"k2": taps([[0, 5]])}, [0, 2]),
        (
            "d = Conv <group = 4, pads = [1, 1, 1, 1]> (r, kd) y = Conv (d, k2)",
            {"kd": taps([[1], [2], [3], [4]], 3), "k2": taps([[1, 0, 0, 2]])},
            [1, 2],
        ),
        (
            "d = Conv <group = 4> (r, kd) y = Conv (d, k2)",
            {"kd": taps([[1], [0], [1], [1]]), "k2": taps([[1] * 4])},
            [],
        ),
    ],
)
def test_channels_are_followed(body: str, tables: dict[str, Any], removed: list[int]) -> None:
    model = net(
        f"c = Conv (x, k1, b1) r = Relu (c) {body}", "float[N,2,H,W] x", "float[N,a,b,c] y",
        k1=taps([[1, 0], [2, 1], [0, 1], [1, 1]]), b1=[1, 2, 3, 4], **tables,
    )  # fmt: skip
    done = settle(NAME, model)
    assert done.report.removed.get("c", []) == removed
    assert len(done.layer("c")[1]) == 4 - len(removed)


def test_a_unit_read_by_unread_units_goes_next() -> None:
    body = BODY.replace(
        "y = Gemm <transB = 1> (r,", "k = Gemm <transB = 1> (r, w3) s = Relu (k) y = Gemm <transB = 1> (s,"
    )
    done = settle(NAME, dense(body, w3=[[1, 0, 1], [1, 1, 1], [0, 0, 1]]))
    assert done.layer("k") == [[[1, 1], [0, 1]]]
    assert done.layer("h") == [[[1, 2], [5, 6]], [1, 3]]


def test_one_unit_stays_where_nobody_reads_any() -> None:
    done = settle(NAME, dense(w2=[[0, 0, 0]]))
    assert done.layer("h") == [[[1, 2]], [1]]
    assert done.layer("y") == [[[0]], [7]]


@pytest.mark.parametrize(
    ("tail", "outputs", "reason"),
    [
        ("", "float[N,1] y, float[N,3] r", "graph output"),
        ("s = Softmax <axis = 1> (r) z = Gemm <transB = 1> (s, w2)", "float[N,1] y, float[N,1] z",
         "Softmax: normalised over"),
        ("z = MatMul (u, r)", "float[N,1] y, float[N,3] z", "MatMul is opaque"),
    ],
)  # fmt: skip
def test_what_keeps_an_unread_unit(tail: str, outputs: str, reason: str) -> None:
    model = dense(f"{BODY} {tail}", inputs="float[N,2] x, float[N,N] u", outputs=outputs)
    assert why(model, "r", 1) == reason
    unchanged(NAME, model)


def test_protected_units_stay() -> None:
    assert not run_pass(NAME, dense(), protected={"h": frozenset({1})}).report.modified
