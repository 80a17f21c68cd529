"""``freeze_features``: inputs that the domain fixes, or that nobody weighs, leave the first layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from onnxprune.domain import Box, Domain
from tests.passes.support import ints, net, run_pass, unchanged

NAME = "freeze_features"
TABLES: dict[str, Any] = {
    "w": [[1, 2, 3, 4], [5, 6, 7, 8], [9, 8, 7, 6]], "b": [1, 2, 3],
    "wt": [[1, 5, 9], [2, 6, 8], [3, 7, 7], [4, 8, 6]],
}  # fmt: skip
KEPT = [[1, 3], [5, 7], [9, 7]]
KEPT_T = [[1, 5, 9], [3, 7, 7]]


def dense(body: str = "y = Gemm <transB = 1> (x, w, b)", **options: Any) -> ModelProto:
    options = {"inputs": "float[N,4] x", "outputs": "float[N,3] y", **TABLES, **options}
    return net(body, **options)


def box(lower: Sequence[float], upper: Sequence[float], rank: int = 2) -> Domain:
    ends = [np.array(end, np.float64).reshape((1,) * (rank - 1) + (-1,)) for end in (lower, upper)]
    return Domain({"x": Box(*ends)})


FIXED = box([0, 10, 0, 100], [1, 10, 1, 100])
"""Features 1 and 3 are 10 and 100."""


@pytest.mark.parametrize(
    ("body", "weights", "bias"),
    [
        ("y = Gemm <transB = 1> (x, w, b)", KEPT, [421, 862, 683]),
        ("y = Gemm (x, wt, b)", KEPT_T, [421, 862, 683]),
        ("y = Gemm <alpha = 2.0> (x, wt, b)", KEPT_T, [841, 1722, 1363]),
        ("y = Gemm <transB = 1, beta = 3.0> (x, w, b)", KEPT, [423, 866, 689]),
        ("y = Gemm <transB = 1> (x, w)", KEPT, [420, 860, 680]),
    ],
)
def test_a_gemm(body: str, weights: Any, bias: Any) -> None:
    done = run_pass(NAME, dense(body), FIXED, tolerance=1e-3)
    assert done.ops == ["Gather", "Gemm"]
    assert done.layer("y") == [weights, bias]
    gather = done.model.graph.node[0]
    assert gather.input[0] == "x"
    assert done.layer(gather.output[0]) == [[0, 2]]
    assert done.report.needed_domain
    assert (done.deviation, done.report.rounding) == (0, 0)
    assert done.report.changes == {"inputs frozen": 2}
    assert not run_pass(NAME, done.model, FIXED, tolerance=1e-3).report.modified


MATMULS = ["y = MatMul (x, wt)", "t = MatMul (x, wt) y = Add (t, b)"]


@pytest.mark.parametrize(("body", "bias"), [(MATMULS[0], [420, 860, 680]), (MATMULS[1], [421, 862, 683])])
def test_a_matmul(body: str, bias: Any) -> None:
    model = dense(body, inputs="float[N,H,4] x", outputs="float[N,H,3] y")
    done = run_pass(NAME, model, box([0, 10, 0, 100], [1, 10, 1, 100], 3), tolerance=1e-3)
    assert done.ops == ["Gather", "MatMul", "Add"]
    assert done.layer("y") == [bias]
    assert done.layer(done.node("y").input[0]) == [KEPT_T]


@pytest.mark.parametrize("body", MATMULS)
def test_a_matmul_of_matrices_becomes_a_gemm(body: str) -> None:
    done = run_pass(NAME, dense(body), FIXED, tolerance=1e-3)
    assert done.ops == ["Gather", "Gemm", *["Add"] * body.count("Add")]
    assert done.layer("t" if "Add" in body else "y") == [KEPT_T, [420, 860, 680]]


def test_columns_of_zeros_need_no_domain() -> None:
    done = run_pass(NAME, dense(w=[[1, 0, 3, 0], [5, 0, 7, 0], [9, 0, 7, 0]]))
    assert done.layer("y") == [KEPT, [1, 2, 3]]
    assert not done.report.needed_domain


def test_a_zero_column_on_a_domain_needs_no_domain() -> None:
    assert not run_pass(NAME, dense(w=[[1, 0, 3, 0], [5, 0, 7, 0], [9, 0, 7, 0]]), "0:1").report.needed_domain


def test_without_a_domain_nothing_is_fixed() -> None:
    unchanged(NAME, dense())
    unchanged(NAME, dense(), "0:1")


@pytest.mark.parametrize(
    ("features", "fixed", "frozen"), [(20, 1, False), (20, 2, True), (10, 1, True), (11, 1, False)]
)
def test_it_must_be_worth_an_extra_node(features: int, fixed: int, frozen: bool) -> None:
    lower, upper = np.zeros(features), np.ones(features)
    lower[:fixed] = upper[:fixed] = 2
    outputs = 30
    weights = np.ones((outputs, features), np.float32)
    model = dense(inputs=f"float[N,{features}] x", outputs=f"float[N,{outputs}] y", w=weights, b=[0] * outputs)
    done = run_pass(NAME, model, box(lower.tolist(), upper.tolist()), tolerance=1e-3)
    assert done.report.modified == frozen


def test_a_layer_with_few_outputs_does_not_pay() -> None:
    model = dense(outputs="float[N,1] y", w=[[1, 2, 3, 4]], b=[1])
    unchanged(NAME, model, box([0, 10, 0, 0], [1, 10, 1, 1]))


def test_one_feature_stays_where_all_are_fixed() -> None:
    done = run_pass(NAME, dense(), box([1, 10, 5, 100], [1, 10, 5, 100]), tolerance=1e-3)
    assert done.layer("y") == [[[1], [5], [9]], [1 + 435, 2 + 895, 3 + 715]]
    assert done.layer(done.node("y").input[0]) == [[0]]


@pytest.mark.parametrize("shared", [True, False])
def test_every_layer_that_reads_the_input(shared: bool) -> None:
    body = f"p = Gemm <transB = 1> (x, w, b) q = Gemm <transB = 1> (x, {'w' if shared else 'v'}, c) y = Sub (p, q)"
    done = run_pass(NAME, dense(body, c=[3, 2, 1], v=[[4, 3, 2, 1]] * 3), FIXED, tolerance=1e-3)
    assert done.layer("p") == [KEPT, [421, 862, 683]]
    assert done.layer("q")[0] == (KEPT if shared else [[4, 2]] * 3)
    assert done.report.changes == {"inputs frozen": 4}


def test_another_reader_still_sees_every_feature() -> None:
    done = run_pass(NAME, dense("p = Gemm <transB = 1> (x, w, b) q = ReduceSum (x, axes) y = Add (p, q)", axes=ints(1)),
                    FIXED, tolerance=1e-3)  # fmt: skip
    assert done.node("q").input[0] == "x"


def test_an_image_that_is_flattened() -> None:
    body = "f = Flatten (x) y = Gemm <transB = 1> (f, w, b)"
    ends = [np.array(v, np.float64).reshape(1, 2, 2, 1) for v in ([0, 10, 0, 100], [1, 10, 1, 100])]
    done = run_pass(NAME, dense(body, inputs="float[N,2,2,1] x"), Domain({"x": Box(*ends)}), tolerance=1e-3)
    assert done.ops == ["Flatten", "Gather", "Gemm"]
    assert done.layer("y") == [KEPT, [421, 862, 683]]


def test_units_of_hidden_layers_are_left_to_other_passes() -> None:
    body = "h = Gemm <transB = 1> (x, w1) r = Relu (h) y = Gemm <transB = 1> (r, w, b)"
    unchanged(NAME, dense(body, w1=[[1, 1, 1, 1], [0, 0, 0, 0], [1, 2, 1, 2], [0, 0, 0, 0]]), "0:1")
