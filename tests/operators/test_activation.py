"""Activations: bounds against 120-digit arithmetic, exact cases by hand, minima by bisection."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnxprune.operators import smooth_activation
from onnxprune.operators.base import NodeView
from onnxprune.operators.channels import ChannelMap
from onnxprune.operators.elementwise import Elementwise
from onnxprune.operators.interval import Interval
from tests.operators.entrywise import ACTIVATIONS, INF, PI, bounds, box, ends, model, view


def image(node: NodeView, low: float, high: float, *others: Interval | None) -> tuple[float, float]:
    return ends(bounds(node, box(low, high), *others))


def single(value: float) -> Decimal:
    return Decimal(float(np.float32(value)))


def sigmoid(x: Decimal) -> Decimal:
    return 1 / (1 + (-x).exp())


def expm1(x: Decimal) -> Decimal:
    return x + x * x / 2 + x**3 / 6 if abs(x) < Decimal("1e-25") else x.exp() - 1


def tanh(x: Decimal) -> Decimal:
    return expm1(2 * x) / (expm1(2 * x) + 2)


def softplus(x: Decimal) -> Decimal:
    return (1 + x.exp()).ln()


def erf(x: Decimal) -> Decimal:
    total = term = x
    for n in range(1, 700):
        term = -term * x * x / n
        total += term / (2 * n + 1)
    return 2 * total / PI.sqrt()


def gelu(x: Decimal) -> Decimal:
    return x / 2 * (1 + erf(x / Decimal(2).sqrt()))


def tanh_gelu(x: Decimal) -> Decimal:
    return x * sigmoid(2 * (2 / PI).sqrt() * (x + Decimal("0.044715") * x**3))


def mish(x: Decimal) -> Decimal:
    return x * tanh(softplus(x))


def swish(x: Decimal, alpha: Decimal = Decimal(1)) -> Decimal:
    return x * sigmoid(alpha * x)


def exponential(x: Decimal, alpha: Decimal, scale: Decimal) -> Decimal:
    return x if x > 0 else alpha * expm1(x * scale)


EXACT: dict[str, Callable[[Decimal], Decimal]] = {
    "Relu(x)": lambda x: max(x, Decimal(0)),
    "LeakyRelu(x)": lambda x: x if x > 0 else single(0.01) * x,
    "LeakyRelu <alpha = -0.3> (x)": lambda x: x if x > 0 else single(-0.3) * x,
    "ThresholdedRelu <alpha = 0.5> (x)": lambda x: x if x > Decimal("0.5") else Decimal(0),
    "ThresholdedRelu <alpha = -0.5> (x)": lambda x: x if x > Decimal("-0.5") else Decimal(0),
    "HardSigmoid(x)": lambda x: max(Decimal(0), min(Decimal(1), single(0.2) * x + Decimal("0.5"))),
    "HardSwish(x)": lambda x: x * max(Decimal(0), min(Decimal(1), x / 6 + Decimal("0.5"))),
    "Sigmoid(x)": sigmoid,
    "Tanh(x)": tanh,
    "Softplus(x)": softplus,
    "Softsign(x)": lambda x: x / (1 + abs(x)),
    "Elu <alpha = 0.7> (x)": lambda x: exponential(x, single(0.7), Decimal(1)),
    "Elu <alpha = -0.7> (x)": lambda x: exponential(x, single(-0.7), Decimal(1)),
    "Celu <alpha = 0.5> (x)": lambda x: exponential(x, Decimal("0.5"), Decimal(2)),
    "Celu <alpha = -2.0> (x)": lambda x: exponential(x, Decimal(-2), Decimal("-0.5")),
    "Selu(x)": lambda x: single(1.050701) * exponential(x, single(1.6732632), Decimal(1)),
    "Gelu(x)": gelu,
    'Gelu <approximate = "tanh"> (x)': tanh_gelu,
    "Mish(x)": mish,
    "Swish(x)": swish,
    "Swish <alpha = 1.75> (x)": lambda x: swish(x, Decimal("1.75")),
    "Swish <alpha = -0.5> (x)": lambda x: swish(x, Decimal("-0.5")),
    "Swish <alpha = 0.0> (x)": lambda x: x / 2,
}


@pytest.mark.parametrize("body", EXACT)
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_bounds_contain_the_exact_value(body: str, data: st.DataObject) -> None:
    number = st.one_of(st.floats(-14, 14, allow_subnormal=False), st.integers(-6, 6).map(lambda v: v / 2))
    number = number.map(lambda v: v + 0.0)  # no -0.0
    a, b = sorted((data.draw(number), data.draw(number)))
    x = data.draw(st.one_of(st.floats(a, b), st.sampled_from((a, b))))
    node = view(f"y = {body}")
    with localcontext(prec=120):
        value = EXACT[body](Decimal(x))
        slack = abs(value) * Decimal("1e-40") + Decimal("1e-75")
        for low, high in ((a, b), (x, x)):
            lower, upper = image(node, low, high)
            assert lower <= value + slack
            assert value - slack <= upper
        tail = 1e-14 * (x < -1)  # there the gates of Gelu and its kin are inaccurate, but small
        assert upper - lower <= 1e-14 * float(abs(value)) + tail + 1e-300


@pytest.mark.parametrize(
    "body", ["LeakyRelu(x)", "Relu(x)", "HardSwish(x)", "Selu(x)", "Softplus(x)", "Gelu(x)", "Mish(x)"]
)
def test_points_agree_with_the_reference(body: str) -> None:
    x = np.linspace(-8.0, 8.0, 97)
    outputs: Any = ReferenceEvaluator(model(f"y = {body}", "double[N] x", 22, "")).run(None, {"x": x})
    result = bounds(view(f"y = {body}", opset=22), Interval.point(x))
    error = 1e-6 * (1 + np.abs(x))  # the reference keeps some constants in single precision
    assert np.all(result.lower - error <= outputs[0])
    assert np.all(outputs[0] <= result.upper + error)


@pytest.mark.parametrize(
    ("body", "low", "high", "expected"),
    [
        ("Relu(x)", -INF, INF, (0, INF)),
        ("Relu(x)", -3, 0, (0, 0)),
        ("LeakyRelu <alpha = 0.5> (x)", -INF, 2, (-INF, 2)),
        ("Sigmoid(x)", -INF, INF, (0, 1)),
        ("Tanh(x)", -INF, INF, (-1, 1)),
        ("Softplus(x)", -INF, INF, (0, INF)),
        ("Softsign(x)", -INF, INF, (-1, 1)),
        ("Elu(x)", -INF, 3, (pytest.approx(-1), 3)),
        ("Elu <alpha = -1.0> (x)", -INF, 0.5, (0, pytest.approx(1))),
        ("Celu(x)", -INF, 3, (pytest.approx(-1), 3)),
        ("HardSigmoid(x)", -INF, INF, (0, 1)),
        ("HardSigmoid(x)", 3, 4, (1, 1)),
        ("HardSigmoid(x)", -4, -3, (0, 0)),
        ("HardSwish(x)", -INF, -3, (0, 0)),
        ("HardSwish(x)", -3, 0, (-0.375, 0)),
        ("HardSwish(x)", -INF, INF, (-0.375, INF)),
        ("HardSwish(x)", 3, 5, (3, 5)),
        ("Gelu(x)", -INF, INF, (pytest.approx(-0.16997120747990369), INF)),
        ("Gelu(x)", -INF, -40, (pytest.approx(0, abs=1e-300), 0)),
        ("Gelu(x)", -INF, -5, (pytest.approx(-1.4332576e-6), 0)),
        ('Gelu <approximate = "tanh"> (x)', -INF, INF, (pytest.approx(-0.17004075), INF)),
        ("Mish(x)", -INF, 0, (pytest.approx(-0.30884341301725), 0)),
        ("Swish(x)", -INF, INF, (pytest.approx(-0.27846454276107), INF)),
        ("Swish <alpha = -1.0> (x)", -INF, INF, (-INF, pytest.approx(0.27846454276107))),
        ("ThresholdedRelu(x)", -INF, 1, (0, 0)),
        ("ThresholdedRelu(x)", 0, 3, (0, 3)),
        ("ThresholdedRelu(x)", 2, 3, (2, 3)),
        ("ThresholdedRelu <alpha = -1.0> (x)", -2, -0.5, (-1, 0)),
    ],
)
def test_by_hand(body: str, low: float, high: float, expected: tuple[float, float]) -> None:
    assert image(view(f"y = {body}"), low, high) == expected


NOT_ZERO_AT_ZERO = ("Sigmoid", "Softplus", "HardSigmoid")


@pytest.mark.parametrize("body", [body for body in EXACT if not body.startswith(NOT_ZERO_AT_ZERO)])
def test_zero_stays_exactly_zero(body: str) -> None:
    assert image(view(f"y = {body}"), 0.0, 0.0) == (0, 0)


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        ("Gelu(x)", smooth_activation.GELU_DIP),
        ('Gelu <approximate = "tanh"> (x)', smooth_activation.TANH_GELU_DIP),
        ("Swish(x)", smooth_activation.SWISH_DIP),
        ("Mish(x)", smooth_activation.MISH_DIP),
    ],
)
def test_stored_minima(body: str, stored: tuple[float, float]) -> None:
    function, node = EXACT[body], view(f"y = {body}")
    with localcontext(prec=90):
        step, low, high = Decimal("1e-30"), Decimal(-2), Decimal(0)
        for _ in range(70):
            middle = (low + high) / 2
            low, high = (middle, high) if function(middle + step) < function(middle - step) else (low, middle)
        assert abs(low - Decimal(stored[0])) < 1e-15
        assert 0 <= function(low) - Decimal(stored[1]) < 1e-16
        grid = [function(Decimal(k) / 16) for k in range(-160, 33)]
    falls = [a > b for a, b in pairwise(grid)]
    assert falls == sorted(falls, reverse=True)  # first down, then up: one minimum
    place, bottom = stored
    assert image(node, place - 1e-6, place + 1e-4)[0] == image(node, place - 1e-4, place + 1e-6)[0] == bottom
    assert image(node, place - 1, place - 1e-4)[0] > bottom < image(node, place + 1e-4, place + 1)[0]


def test_prelu_slopes() -> None:
    x = box([[-2.0, -2.0], [-1.0, 1.0]], [[-1.0, 3.0], [0.0, 2.0]])
    node = view("y = PRelu(x, s)", "double[2,2] x", 16, "double[2,1] s = {0.5, -1.0}")
    result = bounds(node, x, Interval.point([[0.5], [-1.0]]))
    assert result.lower == pytest.approx(np.array([[-1.0, -1.0], [0.0, 1.0]]))
    assert result.upper == pytest.approx(np.array([[-0.5, 3.0], [1.0, 2.0]]))
    shared = view("y = PRelu(x, s)", "double[N,3,4] x, double[3,1] s", 16)
    assert bounds(shared, box(-1, 1), box([[0.0], [0.5], [1.0]], [[0.0], [0.5], [1.0]])).shape == (1, 3, 1)
    ones = view("y = PRelu(x, s)", "double[N,3] x", 16, "double[3] s = {1, 1, 1}")
    assert ACTIVATIONS["PRelu"].interval(view("y = PRelu(x, s)", "double[N,3] x, double[3] s", 6), [x, x]) is None
    known = [cls.identity_on(n) for n in (node, ones) if isinstance(cls := ACTIVATIONS["PRelu"], Elementwise)]
    assert known == [(0, INF), (-INF, INF)]


@pytest.mark.parametrize(
    ("body", "opset", "expected", "identity"),
    [
        ("y = Clip <min = 0.0, max = 6.0> (x)", 6, (0, 6), (0, 6)),
        ("y = Clip <min = -1.0> (x)", 6, (-1, INF), (-1, INF)),
        ("y = Clip(x, zero, six)", 11, (0, 6), (0, 6)),
        ("y = Clip(x, , six)", 13, (-INF, 6), (-INF, 6)),
        ("y = Clip(x, zero)", 13, (0, INF), (0, INF)),
        ("y = Clip(x)", 13, (-INF, INF), (-INF, INF)),
        ("y = Clip(x, six, zero)", 13, (0, 0), None),
        ("y = Clip(x, zero, top)", 13, (0, 9), None),
    ],
)
def test_clip_in_every_opset(
    body: str, opset: int, expected: tuple[float, float], identity: tuple[float, float] | None
) -> None:
    node = view(body, "float[N] x, float top", opset, "float zero = {0}, float six = {6}")
    limits = {"zero": Interval.point(0.0), "six": Interval.point(6.0), "top": box(2.0, 9.0), "": None}
    others = [limits[node.input(i)] for i in range(1, node.n_inputs)]
    assert image(node, -INF, INF, *others) == expected
    clip = ACTIVATIONS["Clip"]
    assert isinstance(clip, Elementwise)
    assert clip.identity_on(node) == identity
    assert image(node, 0.25, 0.5, *others)[0] == min(0.25, expected[1])


def test_the_default_limits_of_old_clips_bind_doubles() -> None:
    node = view("y = Clip <min = 0.0> (x)", "double[N] x", 6)
    assert image(node, 1.0, 1e300) == (1, float(np.finfo(np.float32).max))


def test_channels() -> None:
    for body, inputs, constants in (
        ("y = Gelu(x)", "float[N,3,H] x", ""),
        ("y = Clip(x, low)", "float[N,3,H] x", "float low = {0}"),
        ("y = PRelu(x, s)", "float[N,3,H] x", "float[3,1] s = {1, 2, 3}"),
    ):
        node = view(body, inputs, 21, constants)
        sizes = {(n, a): d for n, t in node.types.items() for a, d in enumerate(t.shape or ()) if isinstance(d, int)}
        links = ChannelMap(sizes)
        assert ACTIVATIONS[node.op].channels(node, links)
        slope = node.op == "PRelu"
        pairs = [(link.left, link.right) for link in links.links]
        assert pairs == [(("x", 1), ("y", 1))] + [(("s", 0), ("y", 1))] * slope
        assert links.locks == ({("s", 1): "broadcast"} if slope else {})
        assert {("y", 0), ("y", 1), ("y", 2)} <= links.mentioned


def test_what_the_engine_asks_of_activations() -> None:
    entrywise = {op: cls for op, cls in ACTIVATIONS.items() if isinstance(cls, Elementwise)}
    assert entrywise.keys() == ACTIVATIONS.keys()
    assert {op for op, cls in entrywise.items() if cls.homogeneous} == {"Relu", "LeakyRelu", "PRelu"}
    positive = {"Relu", "LeakyRelu", "Elu", "Celu"}
    for op in entrywise.keys() - {"Clip", "PRelu"}:
        expected = (0, INF) if op in positive else (3, INF) if op == "HardSwish" else None
        assert entrywise[op].identity_on(view(f"y = {op}(x)")) == expected
    assert entrywise["LeakyRelu"].identity_on(view("y = LeakyRelu <alpha = 1.0> (x)")) == (-INF, INF)
