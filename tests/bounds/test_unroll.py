"""Rows of a network as blocks, against values in rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.bounds import interval_bounds
from onnxprune.bounds.static import StaticGraph
from onnxprune.bounds.unroll import Unrolled, unroll
from onnxprune.domain import Domain
from onnxprune.domain.types import Box
from onnxprune.graph.graph import Graph
from tests.bounds.exact import Exact, any_net, in_range, run_exact, sample_shape, some_points
from tests.passes.support import net


def unrolled(model: onnx.ModelProto, low: float, high: float) -> Unrolled:
    graph, domain = Graph(model), Domain({"x": Box(np.array(low), np.array(high))})
    found = unroll(StaticGraph(graph), domain, interval_bounds(graph, domain))
    assert found is not None
    return found


def check_rows(found: Unrolled, values: dict[str, Exact]) -> int:
    """Every row and every bound of every block; how many rows there were."""
    columns, count = list(values["x"].reshape(-1)), 0
    for block, place in zip(found.network.blocks, found.places, strict=True):
        if place is None:
            columns += list(values[block.name].reshape(-1))
            continue
        assert block.weights.shape[1] <= len(columns)
        entries = [v - Fraction(float(k)) for v, k in zip(values[place.tensor].reshape(-1), place.knot, strict=True)]
        table = block.weights.toarray()
        for unit, g in enumerate(entries):
            row = [Fraction(float(w)) * c for w, c in zip(table[unit], columns, strict=False) if w]
            gap = abs(sum(row, Fraction(float(block.bias[unit]))) - g)
            assert gap <= Fraction(float(block.slack[unit])), (block.name, unit, float(gap), block.slack[unit])
            assert Fraction(float(block.low[unit])) <= g <= Fraction(float(block.high[unit]))
        columns += [max(g, Fraction(0)) for g in entries]
        count += len(entries)
    return count


def check_seed(seed: int) -> int:
    model, rng = any_net(seed), np.random.default_rng(seed)
    low = float(rng.uniform(-1, 1))
    high = low + (1.0, 1e-6, 30.0)[seed % 3]
    found, count = unrolled(model, low, high), 0
    for x in some_points(rng, sample_shape(model), low, high):
        values = run_exact(model, x)
        count += check_rows(found, values) if in_range(values) else 0
    return count


def test_rows_are_as_exact_as_they_say() -> None:
    assert sum(check_seed(seed) for seed in range(40)) > 500


@pytest.mark.slow
def test_rows_of_many_nets() -> None:
    for seed in range(40, 1500):
        check_seed(seed)


def test_two_activations_with_knots_of_their_own() -> None:
    """Blocks of one tensor have different names."""
    body = """
        h = Gemm <transB=1> (x, w) a = Relu (h) c = Max (h, one)
        d = Clip (h, zero, six) q = Concat <axis=1> (a, c, d) y = Gemm <transB=1> (q, v)
    """
    model = net(body, "float[N,2] x", "float[N,1] y", w=[[1, 2], [3, -1]], v=[[1.0] * 6])
    found = unrolled(model, -1, 1)
    assert [block.name for block in found.network.blocks] == ["h", "h#1", "h#2", "h#3"]
    assert [p.knot.tolist() for p in found.places if p is not None] == [[0, 0], [1, 1], [0, 0], [6, 6]]


def test_a_bend_that_was_rounded_to_one_is_not_exact() -> None:
    """1 - 1e-20 is 1 in float64, so that the second unit's row is off by what it says."""
    body = "h = Gemm <transB=1> (x, w) a = LeakyRelu <alpha = 1e-20> (h) y = Relu (a)"
    model = net(body, "float[N,1] x", "float[N,1] y", w=[[1]])
    found = unrolled(model, -1, 1)
    for x in (-1.0, 0.5, 1.0):
        check_rows(found, run_exact(model, np.array([[x]])))


def test_units_without_slack() -> None:
    """Small whole numbers: rows are exact, so that a solver gets equations."""
    body = "h = Gemm <transB=1> (x, w, b) r = Relu (h) g = Gemm <transB=1> (r, v, d) y = Relu (g)"
    tables: dict[str, Any] = {"w": [[1, 2], [3, -1]], "b": [1, -0.5], "v": [[1, -1], [2, 4]], "d": [0.25, 0]}
    found = unrolled(net(body, "float[N,2] x", "float[N,2] y", **tables), -1, 1)
    assert [block.slack.tolist() for block in found.network.blocks] == [[0, 0], [0, 0]]
