"""Sub-boxes: they cover the box, and each bound holds on its own sub-box."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.bounds import Bounds, linear_bounds
from onnxprune.bounds.split import Leaves, Splitter, Target
from onnxprune.bounds.static import StaticGraph
from onnxprune.domain import Domain
from onnxprune.domain.types import Box
from onnxprune.graph.graph import Graph
from onnxprune.operators.interval import Array
from tests.bounds.exact import any_net, in_range, outside, run_exact, sample_shape
from tests.passes.support import net


def split(model: onnx.ModelProto, low: float, high: float, most: int = 8) -> tuple[Leaves, Bounds]:
    """Split for all pre-activations of a model."""
    graph, domain = Graph(model), Domain({"x": Box(np.array(low), np.array(high))})
    static, bounds = StaticGraph(graph), linear_bounds(graph, domain)
    flats = {name: static.flat(bounds, name) for name in bounds if static.is_float(name)}
    boxes = {name: (ends[0][None], ends[1][None]) for name, ends in flats.items() if ends is not None}
    targets = []
    for node in graph.nodes:
        if node.op in ("Gemm", "Conv"):
            ends = boxes[node.outputs[0].name]
            every = np.arange(ends[0].shape[1])
            targets.append(Target(node.outputs[0].name, ends[0][0], ends[1][0], every, every))
    low_ends, high_ends = boxes["x"]
    splitter = Splitter(static, "x", (low_ends[0], high_ends[0]), targets, boxes)
    return splitter.run(most, lambda: False), bounds


def inside(leaves: Leaves, x: Array) -> list[int]:
    flat = x.reshape(-1)
    return [k for k in range(leaves.count) if (leaves.low[k] <= flat).all() and (flat <= leaves.high[k]).all()]


def check_seed(seed: int) -> int:
    model, rng = any_net(seed), np.random.default_rng(seed)
    low = float(rng.uniform(-1, 1))
    high = low + (1.0, 1e-9, 3.0)[seed % 3]
    leaves, _ = split(model, low, high)
    shape = sample_shape(model)
    points = [np.clip(rng.uniform(low, high, shape), low, high), rng.choice([low, high], size=shape)]
    points += [leaves.low[-1].reshape(shape), leaves.high[-1].reshape(shape), leaves.high[0].reshape(shape)]
    for x in points:
        at, values = inside(leaves, x), run_exact(model, x)
        assert at, "no sub-box holds this point"
        if not in_range(values):
            continue
        own = {name: v.reshape(-1) for name, v in values.items() if name in leaves.ends}
        for leaf in at:
            ends = [{n: leaves.ends[n][side][leaf] for n in own} for side in (0, 1)]
            assert outside(own, *ends) == []
        hulls = {n: leaves.hull(n) for n in own}
        assert outside(own, {n: h[0] for n, h in hulls.items()}, {n: h[1] for n, h in hulls.items()}) == []
    return leaves.count


def test_sub_boxes_cover_the_box_and_bounds_hold_in_each() -> None:
    assert sum(check_seed(seed) for seed in range(25)) > 60


@pytest.mark.slow
def test_sub_boxes_of_many_nets() -> None:
    for seed in range(25, 1000):
        check_seed(seed)


def test_splitting_proves_what_one_box_does_not() -> None:
    """|x| - 5/4 is never positive, 3/4 - |x| ranges from -1/4 to 3/4: sub-boxes come close to both."""
    body = "h = Gemm <transB=1> (x, w) r = Relu (h) g = Gemm <transB=1> (r, v, d) y = Relu (g)"
    tables: dict[str, Any] = {"w": [[1], [-1]], "v": [[1, 1], [-1, -1]], "d": [-1.25, 0.75]}
    leaves, bounds = split(net(body, "float[N,1] x", "float[N,2] y", **tables), -1, 1, 16)
    low, high = leaves.hull("g")
    assert (bounds["g"].upper <= [[0, 1]]).any()
    np.testing.assert_allclose(high, [-0.25, 0.75], atol=0.2)
    np.testing.assert_allclose(low, [-1.25, -0.25], atol=0.2)
