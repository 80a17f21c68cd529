"""Optimised slopes: never worse, and right for every blend of lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune.bounds import linear_bounds
from onnxprune.bounds.backward import Backward
from onnxprune.bounds.linear import Effort
from onnxprune.bounds.slopes import _Blends
from onnxprune.bounds.static import StaticGraph
from onnxprune.domain import Domain
from onnxprune.domain.types import Box
from onnxprune.graph.graph import Graph
from tests.bounds.exact import any_net, in_range, outside, run_exact, sample_shape, some_points
from tests.passes.support import net


def check_any_blend(seed: int) -> None:
    """A walk with random shares of both lower lines, at every activation."""
    model, rng = any_net(seed), np.random.default_rng(seed)
    graph, domain = Graph(model), Domain({"x": Box(np.array(-1.0), np.array(1.0))})
    static, bounds = StaticGraph(graph), linear_bounds(graph, domain)
    flats = {name: static.flat(bounds, name) for name in bounds if static.is_float(name)}
    boxes = {name: (ends[0][None], ends[1][None]) for name, ends in flats.items() if ends is not None}
    name = graph.nodes[-1].outputs[0].name
    rows = np.concatenate([np.eye(2), -np.eye(2)])
    blends = _Blends(4)
    for tensor, (low, _) in boxes.items():
        for upper in (False, True):
            shares = rng.random((4, low.shape[1])) * rng.choice([0.0, 1e-17, 1.0], size=(4, low.shape[1]))
            blends.blend[tensor, upper] = shares
    walk = Backward.start(static, name, rows, boxes, blends)
    walk.run()
    below = walk.lower()[0]
    for x in some_points(rng, sample_shape(model), -1.0, 1.0):
        values = run_exact(model, x)
        if in_range(values):
            assert outside({name: values[name].reshape(-1)}, {name: below[:2]}, {name: -below[2:]}) == []


def test_every_blend_of_lines_is_a_bound() -> None:
    for seed in range(40):
        check_any_blend(seed)


@pytest.mark.slow
def test_every_blend_of_lines_is_a_bound_on_many_nets() -> None:
    for seed in range(40, 2000):
        check_any_blend(seed)


def test_optimised_slopes_are_never_worse() -> None:
    better = 0
    for seed in range(20):
        graph, domain = Graph(any_net(seed)), Domain({"x": Box(np.array(-1.0), np.array(1.0))})
        plain, found = linear_bounds(graph, domain), linear_bounds(graph, domain, Effort(steps=8))
        for name in plain:
            slack = 1e-12 * plain[name].magnitude()
            assert (found[name].lower >= plain[name].lower - slack).all()
            assert (found[name].upper <= plain[name].upper + slack).all()
            better += int((found[name].upper < plain[name].upper).sum())
    assert better > 0


def test_a_blend_beats_both_lines() -> None:
    """With 0 <= s <= 1: g = relu(u) + relu(-u) - u / 2 >= (s - t - 1/2) u, best where the slopes differ by 1/2."""
    body = "h = Gemm <transB=1> (x, w) r = Relu (h) g = Gemm <transB=1> (r, v, d) y = Relu (g)"
    tables: dict[str, Any] = {"w": [[1, 1], [-1, -1], [1, -1]], "v": [[1, 0.5, 1]], "d": [-0.1]}
    graph = Graph(net(body, "float[N,2] x", "float[N,1] y", **tables))
    domain = Domain({"x": Box(np.array(-1.0), np.array(1.0))})
    plain, found = linear_bounds(graph, domain)["g"], linear_bounds(graph, domain, Effort(steps=30))["g"]
    assert plain.lower.item() <= found.lower.item() <= -0.1
