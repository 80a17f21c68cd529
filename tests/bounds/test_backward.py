"""Walks back through a graph: no bound is wrong by as little as a rounding error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune import parse_domain
from onnxprune.bounds import Bounds, interval_bounds, linear_bounds
from onnxprune.bounds.backward import Backward, Box, first_lines, second_lines
from onnxprune.bounds.linear import Effort
from onnxprune.bounds.static import StaticGraph, grain
from onnxprune.graph.graph import Graph
from onnxprune.operators.interval import Array
from onnxprune.samples import input_specs
from tests.bounds.exact import Exact, any_net, fractions, outside, run_exact, sample_shape, some_points
from tests.passes.support import ints, net

WIDTHS = (1.0, 1e-3, 1e-9, 0.0, 100.0)


def refuted(bounds: Bounds, values: dict[str, Exact]) -> list[str]:
    return outside(values, {n: bounds[n].lower for n in bounds}, {n: bounds[n].upper for n in bounds})


def check_bounds(seed: int, steps: int) -> None:
    model, rng = any_net(seed), np.random.default_rng(seed)
    low = float(rng.uniform(-1, 1))
    high = low + WIDTHS[seed % len(WIDTHS)]
    graph, box = Graph(model), parse_domain([f"{low!r}:{high!r}"], input_specs(model))
    found = linear_bounds(graph, box, Effort(steps=steps))
    rough = interval_bounds(graph, box)
    for x in some_points(rng, sample_shape(model), low, high):
        values = run_exact(model, x)
        assert refuted(rough, values) == []
        assert refuted(found, values) == []


@pytest.mark.parametrize("steps", [0, 8])
def test_bounds_hold_exactly(steps: int) -> None:
    for seed in range(120 if steps == 0 else 40):
        check_bounds(seed, steps)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 8])
def test_bounds_hold_exactly_on_many_nets(steps: int) -> None:
    for seed in range(200, 2200):
        check_bounds(seed, steps)
