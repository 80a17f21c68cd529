"""Which nodes XNNPACK takes, case by case from what ONNX Runtime documents."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.mobile.providers import usability
from onnxprune.mobile.xnnpack import XnnpackOperators
from tests.helpers import parse

IMAGE = "float[N,4,8,8] x"
OPEN = "float[N,4,H,W] x"
OUT = "float[N,C,HH,WW] y"
KERNEL: dict[str, Any] = {"w": np.ones((4, 4, 3, 3), np.float32), "b": np.ones(4, np.float32)}
MATRIX: dict[str, Any] = {"w": np.ones((4, 3), np.float32), "b": np.ones(3, np.float32)}


def taken(model: onnx.ModelProto, *, fixed: bool = False) -> list[bool]:
    inferred = onnx.shape_inference.infer_shapes(model)
    operators = XnnpackOperators(inferred, fixed=fixed)
    return [operators.is_op_supported(node) for node in inferred.graph.node]


@pytest.mark.parametrize(
    ("body", "inputs", "expected"),
    [
        ("y = Conv (x, w, b)", IMAGE, [True]),
        ("y = Conv (x, w, b)", OPEN, [False]),
        ("y = Conv (x, w, b)", "float16[N,4,8,8] x", [False]),
        ('y = Conv <auto_pad = "SAME_UPPER"> (x, w)', IMAGE, [True]),
        ('y = Conv <auto_pad = "SAME_LOWER"> (x, w)', IMAGE, [False]),
        ("v = Relu (w) y = Conv (x, v)", IMAGE, [False, False]),
        ("y = ConvTranspose (x, w, b)", IMAGE, [True]),
        ("c = Conv (x, w, b) y = Relu (c)", IMAGE, [True, True]),
        ("c = Conv (x, w, b) r = Relu (c) y = Add (r, c)", IMAGE, [True, False, False]),
        ("c = Conv (x, w, b) y = Clip (c, low)", IMAGE, [True, True]),
        ("y = Relu (x)", IMAGE, [False]),
        ("y = MaxPool <kernel_shape = [2, 2]> (x)", IMAGE, [True]),
        ("y = MaxPool <kernel_shape = [1, 1]> (x)", IMAGE, [False]),
        ("y = MaxPool <kernel_shape = [2, 2], ceil_mode = 1> (x)", IMAGE, [False]),
        ("y, places = MaxPool <kernel_shape = [2, 2]> (x)", IMAGE, [False]),
        ("y = AveragePool <kernel_shape = [2, 2]> (x)", IMAGE, [True]),
        ("y = AveragePool <kernel_shape = [2, 2], count_include_pad = 1> (x)", IMAGE, [False]),
        ("y = MaxPool <kernel_shape = [2]> (x)", "float[N,4,8] x", [False]),
        ("y = Softmax <axis = -1> (x)", IMAGE, [True]),
        ("y = Softmax <axis = 1> (x)", IMAGE, [False]),
        ('y = Resize <mode = "linear"> (x, , twice)', IMAGE, [True]),
        ("y = Resize (x, , twice)", IMAGE, [False]),
    ],
)
def test_images(body: str, inputs: str, expected: list[bool]) -> None:
    constants = {**KERNEL, "low": np.float32(0), "twice": np.array([1, 1, 2, 2], np.float32)}
    model = parse(body, inputs=inputs, outputs=OUT)
    used = {name for node in model.graph.node for name in node.input}
    model = parse(body, inputs=inputs, outputs=OUT, weights={k: v for k, v in constants.items() if k in used})
    assert taken(model) == expected


@pytest.mark.parametrize(
    ("body", "inputs", "expected"),
    [
        ("y = Gemm (x, w, b)", "float[N,4] x", [True]),
        ("y = Gemm <alpha = 2.0> (x, w, b)", "float[N,4] x", [False]),
        ("y = MatMul (x, w)", "float[N,4] x", [True]),
        ("y = MatMul (x, w)", "float[N,5,4] x", [True]),
        ("y = MatMul (x, w)", "float[N,2,5,4] x", [False]),
        ("y = MatMul (x, x)", "float[4,4] x", [False]),
    ],
)
def test_matrices(body: str, inputs: str, expected: list[bool]) -> None:
    assert taken(parse(body, inputs=inputs, weights=MATRIX)) == expected


def test_open_sizes_are_forgiven_where_asked_for() -> None:
    model = parse("c = Conv (x, w, b) y = Relu (c)", inputs=OPEN, outputs=OUT, weights=KERNEL)
    assert taken(model, fixed=True) == [True, True]
    counts = usability(model)["xnnpack"]
    assert (counts["taken"], counts["taken_if_fixed"], counts["partitions_if_fixed"]) == (0, 2, 1)


def test_operators_of_other_domains_are_not_meant() -> None:
    body = "y = com.microsoft.Softmax (x)"
    model = parse(body, inputs=IMAGE, outputs=OUT, imports=', "com.microsoft": 1')
    assert taken(model) == [False]
