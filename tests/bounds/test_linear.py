"""Backward linear bounds: never refuted by execution, never wider than intervals, right by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune import parse_domain
from onnxprune.bounds import interval_bounds, linear_bounds
from onnxprune.graph.graph import Graph
from onnxprune.samples import input_specs
from tests.bounds.test_interval_soundness import contradictions, evaluator_of, trace
from tests.nets import Builder, random_mlp
from tests.passes.support import net

SEEDS = st.integers(0, 2**31)


def deep_net(seed: int) -> onnx.ModelProto:
    """Dense ReLU layers with residual sums, subtractions and a reshape in between; large and tiny weights."""
    rng = np.random.default_rng(seed)
    b = Builder(rng)
    width, first = int(rng.integers(2, 6)), int(rng.integers(1, 5))
    x = b.dense("x", first, width)
    for _ in range(int(rng.integers(1, 5))):
        h = b.node("Relu", [x])
        kind = rng.integers(4)
        if kind == 0:
            x = b.node("Add", [b.dense(h, width, width), h])
        elif kind == 1:
            x = b.node("Sub", [b.dense(h, width, width), b.dense(h, width, width)])
        elif kind == 2:
            folded = b.node("Reshape", [h, b.weight(np.array([0, 1, -1]), "s")])
            x = b.dense(b.node("Squeeze", [folded, b.weight(np.array([1]), "a")]), width, width)
        else:
            scale = float(rng.choice([1e-6, 1.0, 1e6]))
            w = b.planted((width, width), scale=scale)
            x = b.node("Gemm", [h, b.weight(w), b.weight(b.bias(width), "b")], transB=1)
    return b.model("x", ["batch", first], b.dense(b.node("Relu", [x]), width, 2))


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, low=st.floats(-2, 1), width=st.floats(1e-6, 2), other=st.booleans())
def test_no_execution_leaves_the_bounds(seed: int, low: float, width: float, other: bool) -> None:
    model = random_mlp(seed) if other else deep_net(seed)
    size = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    box = parse_domain([f"{low!r}:{low + width!r}"], input_specs(model))
    graph = Graph(model)
    linear, interval = linear_bounds(graph, box), interval_bounds(graph, box)
    rng = np.random.default_rng(seed)
    inside = rng.uniform(low, low + width, size=(40, size))
    corners = rng.choice([low, low + width], size=(40, size))
    assert contradictions(linear, trace(evaluator_of(model), np.concatenate([inside, corners]))) == []
    for name in linear:
        assert (linear[name].lower >= interval[name].lower).all()
        assert (linear[name].upper <= interval[name].upper).all()


@pytest.mark.parametrize(("low", "high", "expected"), [(-1, 1, 0.0), (0, 1, 0.0), (-1, 0, 0.0)])
def test_units_that_cancel(low: int, high: int, expected: float) -> None:
    """relu(x) - relu(x) is 0 where the units are stable, which intervals cannot see."""
    body = "h = Gemm <transB = 1> (x, w) r = Relu (h) g = Gemm <transB = 1> (r, v) y = Relu (g)"
    model = net(body, "float[N,1] x", "float[N,1] y", w=[[1], [1]], v=[[1, -1]])
    bounds = linear_bounds(Graph(model), parse_domain([f"{low}:{high}"], input_specs(model)))["g"]
    slack = 1.0 + 1e-9 if low < 0 < high else 1e-12
    assert bounds.upper.item() <= expected + slack
    assert bounds.lower.item() >= expected - slack


def test_a_stable_layer_is_exact() -> None:
    """g = (x + 3) - (x + 1) = 2 wherever both units are active."""
    body = "h = Gemm <transB = 1> (x, w, b) r = Relu (h) g = Gemm <transB = 1> (r, v) y = Relu (g)"
    tables: dict[str, Any] = {"w": [[1], [1]], "b": [3, 1], "v": [[1, -1], [-1, 1]]}
    model = net(body, "float[N,1] x", "float[N,2] y", **tables)
    box = parse_domain(["-1:1"], input_specs(model))
    found, rough = linear_bounds(Graph(model), box)["g"], interval_bounds(Graph(model), box)["g"]
    np.testing.assert_allclose(found.lower, [[2, -2]], atol=1e-12)
    np.testing.assert_allclose(found.upper, [[2, -2]], atol=1e-12)
    assert rough.lower.min() == pytest.approx(-4)
