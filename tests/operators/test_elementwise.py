"""Elementwise operators: bounds against exact arithmetic, channel links against hand-made expectations."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnxprune.operators.base import NodeView, TensorType
from onnxprune.operators.channels import ChannelMap
from onnxprune.operators.elementwise import OPERATORS, Elementwise
from onnxprune.operators.interval import Interval

INF = math.inf
CLASSES = {op: cls() for cls in OPERATORS for op in cls.op_types}
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534")
box = Interval.of


@cache
def model(body: str, inputs: str, opset: int, constants: str) -> onnx.ModelProto:
    """One node with inferred types and the output y."""
    header = f'<ir_version: 10, opset_import: ["": {opset}]>'
    proto = onnx.parser.parse_model(f"{header} g ({inputs}) => (float y) <{constants}> {{ {body} }}")
    proto.graph.output[0].ClearField("type")
    return onnx.shape_inference.infer_shapes(proto)


def tensor_type(tensor: gs.Tensor) -> TensorType:
    known = tensor.dtype
    dtype = onnx.helper.tensor_dtype_to_np_dtype(known) if isinstance(known, int) else known and np.dtype(known)
    return TensorType(dtype, None if tensor.shape is None else tuple(tensor.shape))


@cache
def view(body: str, inputs: str, opset: int = 21, constants: str = "") -> NodeView:
    graph = gs.import_onnx(model(body, inputs, opset, constants))
    types = {name: tensor_type(tensor) for name, tensor in graph.tensors().items()}
    return NodeView(graph.nodes[0], types, opset)


def bounds(node: NodeView, *inputs: Interval) -> Interval:
    results = CLASSES[node.op].interval(node, inputs)
    assert results is not None
    return results[0]


def ends(interval: Interval) -> tuple[float, float]:
    assert interval.ndim == 0
    return float(interval.lower), float(interval.upper)


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


def test_cast_widens_only_what_it_rounds() -> None:
    single = view("y = Cast <to = 1> (x)", "double[N] x")
    assert ends(bounds(single, box(0.0, 0.5))) == (0, 0.5)
    lower, upper = ends(bounds(single, box(0.1, 0.1)))
    assert lower <= 0.1 < np.float64(np.float32(0.1)) <= upper
    assert upper - lower <= 3 * 2.0**-24 * 0.1
    assert ends(bounds(view("y = Cast <to = 11> (x)", "float[N] x"), box(0.1, 0.3))) == (0.1, 0.3)
    assert ends(bounds(view("y = Cast <to = 7> (x)", "float[N] x"), box(-1.5, 2.5))) == (-1, 2)
    assert ends(bounds(view("y = Cast <to = 2> (x)", "float[N] x"), box(-1.5, 2.5))) == (0, 255)
    lower, upper = ends(bounds(view("y = Cast <to = 16> (x)", "float[N] x"), box(1.0, 1.001)))
    assert lower == 1
    assert upper == pytest.approx(1.001 * (1 + 2**-8), rel=1e-4)
    for opaque in (8, 17):  # strings, 8-bit floats
        assert CLASSES["Cast"].interval(view(f"y = Cast <to = {opaque}> (x)", "float[N] x"), [box(0, 1)]) is None


@pytest.mark.parametrize(
    ("body", "opset", "known"),
    [
        ("y = Dropout(x)", 6, False),
        ("y = Dropout <is_test = 1> (x)", 6, True),
        ("y, m = Dropout <ratio = 0.3> (x)", 10, True),
        ("y = Dropout(x)", 13, True),
        ("y, m = Dropout(x, r, off)", 13, True),
        ("y = Dropout(x, r, on)", 13, False),
        ("y = Dropout(x, r, t)", 13, False),
    ],
)
def test_dropout_is_the_identity_at_inference(body: str, opset: int, known: bool) -> None:
    node = view(body, "float[N,3] x, bool t", opset, "float r = {0.5}, bool on = {1}, bool off = {0}")
    dropout = CLASSES["Dropout"]
    assert dropout.channels(node, ChannelMap({})) == known
    result = dropout.interval(node, [box(-1, 2)])
    assert (result is not None) == known
    if result is not None:
        assert len(result) == node.n_outputs
        assert ends(result[0]) == (-1, 2)


def channels(node: NodeView) -> tuple[set[str], dict[str, str]] | None:
    """Linked pairs of axes and locks, an axis written as name and number."""
    shapes = {name: t.shape or () for name, t in node.types.items()}
    links = ChannelMap({(n, a): d for n, s in shapes.items() for a, d in enumerate(s) if isinstance(d, int)})
    if not CLASSES[node.op].channels(node, links):
        return None
    assert {("y", axis) for axis in range(len(shapes["y"]))} <= links.mentioned
    pairs = {f"{k.left[0]}{k.left[1]}-{k.right[0]}{k.right[1]}" for k in links.links}
    return pairs, {f"{name}{axis}": reason for (name, axis), reason in links.locks.items()}


@pytest.mark.parametrize(
    ("inputs", "constants", "pairs", "locks"),
    [
        ("float[2,8,5] a, float[2,8,5] b", "", "a0-y0 b0-y0 a1-y1 b1-y1 a2-y2 b2-y2", ""),
        ("float[N,2,5,5] a", "float[2,1,1] b = {1,2}", "a1-y1 b0-y1 a2-y2 a3-y3", "b1 b2"),
        ("float[N,8,5,5] a", "float b = {2}", "a1-y1 a2-y2 a3-y3", ""),
        ("float[N,8] a", "float[1] b = {2}", "a1-y1", "b0"),
        ("float[N,8,H,W] a, float[N,8,1,1] b", "", "a1-y1 b1-y1", "b2 b3"),
        ("float[1,8,1,1] a, float[N,8,1,1] b", "", "a1-y1 b1-y1 a2-y2 b2-y2 a3-y3 b3-y3", "a0"),
        ("float[N,8] a, float[M,8] b", "", "a1-y1 b1-y1", "a0? b0? y0?"),
        ("float[8,1] a, float[1,4] b", "", "a0-y0 b1-y1", "a1 b0"),
    ],
)
def test_channels_under_broadcasting(inputs: str, constants: str, pairs: str, locks: str) -> None:
    reasons = {lock[:2]: "size unknown" if lock.endswith("?") else "broadcast" for lock in locks.split()}
    for op in ("Mul", "Sub"):
        assert channels(view(f"y = {op}(a, b)", inputs, 21, constants)) == (set(pairs.split()), reasons)


def test_channels_of_other_arities_and_of_unknown_rank() -> None:
    assert channels(view("y = Exp(x)", "float[N,8,5] x")) == ({"x1-y1", "x2-y2"}, {})
    assert channels(view("y = Cast <to = 7> (x)", "float[4] x")) == ({"x0-y0"}, {})
    three = channels(view("y = Where(c, a, b)", "bool[8,1] c, float[8,4] a, float[4] b"))
    assert three == ({"c0-y0", "a0-y0", "a1-y1", "b0-y1"}, {"c1": "broadcast"})
    for op, arguments in {"Exp": "x", "Add": "x, z"}.items():
        node = NodeView(view(f"y = {op}({arguments})", "float[4] x, float[4] z").node, {}, 21)
        assert not CLASSES[op].channels(node, ChannelMap({}))


def test_old_broadcasting_is_opaque() -> None:
    node = view("y = Add <broadcast = 1, axis = 1> (a, b)", "float[N,8,5,5] a, float[8] b", 6)
    assert CLASSES["Add"].interval(node, [box(0, 1), box(0, 1)]) is None
    assert not CLASSES["Add"].channels(node, ChannelMap({}))


def test_bounds_without_axes_beside_an_operand_of_unknown_rank() -> None:
    node, three = view("y = Add(a, b)", "double[] a, double[3] b"), box([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    assert ends(bounds(node, box(0, 1), three)) == pytest.approx((0, 4))
    assert bounds(node, box([[0.0]], [[1.0]]), three).shape == (1, 3)


def test_what_the_engine_asks_of_entrywise_operators() -> None:
    entrywise = {op: cls for op, cls in CLASSES.items() if isinstance(cls, Elementwise)}
    assert entrywise.keys() == CLASSES.keys()
    homogeneous = {op for op, cls in entrywise.items() if cls.homogeneous}
    assert homogeneous == {"Add", "Sub", "Sum", "Mean", "Max", "Min", "Neg", "Abs", "Identity", "Dropout"}
    expected = {"Abs": (0, INF), "Neg": None, "Identity": (-INF, INF), "Dropout": (-INF, INF)}
    for op, known in expected.items():
        assert entrywise[op].identity_on(view(f"y = {op}(x)", "double[N] x")) == known
