"""No execution may leave the interval bounds, beyond its own rounding error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from onnxprune import Domain, parse_domain
from onnxprune.bounds import Bounds, interval_bounds
from onnxprune.graph.graph import Graph
from onnxprune.samples import input_specs
from tests.nets import random_convnet, random_mlp

SEEDS = st.integers(0, 2**31)


class Erf(OpRun):
    """The reference evaluator's own rounds to float32."""

    def _run(self, x: NDArray[Any]) -> tuple[NDArray[Any]]:
        return (np.vectorize(math.erf, otypes=[np.float64])(x),)


def evaluator_of(model: onnx.ModelProto) -> ReferenceEvaluator:
    return ReferenceEvaluator(in_float64(model), new_ops=[Erf])


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network with every float32 weight, input and intermediate in float64; all tensors are outputs."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for value in wide.graph.input:
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    nodes = [part for node in wide.graph.node for part in _exact(node)]
    del wide.graph.value_info[:], wide.graph.output[:], wide.graph.node[:]
    wide.graph.node.extend(nodes)
    for name, number in (("six", 6.0), ("half", 0.5), ("zero", 0.0), ("one", 1.0)):
        wide.graph.initializer.append(onnx.numpy_helper.from_array(np.array(number), name))
    for node in wide.graph.node:
        for name in node.output:
            wide.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, None))
    return wide


def _exact(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """HardSwish in its own nodes: the reference evaluator rounds 1/6 to float32."""
    if node.op_type != "HardSwish":
        return [node]
    x, y, make = node.input[0], node.output[0], onnx.helper.make_node
    return [
        make("Div", [x, "six"], [f"{y}_a"]),
        make("Add", [f"{y}_a", "half"], [f"{y}_b"]),
        make("Clip", [f"{y}_b", "zero", "one"], [f"{y}_c"]),
        make("Mul", [x, f"{y}_c"], [y]),
    ]


def trace(evaluator: ReferenceEvaluator, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    with np.errstate(all="ignore"):
        return dict(zip(evaluator.output_names, evaluator.run(None, {"x": x}), strict=True))


def contradictions(bounds: Bounds, values: dict[str, NDArray[Any]]) -> list[str]:
    found = []
    for name, value in values.items():
        known = bounds[name]
        slack = 1e-11 * np.maximum(1.0, np.abs(value))
        low = np.broadcast_to(known.lower, value.shape)
        high = np.broadcast_to(known.upper, value.shape)
        bad = (value < low - slack) | (value > high + slack)
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            found.append(f"{name}{at}: {value[at]!r} not in [{low[at]!r}, {high[at]!r}]")
    return found


def points(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> list[NDArray[np.float64]]:
    if np.float32(low) == np.float32(high):  # a fixed input of a float32 model is a float32
        low = high = float(np.float32(low))
    inside = [rng.uniform(low, high, size=shape) for _ in range(2)]
    corners = [rng.choice([low, high], size=shape) for _ in range(2)]
    return [*inside, *corners, np.full(shape, low), np.full(shape, high)]


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, low=st.floats(-2, 1), width=st.floats(0, 2))
def test_conv_nets(seed: int, low: float, width: float) -> None:
    model = random_convnet(seed)
    box = parse_domain([f"{low!r}:{low + width!r}"], input_specs(model))
    bounds = interval_bounds(Graph(model), box)
    evaluator = evaluator_of(model)
    for x in points(np.random.default_rng(seed), (1, 3, 8, 8), low, low + width):
        assert contradictions(bounds, trace(evaluator, x)) == []


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_bounds_of_dynamic_nets_hold_at_every_size(seed: int) -> None:
    model = random_convnet(seed, dynamic=True)
    bounds = interval_bounds(Graph(model), parse_domain(["-1:1"], input_specs(model)))
    evaluator = evaluator_of(model)
    rng = np.random.default_rng(seed)
    for shape in ((1, 3, 1, 1), (2, 3, 4, 7), (1, 3, 9, 2)):
        for x in points(rng, shape, -1.0, 1.0)[::2]:
            assert contradictions(bounds, trace(evaluator, x)) == []


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_bounds_at_every_position(seed: int) -> None:
    """A box that differs from pixel to pixel, most pixels fixed."""
    model = random_convnet(seed)
    rng = np.random.default_rng(seed)
    center = rng.uniform(-1, 1, size=(1, 3, 8, 8))
    radius = np.where(rng.random(center.shape) < 0.7, 0.0, 0.05)
    from onnxprune import around  # noqa: PLC0415 # only here

    box = around(center, 0.05, input_specs(model))
    bounds = interval_bounds(Graph(model), box)
    evaluator = evaluator_of(model)
    for sign in (-1.0, 0.0, 1.0):
        assert contradictions(bounds, trace(evaluator, center + sign * radius)) == []


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, scale=st.sampled_from([1e-30, 1.0, 1e6]))
def test_dense_nets_without_a_domain(seed: int, scale: float) -> None:
    model = random_mlp(seed)
    width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    bounds = interval_bounds(Graph(model), Domain.everything())
    evaluator = evaluator_of(model)
    x = np.random.default_rng(seed).normal(size=(16, width)) * scale
    assert contradictions(bounds, trace(evaluator, x)) == []


@pytest.mark.parametrize(
    ("weights", "bias", "low", "high"),
    [
        ([[1.0, -1.0]], [0.0], -1.0, 1.0),
        ([[2.0, 0.0]], [-0.5], -0.5, 1.5),
        ([[0.0, 0.0]], [0.25], 0.25, 0.25),
        ([[0.0, 0.0]], [0.0], 0.0, 0.0),
    ],
)
def test_dense_layer_over_a_box_is_exact(
    weights: list[list[float]], bias: list[float], low: float, high: float
) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[n,2] x) => (float[n,1] y) { y = Gemm <transB = 1> (x, w, b) }'
    )
    for name, values in (("w", weights), ("b", bias)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values, np.float32), name))
    bounds = interval_bounds(Graph(model), parse_domain(["0:1"], input_specs(model)))["y"]
    assert bounds.lower.item() <= low
    assert bounds.upper.item() >= high
    assert bounds.lower.item() == pytest.approx(low, abs=1e-14)
    assert bounds.upper.item() == pytest.approx(high, abs=1e-14)
    if low == high:
        assert bounds.lower.item() == bounds.upper.item() == low
