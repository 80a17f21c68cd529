"""What follows for rows from what they are in the optimized model."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.verify.forms import Form
from onnxprune.verify.forward import Forward
from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval
from onnxprune.verify.sides import Side
from onnxprune.verify.terms import Term
from onnxprune.verify.worth import bounded, cancelled
from tests.helpers import parse
from tests.verify.support import case

LAYERS = "a = Gemm <transB = 1> (x, w1, b1) r = Relu (a) y = Gemm <transB = 1> (r, w2, b2)"


def model(seed: int, width: int = 5) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (width, 2), "b1": (width,), "w2": (1, width), "b2": (1,)}
    return parse(
        LAYERS,
        "float[1,2] x",
        "float[1,1] y",
        {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
    )


def side(proto: onnx.ModelProto, *, exact: bool = False) -> Side:
    net = Network.of(proto)
    box = Interval.of(np.array(-1.0), np.array(1.0), exact=exact)
    return Side(net, Forward(net, {"x": box}, exact).run(), exact)


def rows(weights: list[list[float]], *, exact: bool, off: float = 0.0) -> Form:
    """Sums of what the activation gives, and a shift that is known up to 1/4."""
    table = np.array(weights)
    count, width = table.shape
    term = Term.of(np.arange(count), Interval.point(table, exact=exact), None, width)
    shift = Interval.of(np.full(count, -0.25), np.full(count, 0.25), exact=exact)
    zero = np.zeros(count)
    return Form(1, {("r", None): term}, shift, zero + 0.25, zero + off, zero)


@pytest.mark.parametrize("exact", [False, True])
@given(seed=st.integers(0, 10_000), off=st.sampled_from([0.0, 0.5]))
@settings(max_examples=30, deadline=None)
def test_bounds_hold_at_all_points(exact: bool, seed: int, off: float) -> None:
    proto = model(seed)
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(3, 5)).round(3)
    low, high = bounded(rows(weights.tolist(), exact=exact, off=off), side(proto, exact=exact)).floats()
    w1, b1 = (onnx.numpy_helper.to_array(tensor).astype(np.float64) for tensor in proto.graph.initializer[:2])
    corners = [[a, b] for a in (-1, 1) for b in (-1, 1)]
    points = np.vstack([rng.uniform(-1, 1, (500, 2)), corners])
    values = np.maximum(points @ w1.T + b1, 0) @ weights.T
    assert (low <= values.min(axis=0) - 0.25 - off).all()
    assert (high >= values.max(axis=0) + 0.25 + off).all()


def test_walks_back_are_tighter_than_intervals() -> None:
    """The difference of relu(x) and relu(-x) is x: as wide as x, where intervals say twice as much."""
    tables = {"w1": [[1, 0], [-1, 0]], "b1": [0, 0], "w2": [[1, -1]], "b2": [0]}
    arrays = {name: np.array(values, np.float32) for name, values in tables.items()}
    after = side(parse(LAYERS, "float[1,2] x", "float[1,1] y", arrays))
    low, high = bounded(rows([[1.0, -1.0]], exact=False), after).floats()
    assert low == pytest.approx([-1.25])
    assert high == pytest.approx([1.25])
    low, high = bounded(rows([[1.0, 1.0]], exact=False), after).floats()
    assert high == pytest.approx([1.25])  # |x|
    assert low >= -1.25


def test_what_cancels() -> None:
    form = rows([[1.0, 0.0], [1e-12, 0.0], [0.0, 0.0]], exact=False)
    term = form.terms["r", None]
    heavy = Term(term.rows, term.weights, None, np.ones((3, 2)), 2)
    found = cancelled(Form(1, {("r", None): heavy}, form.shift, form.size, form.deviation, form.rounding))
    assert found.tolist() == [False, True, True]
    assert cancelled(form).tolist() == [False, False, False]  # nothing was added up: it is what it is


def minima(seed: int) -> onnx.ModelProto:
    """Minima of pairs of linear functions, some of them the same: min(p, q) = (p + q - |p - q|) / 2, twice."""
    rng = np.random.default_rng(seed)
    functions = rng.normal(size=(3, 2)).round(2)
    pairs = np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]])
    halves = np.array([0.5, -0.5, -0.5, -0.5])

    def layer(inputs: int) -> tuple[np.ndarray, np.ndarray]:
        into, out = np.zeros((2 * inputs, inputs)), np.zeros((inputs // 2, 2 * inputs))
        for pair in range(inputs // 2):
            into[4 * pair : 4 * pair + 4, 2 * pair : 2 * pair + 2] = pairs
            out[pair, 4 * pair : 4 * pair + 4] = halves
        return into, out

    chosen = functions[rng.integers(0, 3, 8)]
    tables = {"w0": chosen, "b0": rng.normal(size=3)[rng.integers(0, 1, 8)]}
    body, before = "h0 = Gemm <transB = 1> (x, w0, b0)\n", "h0"
    for depth, width in enumerate((8, 4, 2), 1):
        tables[f"i{depth}"], tables[f"o{depth}"] = (m.T for m in layer(width))
        body += f"p{depth} = MatMul ({before}, i{depth}) r{depth} = Relu (p{depth})\n"
        body += f"h{depth} = MatMul (r{depth}, o{depth})\n"
        before = f"h{depth}"
    arrays = {name: np.ascontiguousarray(values, np.float32) for name, values in tables.items()}
    return parse(body.replace("h3", "y"), "float[1,2] x", "float[1,1] y", arrays)


@pytest.mark.parametrize("seed", [1, 2, 3, 5])
def test_networks_of_minima_are_verified(seed: int) -> None:
    """Equal functions are merged, and what is left of their differences is nothing: bounds do not show that."""
    found = case(minima(seed), "-1:1")
    verdict = found.check()
    assert sum(verdict.units.values()) >= 4
    assert verdict.deviation["y"] + verdict.rounding["y"] < 1e-4
    exact = found.check(exact=True)
    assert exact.units == verdict.units
