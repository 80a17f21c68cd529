"""Lines around activations hold everywhere, pieces are exact, slopes are slopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.operators.base import NodeView
from onnxprune.operators.interval import Array, Interval
from onnxprune.operators.relaxation import Line, Pieces
from tests.operators.entrywise import CLASSES, view
from tests.operators.support import SEED, Case, run_model

INF = np.inf
F32 = "float[N] x"
RAMPS = {
    "relu": view("y = Relu(x)"),
    "leaky": view("y = LeakyRelu<alpha=0.3>(x)"),
    "leaky steep": view("y = LeakyRelu<alpha=1.7>(x)"),
    "leaky negative": view("y = LeakyRelu<alpha=-0.5>(x)"),
    "prelu": view("y = PRelu(x, s)", constants="double[1] s = {0.1}"),
    "clip": view("y = Clip(x, l, h)", constants="double l = {-0.7}, double h = {6}"),
    "clip above": view("y = Clip(x, , h)", constants="double h = {1.3}"),
    "clip below": view("y = Clip(x, l)", constants="double l = {-0.3}"),
    "clip upside down": view("y = Clip(x, l, h)", constants="double l = {2}, double h = {1}"),
    "relu6": view("y = Clip<min=0.0, max=6.0>(x)", F32, 6),
    "hard sigmoid": view("y = HardSigmoid(x)"),
    "hard sigmoid falling": view("y = HardSigmoid<alpha=-0.3, beta=0.7>(x)"),
    "hard sigmoid level": view("y = HardSigmoid<alpha=0.0, beta=0.7>(x)"),
    "abs": view("y = Abs(x)"),
    "max": view("y = Max(c, x)", constants="double[1] c = {0.3}"),
    "min": view("y = Min(x, c)", constants="double[1] c = {-1.1}"),
}
CURVES = {
    "sigmoid": view("y = Sigmoid(x)"),
    "tanh": view("y = Tanh(x)"),
    "softplus": view("y = Softplus(x)"),
    "softsign": view("y = Softsign(x)"),
    "erf": view("y = Erf(x)"),
    "exp": view("y = Exp(x)"),
    "log": view("y = Log(x)"),
    "sqrt": view("y = Sqrt(x)"),
    "elu": view("y = Elu(x)"),
    "elu steep": view("y = Elu<alpha=1.8>(x)"),
    "elu flat": view("y = Elu<alpha=0.2>(x)"),
    "elu negative": view("y = Elu<alpha=-0.5>(x)"),
    "celu": view("y = Celu<alpha=0.7>(x)"),
    "selu": view("y = Selu(x)"),
    "hard swish": view("y = HardSwish(x)"),
    "gelu": view("y = Gelu(x)"),
    "swish": view("y = Swish(x)"),
    "swish scaled": view("y = Swish<alpha=1.7>(x)"),
}
ALL = RAMPS | CURVES
POSITIVE = ("log", "sqrt")

LONG = np.longdouble
EXACT: dict[str, Callable[[Any], Any]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "elu": lambda x: np.where(x >= 0, x, np.expm1(x)),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "hard swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "relu": lambda x: np.maximum(x, 0),
    "abs": np.abs,
}


def image(node: NodeView, x: Interval) -> Interval:
    inputs: list[Interval | None] = []
    for k in range(node.n_inputs):
        constant = node.constant(k)
        inputs.append(None if not node.has_input(k) else x if constant is None else Interval.point(constant))
    found = CLASSES[node.op].interval(node, inputs)
    assert found is not None
    return found[0]


def lines(name: str, low: Array, high: Array) -> tuple[tuple[Line, ...], tuple[Line, ...]]:
    node = ALL[name]
    found = CLASSES[node.op].relax(node, low, high)
    assert found is not None
    for line in (*found.lower, *found.upper):
        assert line.slope.shape == low.shape
        assert line.offset.shape == low.shape
        assert np.isfinite(line.slope).all()
        assert not np.isnan(line.offset).any()
    return found.lower, found.upper


def inside(low: Array, high: Array, rng: np.random.Generator, count: int = 60) -> Array:
    """Points of each interval: ends, near ends, near places of interest, all scales in between."""
    far_low, far_high = np.clip(low, -1e12, 1e12), np.clip(high, -1e12, 1e12)
    share = rng.random((count, *low.shape)) ** rng.choice([1, 4], (count, *low.shape))
    share = np.where(rng.random(share.shape) < 0.5, share, 1 - share)
    spread = far_low * (1 - share) + far_high * share
    scales = rng.normal(size=spread.shape) * 10.0 ** rng.integers(-8, 3, spread.shape)
    special = [np.full(low.shape, v) for v in (-3, 3, 0, -0.7, 6, 1.3, -2.4, 2.4, 1.4142135623730951, 0.3, -1.1, -2.5)]
    points = np.concatenate([spread, scales, np.stack([far_low, far_high, *special])])
    return np.asarray(np.minimum(np.maximum(points, low), high))


def check(name: str, low: Array, high: Array, seed: int = 0) -> None:
    node = ALL[name]
    if name in POSITIVE:
        low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
    below, above = lines(name, low, high)
    x = inside(low, high, np.random.default_rng(seed))
    bounds = image(node, Interval.point(x))
    least, most = (v.astype(LONG) for v in (bounds.lower, bounds.upper))
    with np.errstate(all="ignore"):
        if name in EXACT:
            true = EXACT[name](x.astype(LONG))
            least, most = np.maximum(least, true), np.minimum(most, true)
        for sign, found, value in ((1, above, least), (-1, below, most)):
            for line in found:
                product, offset = line.slope.astype(LONG) * x.astype(LONG), line.offset.astype(LONG)
                rounding = LONG(2.0) ** -61 * (np.abs(product) + np.abs(offset) + np.abs(value)) + LONG(1e-4900)
                wrong = sign * (product + offset - value) < -rounding
                assert not wrong.any(), (name, low[wrong.any(axis=0)], high[wrong.any(axis=0)], line)


@pytest.mark.parametrize("name", ALL)
@given(seed=SEED, scale=st.integers(-12, 4))
@settings(max_examples=12, deadline=None)
def test_lines_hold_on_random_intervals(name: str, seed: int, scale: int) -> None:
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(40,)) * rng.choice([0.0, 1e-3, 1.0, 3.0, 30.0], 40)
    width = np.abs(rng.normal(size=(40,))) * 10.0 ** rng.choice([scale, -1, 0, 1], 40)
    low, high = np.sort([middle, middle + np.where(rng.random(40) < 0.5, width, -width)], axis=0)
    check(name, low, high, seed)


ENDS = [-INF, -1e308, -1e30, -1e4, -40.0, -3.0, -1.0, -1e-9, -1e-200, -5e-324, 0.0]
ENDS = [*ENDS, *(-v for v in reversed(ENDS[:-1]))]


@pytest.mark.parametrize("name", ALL)
def test_lines_hold_on_extreme_intervals(name: str) -> None:
    pairs = np.array([(a, b) for a in ENDS for b in ENDS if a <= b and a < INF and b > -INF])
    check(name, pairs[:, 0], pairs[:, 1])


FINITE_BELOW = {
    "relu",
    "leaky",
    "prelu",
    "clip",
    "clip below",
    "relu6",
    "hard sigmoid",
    "abs",
    "max",
    "sigmoid",
    "tanh",
}
FINITE_BELOW |= {"softplus", "softsign", "erf", "exp", "elu", "celu", "selu", "hard swish", "gelu", "swish", "sqrt"}


@pytest.mark.parametrize("name", sorted(FINITE_BELOW))
def test_unbounded_sides_keep_what_is_finite(name: str) -> None:
    low, high = np.array([-1.0, -INF, -INF]), np.array([INF, 2.0, INF])
    below, above = lines(name, low, high)
    assert np.isfinite(below[0].offset).all() == (name not in {"leaky negative"})
    level = name in {"clip", "relu6", "hard sigmoid", "sigmoid", "tanh", "softsign", "erf"}
    assert np.isfinite(above[0].offset[2]) == (level or name == "sqrt")  # sqrt starts at zero
    assert np.isfinite(above[0].offset[0]) == (name not in {"exp"})
    assert np.isfinite(above[0].offset[1])


def test_relu_lines_are_the_usual_ones() -> None:
    low, high = np.array([-1.0, -2.0, -1.0, 1.0, -2.0, -INF, -1.0]), np.array([2.0, 1.0, 1.0, 2.0, -1.0, 2.0, INF])
    below, above = lines("relu", low, high)
    assert below[0].slope.tolist() == [1, 0, 0, 1, 0, 0, 1]
    assert below[1].slope.tolist() == [0, 1, 1, 1, 0, 1, 0]
    assert not below[0].offset.any()
    assert not below[1].offset.any()
    assert len(above) == 1
    np.testing.assert_allclose(above[0].slope, [2 / 3, 1 / 3, 1 / 2, 1, 0, 0, 1])
    np.testing.assert_allclose(above[0].offset, [2 / 3, 2 / 3, 1 / 2, 0, 0, 2, 1], atol=1e-15)


@pytest.mark.parametrize("name", ALL)
def test_first_lines_are_as_close_as_can_be_in_the_middle(name: str) -> None:
    rng = np.random.default_rng(1)
    low = rng.uniform(-6, 3, 30)
    high = low + rng.uniform(0.1, 6, 30)
    if name in POSITIVE:
        low, high = np.abs(low) + 0.1, np.abs(low) + 0.1 + (high - low)
    below, above = lines(name, low, high)
    share = np.linspace(0, 1, 201)[:, None]
    x = np.concatenate([low * (1 - share) + high * share, np.clip(np.zeros((1, 30)), low, high)])
    bounds = image(ALL[name], Interval.point(x))
    y, middle = (bounds.lower + bounds.upper) / 2, (low + high) / 2
    for k in range(30):
        for sign, line in ((1, above[0]), (-1, below[0])):
            best = hull_height(x[:, k], sign * y[:, k], middle[k])
            height = sign * (line.slope[k] * middle[k] + line.offset[k])
            spread = 1 + np.ptp(y[:, k])
            assert height <= best + 2e-3 * spread, (name, low[k], high[k], sign)


def hull_height(x: Array, y: Array, at: float) -> float:
    """Height of the upper hull of points over a place."""
    left, right = x <= at, x >= at
    with np.errstate(all="ignore"):
        share = (at - x[left][:, None]) / (x[right][None] - x[left][:, None])
        heights = y[left][:, None] * (1 - share) + y[right][None] * share
    return float(np.nanmax(heights))


def evaluate(pieces: Pieces, x: Array) -> Array:
    total: Array = pieces.slope * x + pieces.offset
    for knot, bend in zip(pieces.knots, pieces.bends, strict=True):
        total = total + bend * np.maximum(0.0, x - knot)
    return total


PIECES = {
    "relu": Case("y = Relu(x)", "float[200] x"),
    "leaky": Case("y = LeakyRelu<alpha=0.3>(x)", "float[200] x"),
    "prelu": Case("y = PRelu(x, s)", "float[100,2] x", "float[2] s = {0.1, 1.5}"),
    "clip": Case("y = Clip(x, l, h)", "float[200] x", "float l = {-0.7}, float h = {6}"),
    "clip above": Case("y = Clip(x, , h)", "float[200] x", "float h = {1.3}"),
    "relu6": Case("y = Clip<min=0.0, max=6.0>(x)", "float[200] x", opset=6),
    "hard sigmoid": Case("y = HardSigmoid(x)", "float[200] x"),
    "hard sigmoid falling": Case("y = HardSigmoid<alpha=-0.3, beta=0.7>(x)", "float[200] x"),
    "abs": Case("y = Abs(x)", "float[200] x"),
    "max": Case("y = Max(c, x, d)", "float[100,2] x", "float[2] c = {0.3, -1}, float d = {0}"),
    "min": Case("y = Min(x, c)", "float[100,2] x", "float[2] c = {0.3, -1}"),
}


@pytest.mark.parametrize("case", PIECES.values(), ids=PIECES)
def test_pieces_and_slopes_are_those_of_the_operator(case: Case) -> None:
    node = case.node()
    rule = CLASSES[node.op]
    pieces = rule.pieces(node)
    assert pieces is not None
    shape = [int(d) for d in node.in_shape(node.n_inputs - 1 if node.op == "-" else variable(node)) or ()]  # type: ignore[arg-type] # static
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32) * 4
    wanted = run_model(case.model, {"x": x})[0]
    np.testing.assert_allclose(evaluate(pieces, x.astype(np.float64)), wanted, rtol=3e-7, atol=3e-7)
    check_derivative(node, x.astype(np.float64))


def variable(node: NodeView) -> int:
    return next(k for k in range(node.n_inputs) if node.has_input(k) and node.constant(k) is None)


def check_derivative(node: NodeView, x: Array) -> None:
    found = CLASSES[node.op].derivative(node, x[None])
    assert found is not None
    assert found.shape == (1, *x.shape)
    step = 1e-6
    bounds = [image(node, Interval.point(x + side * step)) for side in (-1, 0, 1)]
    back, here, ahead = ((b.lower + b.upper) / 2 for b in bounds)
    one_sided = np.stack([(here - back) / step, (ahead - here) / step])
    least, most = one_sided.min(axis=0) - 1e-4, one_sided.max(axis=0) + 1e-4
    assert ((found[0] >= least) & (found[0] <= most)).all()


OTHER_SLOPES = {"mish": view("y = Mish(x)"), "tanh gelu": view('y = Gelu<approximate="tanh">(x)')}


@pytest.mark.parametrize("name", [*CURVES, *OTHER_SLOPES])
def test_slopes_of_smooth_functions(name: str) -> None:
    x = np.random.default_rng(0).normal(size=200) * 3
    check_derivative({**CURVES, **OTHER_SLOPES}[name], np.abs(x) + 0.05 if name in POSITIVE else x)


def test_nothing_is_said_where_parameters_are_computed() -> None:
    for body, inputs in [
        ("y = PRelu(x, s)", "double[N] x, double[1] s"),
        ("y = Clip(x, l)", "double[N] x, double l"),
        ("y = Max(x, s)", "double[N] x, double[N] s"),
    ]:
        node = view(body, inputs)
        rule = CLASSES[node.op]
        ends = np.zeros(3), np.ones(3)
        assert rule.relax(node, *ends) is None
        assert rule.pieces(node) is None
        assert rule.derivative(node, np.zeros((1, 3))) is None
    node = view("y = ThresholdedRelu(x)")
    assert CLASSES[node.op].pieces(node) is None
