"""Bounds of arithmetic, functions and comparisons against exact arithmetic and the reference."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from tests.operators.entrywise import INF, PI, bounds, box, ends, model, view


def unary(op: str, low: float, high: float, kind: str = "double") -> tuple[float, float]:
    return ends(bounds(view(f"y = {op}(x)", f"{kind}[N] x"), box(low, high)))


def binary(op: str, a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return ends(bounds(view(f"y = {op}(a, b)", "double[N] a, double[N] b"), box(*a), box(*b)))


def sine(x: Decimal) -> Decimal:
    x = x.remainder_near(2 * PI)
    total = term = x
    for n in range(2, 120, 2):
        term = -term * x * x / (n * (n + 1))
        total += term
    return total


def erf(x: Decimal) -> Decimal:
    total = term = x
    for n in range(1, 300):
        term = -term * x * x / n
        total += term / (2 * n + 1)
    return 2 * total / PI.sqrt()


EXACT: dict[str, tuple[Callable[[Any], Any], float, float]] = {
    "Neg": (operator.neg, -1e300, 1e300),
    "Abs": (abs, -1e300, 1e300),
    "Floor": (math.floor, -1e6, 1e6),
    "Ceil": (math.ceil, -1e6, 1e6),
    "Round": (round, -1e6, 1e6),
    "Sign": (lambda v: (v > 0) - (v < 0), -3, 3),
    "Sqrt": (lambda v: v.sqrt(), 0, 1e300),
    "Reciprocal": (lambda v: 1 / v, 1e-200, 1e200),
    "Exp": (lambda v: v.exp(), -700, 700),
    "Log": (lambda v: v.ln(), 1e-300, 1e300),
    "Erf": (erf, -7, 7),
    "Sin": (sine, -30, 30),
    "Cos": (lambda v: sine(v + PI / 2), -30, 30),
}


def inside(data: st.DataObject, low: float, high: float) -> tuple[float, float, float]:
    number = st.floats(low, high, allow_subnormal=False).map(lambda v: v + 0.0)  # no -0.0
    a, b = sorted((data.draw(number), data.draw(number)))
    return a, b, data.draw(st.one_of(st.floats(a, b), st.sampled_from((a, b))))


def contains(interval: tuple[float, float], value: Any) -> bool:
    slack = abs(value) * Decimal("1e-80")  # the rounding of the 90 digits that the tests compute with
    return bool(interval[0] <= value + slack and value - slack <= interval[1])


@pytest.mark.parametrize("op", EXACT)
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_unary_bounds_contain_the_exact_value(op: str, data: st.DataObject) -> None:
    function, low, high = EXACT[op]
    a, b, x = inside(data, low, high)
    with localcontext(prec=90):
        value = function(Decimal(x))
        assert contains(unary(op, a, b), value)
        lower, upper = unary(op, x, x)
        assert contains((lower, upper), value)
        size = max(abs(value), min(1, abs(x))) if op in ("Sin", "Cos") else abs(value)
        assert upper - lower <= 1e-14 * float(size) + 1e-300


PAIRS: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": operator.truediv,
    "Max": np.maximum,
    "Min": np.minimum,
    "Sum": operator.add,
    "Mean": lambda a, b: (a + b) / 2,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Equal": operator.eq,
}
SHAPES = [
    ("double[2,3] a, double[2,3] b", (2, 3), (2, 3)),
    ("double[2,3] a, double[3] b", (1, 3), (3,)),
    ("double[4,2,3] a, double b", (1, 2, 1), ()),
    ("double[2,1] a, double[3] b", (), (3,)),
]


@pytest.mark.parametrize("op", PAIRS)
@pytest.mark.parametrize(("inputs", "shape_a", "shape_b"), SHAPES)
def test_binary_bounds_contain_exact_fractions(
    op: str, inputs: str, shape_a: tuple[int, ...], shape_b: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    node = view(f"y = {op}(a, b)", inputs)
    exact = np.vectorize(Fraction, otypes=[object])
    for _ in range(60):
        parts, points = [], []
        for shape in (shape_a, shape_b):
            scale = 10.0 ** rng.integers(-8, 8)
            low, high = np.sort(np.round(rng.normal(size=(2, *shape)) * scale, rng.integers(0, 20)), axis=0)
            high = np.where(rng.random(shape) < 0.3, low, high)
            parts.append(box(low, high))
            points.append(exact(np.clip(low + rng.random(shape) * (high - low), low, high)))
        if op == "Div" and np.any(points[1] == 0):
            continue
        result = bounds(node, *parts)
        values = np.asarray(PAIRS[op](*points), dtype=object)
        assert result.ndim == len(node.out_shape() or ())
        assert np.all(result.lower <= values)
        assert np.all(values <= result.upper)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_pow_contains_the_exact_value(data: st.DataObject) -> None:
    y = data.draw(st.one_of(st.integers(-5, 7).map(float), st.floats(-4, 4, allow_subnormal=False)))
    a, b, x = inside(data, -50 if y.is_integer() else 0, 50)
    if x == 0 and y < 0:
        return
    with localcontext(prec=90):
        value = Decimal(x) ** Decimal(y) if y else Decimal(1)
        assert contains(binary("Pow", (a, b), (y, y)), value)
        lower, upper = binary("Pow", (x, x), (y, y))
        assert contains((lower, upper), value)
        assert upper - lower <= 1e-14 * float(abs(value)) + 1e-300
        if x > 0:
            assert contains(binary("Pow", (max(a, 0.0), b), (y - 1, y + 0.5)), value)


@pytest.mark.parametrize(
    ("op", "a", "b", "expected"),
    [
        ("Pow", (-INF, INF), (2, 2), (0, INF)),
        ("Pow", (-INF, INF), (3, 3), (-INF, INF)),
        ("Pow", (0, 0), (2, 2), (0, 0)),
        ("Pow", (-4, 1), (0, 0), (1, 1)),
        ("Pow", (-2, 3), (-1, -1), (-INF, INF)),
        ("Pow", (-2, 3), (1, 2), (-INF, INF)),
        ("Pow", (0, 2), (-0.5, -0.5), (-INF, INF)),
        ("Pow", (-5, 0), (0.5, 0.5), (0, 0)),  # negative bases have no value: the domain rules them out
        ("Pow", (1, 1), (-INF, INF), (1, 1)),
        ("Mul", (0, 0), (-INF, INF), (0, 0)),
        ("Add", (0, 0), (0.1, 0.1), (0.1, 0.1)),
        ("Sub", (-INF, INF), (-INF, INF), (-INF, INF)),
        ("Max", (-INF, INF), (0, 0), (0, INF)),
        ("Mean", (0, 0), (0, 0), (0, 0)),
        ("Less", (0, 1), (2, 3), (1, 1)),
        ("Less", (2, 3), (0, 2), (0, 0)),
        ("LessOrEqual", (2, 3), (0, 2), (0, 1)),
        ("GreaterOrEqual", (2, 3), (0, 2), (1, 1)),
        ("Equal", (2, 2), (2, 2), (1, 1)),
        ("Equal", (-INF, INF), (0, 0), (0, 1)),
    ],
)
def test_binary_by_hand(op: str, a: tuple[float, float], b: tuple[float, float], expected: tuple[float, float]) -> None:
    assert binary(op, a, b) == expected


@pytest.mark.parametrize(
    ("op", "low", "high", "expected"),
    [
        ("Abs", -3, 2, (0, 3)),
        ("Abs", -INF, -1, (1, INF)),
        ("Sqrt", -4, 0, (0, 0)),
        ("Sqrt", -2, -1, (-INF, INF)),
        ("Log", 1, 1, (0, 0)),
        ("Log", -INF, INF, (-INF, INF)),
        ("Log", -2, 0, (-INF, INF)),
        ("Exp", -INF, INF, (0, INF)),
        ("Erf", 0, 0, (0, 0)),
        ("Erf", -INF, INF, (-1, 1)),
        ("Reciprocal", -1, 1, (-INF, INF)),
        ("Reciprocal", 1, INF, (pytest.approx(0), 1)),
        ("Sin", 0, 0, (0, 0)),
        ("Cos", 0, 0, (1, 1)),
        ("Sin", -INF, INF, (-1, 1)),
        ("Cos", 3, 3.2, (-1, pytest.approx(math.cos(3)))),
        ("Sin", 1.5, 1.6, (pytest.approx(math.sin(1.5)), 1)),
        ("Sin", 5, INF, (-1, 1)),
        ("Cos", 1e300, 1e300, (-1, 1)),
        ("Round", 0.5, 1.5, (0, 2)),
        ("Sign", -INF, 0, (-1, 0)),
        ("Identity", -INF, 5, (-INF, 5)),
    ],
)
def test_unary_by_hand(op: str, low: float, high: float, expected: tuple[float, float]) -> None:
    assert unary(op, low, high) == expected


def test_an_operand_that_meets_itself() -> None:
    for op, expected in {"Add": (-4, 6), "Sub": (0, 0), "Mul": (0, 9)}.items():
        assert ends(bounds(view(f"y = {op}(x, x)", "double[N] x"), *[box(-2, 3)] * 2)) == pytest.approx(expected)
    double = view("y = Add(x, x)", "double[N] x")
    lower, upper = ends(bounds(double, *[box(1.5e308, 1.5e308)] * 2))
    assert lower <= 2 * Fraction(1.5e308) <= upper


def test_where_follows_a_decided_condition() -> None:
    where = view("y = Where(c, a, b)", "bool[N] c, double[N] a, double[N] b")
    for condition, expected in {
        (1, 1): (1, 2),
        (0, 0): (-4, -3),
        (0, 1): (-4, 2),
        (-INF, INF): (-4, 2),
    }.items():
        assert ends(bounds(where, box(*condition), box(1, 2), box(-4, -3))) == expected


REFERENCE = [
    ("y = Where(c, a, b)", "bool[2,1] c, double[3] a, double[2,3] b"),
    ("y = And(a, b)", "bool[2,3] a, bool[3] b"),
    ("y = Or(a, b)", "bool[2,3] a, bool[3] b"),
    ("y = Xor(a, b)", "bool[2,3] a, bool[3] b"),
    ("y = Not(a)", "bool[2,3] a"),
    ("y = Sub(a, b)", "uint8[2,3] a, uint8[3] b"),
    ("y = Mul(a, b)", "int8[2,3] a, int8[3] b"),
    ("y = Add(a, b)", "int64[2,3] a, int64[3] b"),
    ("y = Neg(a)", "int8[2,3] a"),
    ("y = Div(a, b)", "uint8[2,3] a, uint8[3] b"),
    ("y = Pow(a, b)", "double[2,3] a, int64[3] b"),
    ("y = Cast <to = 1> (a)", "double[2,3] a"),
    ("y = Cast <to = 10> (a)", "double[2,3] a"),
    ("y = Cast <to = 6> (a)", "double[2,3] a"),
    ("y = Cast <to = 9> (a)", "double[2,3] a"),
    ("y = Cast <to = 1> (a)", "int64[2,3] a"),
    ("y = Cast <to = 11> (a)", "bool[2,3] a"),
    ("y = Sub(a, b)", "double[3] a, double[2,1] b"),
    ("y = Greater(a, b)", "double[3] a, double[2,1] b"),
    ("y = Min(a, b, c)", "double[3] a, double[2,1] b, double[1] c"),
]


@pytest.mark.parametrize(("body", "inputs"), REFERENCE)
def test_bounds_contain_what_the_reference_computes(body: str, inputs: str) -> None:
    rng = np.random.default_rng(1)
    proto, node = model(body, inputs, 21, ""), view(body, inputs)
    session = ReferenceEvaluator(proto)
    for _ in range(60):
        feeds, parts = {}, []
        for value in proto.graph.input:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            least, most = {"b": (0, 1), "i": (-127, 127), "u": (1, 255), "f": (-20, 20)}[dtype.kind]
            pair = np.clip(rng.normal(size=(2, *shape)) * 4.0 ** rng.integers(-2, 5), least, most)
            low, high = np.sort(pair if dtype.kind == "f" else np.rint(pair), axis=0)
            point = low + rng.random(shape) * (high - low)
            feeds[value.name] = np.asarray(point if dtype.kind == "f" else np.rint(point)).astype(dtype)
            parts.append(box(low, high))
        with np.errstate(all="ignore"):
            outputs: Any = session.run(None, feeds)
        y = np.asarray(outputs[0])
        result = bounds(node, *parts)
        error = 1e-12 * np.abs(y.astype(float)) if dtype.kind == "f" else 0
        assert np.all((result.lower - error <= y) & (y <= result.upper + error) | ~np.isfinite(y))
