"""``fold_constant``: every way of writing a dense layer and its bias; the model here also serves other tests."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import ModelProto

from tests.passes.support import net, run_pass, unchanged

NAME = "fold_constant"
FIRST = "h = Gemm <transB = 1> (x, w1, b1) r = Relu (h)"
LAST = "y = Gemm <transB = 1> (r, w2, b2)"
TABLES: dict[str, Any] = {
    "w1": [[1, 2], [0, 0], [3, -1]], "b1": [1, 2, 0],
    "w2": [[1, 5, 2], [4, 3, 6]], "b2": [7, 8],
    "w2t": [[1, 4], [5, 3], [2, 6]], "scalar": 7, "row": [[7, 8]],
}  # fmt: skip
"""Unit 1 is 2 for every input."""


def dense(last: str = LAST, first: str = FIRST, **options: Any) -> ModelProto:
    options.setdefault("outputs", "float[N,2] y")
    return net(f"{first} {last}", **{**TABLES, **options})


KEPT, KEPT_T = [[1, 2], [4, 6]], [[1, 4], [2, 6]]


@pytest.mark.parametrize(
    ("last", "expected", "attributes"),
    [
        ("y = Gemm <transB = 1, alpha = 2.0> (r, w2, b2)", [KEPT, [27, 20]], {"alpha": 2.0, "transB": 1}),
        ("y = Gemm <transB = 1, beta = 3.0> (r, w2, b2)", [KEPT, [31, 30]], {"transB": 1}),
        ("y = Gemm <alpha = 2.0, beta = 3.0> (r, w2t, b2)", [KEPT_T, [41, 36]], {"alpha": 2.0}),
        ("y = Gemm <transB = 1> (r, w2)", [KEPT, [10, 6]], {"transB": 1}),
        ("y = Gemm <transB = 1> (r, w2, scalar)", [KEPT, [17, 13]], {"transB": 1}),
        ("y = Gemm <transB = 1> (r, w2, row)", [KEPT, [17, 14]], {"transB": 1}),
        ("y = Gemm (r, w2t, b2)", [KEPT_T, [17, 14]], {}),
    ],
)
def test_forms_of_gemm(last: str, expected: list[Any], attributes: dict[str, Any]) -> None:
    done = run_pass(NAME, dense(last))
    assert done.layer("y") == expected
    assert done.attributes("y") == attributes


MATMULS = [
    ("y = MatMul (r, w2t)", [10, 6], 1),
    ("t = MatMul (r, w2t) y = Add (t, b2)", [17, 14], 1),
    ("t = MatMul (r, w2t) y = Add (b2, t)", [17, 14], 1),
    ("t = MatMul (r, w2t) y = Add (t, row)", [10, 6], 2),
    ("t = MatMul (r, w2t) y = Add (t, scalar)", [10, 6], 2),
    ("t = MatMul (r, w2t) y = Add (t, t)", [10, 6], 2),
]


@pytest.mark.parametrize(("last", "bias", "adds"), MATMULS)
def test_forms_of_matmul(last: str, bias: list[float], adds: int) -> None:
    first = "h = MatMul (x, w1t) u = Add (h, b1) r = Relu (u)"
    done = run_pass(NAME, dense(
        last, first, inputs="float[N,H,2] x", outputs="float[N,H,2] y", w1t=[[1, 0, 3], [2, 0, -1]]
    ))  # fmt: skip
    product = [node for node in done.model.graph.node if node.op_type == "MatMul"][1]
    assert done.layer(product.output[0]) == [KEPT_T]
    (add,) = [node for node in done.model.graph.node if node.op_type == "Add" and product.output[0] in node.input]
    assert done.layer(add.output[0]) == [bias]
    assert done.ops.count("Add") == 1 + adds


@pytest.mark.parametrize("last", [last for last, _, _ in MATMULS])
def test_a_matmul_of_matrices_becomes_a_gemm(last: str) -> None:
    done = run_pass(NAME, dense(last))
    assert "MatMul" not in done.ops
    assert done.layer("t" if "t =" in last else "y") == [KEPT_T, [10, 6]]
    assert done.ops.count("Add") == last.count("Add")


def test_a_product_that_is_an_output_keeps_its_name() -> None:
    done = run_pass(NAME, dense("t = MatMul (r, w2t) y = Add (t, b2)", outputs="float[N,2] y, float[N,2] t"))
    assert done.layer("t") == [KEPT_T, [10, 6]]
    assert done.layer("y") == [[7, 8]]


def test_an_addition_of_another_domain_is_no_bias() -> None:
    functions = '<domain: "local", opset_import: ["": 17]> Add (a, b) => (c) { c = Sub (a, b) }'
    done = run_pass(NAME, dense(
        "t = MatMul (r, w2t) y = local.Add (t, b2)", inputs="float[N,H,2] x", outputs="float[N,H,2] y",
        first="h = MatMul (x, w1t) u = Add (h, b1) r = Relu (u)", w1t=[[1, 0, 3], [2, 0, -1]], functions=functions,
    ))  # fmt: skip
    assert done.layer("y") == [[7, 8]]
    assert done.layer("t") == [[10, 6]]


def test_a_computed_bias_takes_nothing_over() -> None:
    model = dense("y = Gemm <transB = 1> (r, w2, c)", inputs="float[N,2] x, float[2] c")
    unchanged(NAME, model)


def test_a_shared_bias_is_cut_for_one_reader_only() -> None:
    done = run_pass(NAME, dense("t = Gemm <transB = 1> (r, w2, b2) y = Add (t, b2)"))
    assert done.layer("t") == [[[1, 2], [4, 6]], [17, 14]]
    assert done.layer("y") == [[7, 8]]
