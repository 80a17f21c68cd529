"""Walks back through a graph: no bound is wrong by as little as a rounding error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune.bounds import Bounds, interval_bounds, linear_bounds
from onnxprune.bounds.backward import Backward, first_lines, second_lines
from onnxprune.bounds.linear import Effort
from onnxprune.bounds.static import StaticGraph, grain
from onnxprune.domain import Domain
from onnxprune.domain.types import Box
from onnxprune.graph.graph import Graph
from onnxprune.operators.interval import Array
from tests.bounds.exact import Exact, any_net, in_range, outside, run_exact, sample_shape, some_points
from tests.passes.support import ints, net

WIDTHS = (1.0, 1e-3, 1e-9, 0.0, 100.0)


def box_of(low: float, high: float) -> Domain:
    """Without the rounding to the input's type that texts get."""
    return Domain({"x": Box(np.array(low), np.array(high))})


def refuted(bounds: Bounds, values: dict[str, Exact]) -> list[str]:
    return outside(values, {n: bounds[n].lower for n in bounds}, {n: bounds[n].upper for n in bounds})


def check_bounds(seed: int, steps: int) -> None:
    model, rng = any_net(seed), np.random.default_rng(seed)
    low = float(rng.uniform(-1, 1))
    high = low + WIDTHS[seed % len(WIDTHS)]
    graph, box = Graph(model), box_of(low, high)
    found = linear_bounds(graph, box, Effort(steps=steps))
    rough = interval_bounds(graph, box)
    for x in some_points(rng, sample_shape(model), low, high):
        values = run_exact(model, x)
        if in_range(values):
            assert refuted(rough, values) == []
            assert refuted(found, values) == []


@pytest.mark.parametrize("steps", [0, 8])
def test_bounds_hold_exactly(steps: int) -> None:
    for seed in range(60 if steps == 0 else 20):
        check_bounds(seed, steps)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 8])
def test_bounds_hold_exactly_on_many_nets(steps: int) -> None:
    for seed in range(200, 2200):
        check_bounds(seed, steps)


Tables = dict[str, Any]
Ends = tuple[Array, Array]


def walked(model: Any, tensor: str, rows: Any, boxes: dict[str, Ends]) -> Array:
    """Lower bounds of functionals of a tensor."""
    walk = Backward.start(StaticGraph(Graph(model)), tensor, np.array(rows, dtype=np.float64), boxes)
    walk.run()
    return np.asarray(walk.lower())


def boxed(low: Any, high: Any) -> Ends:
    return np.atleast_2d(np.array(low, dtype=np.float64)), np.atleast_2d(np.array(high, dtype=np.float64))


def test_coefficients_that_cancel_behind_maxima() -> None:
    """The middle entry wins in three windows with weights 2**53, 1, -2**53: its coefficient is 1, not 0."""
    body = """
        p = MaxPool <kernel_shape=[3], pads=[1, 1]> (x) f = Reshape (p, s)
        g = Gemm <transB = 1> (f, w) y = Relu (g)
    """
    model = net(body, "float[N,1,3] x", "float[N,1] y", s=ints(0, 3), w=[[2.0**53, 1, -(2.0**53)]])
    box = boxed([-1, 5, -1], [1, 7, 1])
    boxes = {"x": box, "p": boxed([5, 5, 5], [7, 7, 7]), "f": boxed([5, 5, 5], [7, 7, 7])}
    assert walked(model, "g", [[1.0]], boxes).item() <= 5
    assert walked(model, "g", [[-1.0]], boxes).item() <= -7


def test_padding_is_never_the_largest_entry() -> None:
    """Nothing is known about the second entry; the window sees only it and padding, not the first one."""
    body = """
        p = MaxPool <kernel_shape=[2], pads=[0, 1], strides=[1]> (x) f = Reshape (p, s)
        g = Gemm <transB = 1> (f, w) y = Relu (g)
    """
    model = net(body, "float[N,1,2] x", "float[N,1] y", s=ints(0, 2), w=[[0, 1]])
    boxes = {"x": boxed([5, -np.inf], [7, 7]), "p": boxed([5, -np.inf], [7, 7]), "f": boxed([5, -np.inf], [7, 7])}
    assert walked(model, "g", [[1.0]], boxes).item() == -np.inf


def test_an_extreme_over_the_batch_is_not_that_of_a_sample() -> None:
    """x + (1 - x) is 1 in every sample, but the largest of both over the batch may add up to 2."""
    body = """
        h = Gemm <transB=1> (x, w, b) r = Relu (h) m = ReduceMax <axes = [0]> (r)
        g = Gemm <transB=1> (m, v, d) y = Relu (g)
    """
    tables: Tables = {"w": [[1], [-1]], "b": [0, 1], "v": [[1, 1]], "d": [-1.5]}
    model = net(body, "float[N,1] x", "float[1,1] y", **tables)
    assert linear_bounds(Graph(model), box_of(0, 1))["g"].upper.item() >= 0.5


def test_a_bound_is_rounded_down_when_its_error_is_taken_off() -> None:
    walk = Backward.start(StaticGraph(Graph(any_net(1))), "x", np.ones((1, 1)), {})
    walk.open.clear()
    walk.total, walk.error = np.ones((1, 1)), np.full((1, 1), 1e-30)
    assert walk.lower().item() < 1


def test_equal_units_cancel_exactly() -> None:
    """relu(u) - relu(u) is 0 to the last bit, with weights that are no small multiples of one another."""
    body = (
        "h = Gemm <transB=1> (x, w, b) r = Relu (h) d = Gemm <transB=1> (r, v) g = Gemm <transB=1> (d, u) y = Relu (g)"
    )
    row = [0.1, -0.7, 0.3]
    tables: Tables = {"w": [row, row], "b": [0.2, 0.2], "v": [[1, -1]], "u": [[1]]}
    model = net(body, "float[N,3] x", "float[N,1] y", **tables)
    stable = Domain({"x": Box(np.full((1, 3), 0.1), np.array([[0.2, 0.1, 0.2]]))})
    found = linear_bounds(Graph(model), stable)["g"]
    assert (found.lower.item(), found.upper.item()) == (0, 0)


def test_a_shift_that_was_rounded_is_not_exact() -> None:
    """0.1 times 0.1 is no float64: the bias that beta scales lies between its neighbours."""
    body = "h = Gemm <transB=1, beta=0.1> (x, w, b) r = Relu (h) g = Gemm <transB=1> (r, v) y = Relu (g)"
    tables: Tables = {name: np.array(v) for name, v in {"w": [[1.0]], "b": [0.1], "v": [[1.0]]}.items()}
    model = net(body, "double[N,1] x", "double[N,1] y", **tables)
    net_of = StaticGraph(Graph(model))
    assert net_of.grain(net_of.graph.nodes[0]) == (0, 0)


def test_two_boxes_at_once_are_two_walks() -> None:
    for seed in range(6):
        model, rng = any_net(seed), np.random.default_rng(seed)
        graph = Graph(model)
        whole = interval_bounds(graph, box_of(-1, 1))
        static = StaticGraph(graph)
        name = graph.nodes[-1].outputs[0].name
        shared = {n: static.flat(whole, n) for n in whole if static.is_float(n)}
        boxes = {n: (b[0][None], b[1][None]) for n, b in shared.items() if b is not None}
        size = static.size("x") or 0
        middle = rng.uniform(-1, 1, size)
        parts = [(np.full(size, -1.0), middle), (middle, np.full(size, 1.0))]
        rows = np.concatenate([np.eye(2), -np.eye(2)])
        for lines in (first_lines, second_lines):
            alone = []
            for low, high in parts:
                walk = Backward.start(static, name, rows, {**boxes, "x": (low[None], high[None])}, lines)
                walk.run()
                alone.append(walk.lower()[0])
            both = {**boxes, "x": (np.array([parts[0][0], parts[1][0]]), np.array([parts[0][1], parts[1][1]]))}
            walk = Backward.start(static, name, rows, both, lines)
            walk.run()
            np.testing.assert_allclose(walk.lower(), alone, rtol=1e-12, atol=1e-300)


def test_grains() -> None:
    assert grain(np.array([0.75, -6.0])) == 0.25
    assert grain(np.array([0.0])) == 1
    assert grain(np.array([1e-200])) == 0
    assert grain(np.array([2.0**-300, 1.0])) == 2.0**-300
    assert grain(np.array([np.nextafter(1.0, 2)])) == 2.0**-52
