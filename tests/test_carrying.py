"""Bounds that are carried along from pass to pass hold for the changed model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune import parse_domain
from onnxprune.bounds import Bounds, linear_bounds
from onnxprune.domain import Domain
from onnxprune.graph.graph import Graph
from onnxprune.pass_registry import select
from onnxprune.pipeline import Pipeline, Reduced
from onnxprune.samples import input_specs
from tests.bounds.test_interval_soundness import contradictions, evaluator_of, points, trace
from tests.nets import Builder, random_convnet, random_mlp

PASSES = (
    "remove_inactive fold_constant remove_unused merge_parallel merge_dependent collapse_linear drop_idle_activation"
)


def planted_net(seed: int) -> onnx.ModelProto:
    """Dense ReLU layers with dead, constant, parallel, active and dependent units."""
    rng = np.random.default_rng(seed)
    b = Builder(rng)
    x, width = "x", 3
    for _ in range(int(rng.integers(2, 4))):
        size = int(rng.integers(6, 12))
        weights, bias = rng.normal(size=(size, width)), rng.normal(size=size)
        weights[0] = 0.0
        weights[1], bias[1] = 1e-9 * weights[1], 0.7
        weights[3], bias[3] = weights[2] * 2.5, bias[2] * 2.5
        bias[4] = -50.0
        bias[5:] += 20.0 * (rng.random(size - 5) < 0.8)
        names = [b.weight(np.asarray(v, np.float32)) for v in (weights, bias)]
        x = b.node(str(rng.choice(["Relu", "Relu", "LeakyRelu"])), [b.node("Gemm", [x, *names], transB=1)])
        width = size
    return b.model("x", ["batch", 3], b.dense(x, width, 2))


def any_net(seed: int) -> onnx.ModelProto:
    return (planted_net, planted_net, random_mlp, random_convnet)[seed % 4](seed)


def check_seed(seed: int) -> int:
    """How many times bounds were carried."""
    model = any_net(seed)
    specs = input_specs(model)
    domain = parse_domain(["-1:1"], specs)
    pipeline = Pipeline(domain, None, lambda _: None)
    state = pipeline.run(Reduced(model), select("tidy"))
    state.known = linear_bounds(Graph(state.model), domain)
    shape = tuple(d if isinstance(d, int) else 1 for d in specs[0].shape or ())
    count = 0
    for _ in range(2):
        for name in PASSES.split():
            before = state.model
            state = pipeline.run(state, select(name))
            if state.model is not before and state.known is not None:
                count += 1
                check_known(state, domain, shape, seed)
            state.known = state.known or linear_bounds(Graph(state.model), domain)
    return count


def check_known(state: Reduced, domain: Domain, shape: tuple[int, ...], seed: int) -> None:
    assert state.known is not None
    known = Bounds(dict(state.known))
    rng, evaluator = np.random.default_rng(seed), evaluator_of(state.model)
    for x in points(rng, shape, -1.0, 1.0):
        values = trace(evaluator, x)
        assert contradictions(known, {name: v for name, v in values.items() if name in state.known}) == []
    assert domain.restricts


def test_bounds_hold_after_every_pass() -> None:
    assert sum(check_seed(seed) for seed in range(7)) > 5


@pytest.mark.slow
def test_bounds_hold_after_every_pass_on_many_nets() -> None:
    for seed in range(7, 600):
        check_seed(seed)
