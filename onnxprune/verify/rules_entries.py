"""Rules for operators that treat every entry by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.forward import Given, rule
from onnxprune.verify.numbers import Interval, Numbers, larger, number, smaller

Floats = NDArray[np.float64]
KERNEL = 1e-13
"""Relative error that the float64 functions of NumPy stay below by far."""


@rule("Identity", "Dropout")
def _identity(given: Given) -> Sequence[Interval] | None:
    if given.node.op == "Dropout" and given.node.has(2) and np.any(given.constant(2)):
        return None
    return [given.bounds(0)]


@rule("Relu")
def _relu(given: Given) -> Sequence[Interval]:
    return [given.bounds(0).monotone(lambda x: larger(x, number(0.0, x)))]


@rule("LeakyRelu")
def _leaky(given: Given) -> Sequence[Interval] | None:
    slope = float(given.node.get("alpha", 0.01))
    return [_bent(given.bounds(0), given.point(slope))] if slope >= 0 else None


@rule("PRelu")
def _prelu(given: Given) -> Sequence[Interval] | None:
    slope = given.constant(1)
    return [_bent(given.bounds(0), given.point(slope))] if slope is not None and (slope >= 0).all() else None


def _bent(x: Interval, slope: Interval) -> Interval:
    zero = number(0.0, x.low)
    return x.monotone(lambda v: larger(v, zero)) + x.monotone(lambda v: smaller(v, zero)) * slope


@rule("Clip")
def _clip(given: Given) -> Sequence[Interval] | None:
    ends = clip_ends(given)
    return None if ends is None else [given.bounds(0).clamped(*ends)]


def clip_ends(given: Given) -> tuple[float, float] | None:
    """The range of a Clip; None where it is computed."""
    largest = given.net.largest(given.node.inputs[0])
    ends = [float(given.node.get("min", largest[0])), float(given.node.get("max", largest[1]))]
    for place in (0, 1):
        if given.node.has(place + 1):
            value = given.constant(place + 1)
            if value is None or np.size(value) != 1:
                return None
            ends[place] = float(np.asarray(value).reshape(()))
    return (ends[0], ends[1]) if ends[0] <= ends[1] else None


@rule("Add", "Sum")
def _add(given: Given) -> Sequence[Interval]:
    total = given.bounds(0)
    for index in range(1, len(given.node.inputs)):
        total = total + given.bounds(index)
    return [total]


@rule("Sub")
def _subtract(given: Given) -> Sequence[Interval]:
    return [given.bounds(0) - given.bounds(1)]


@rule("Mul")
def _multiply(given: Given) -> Sequence[Interval]:
    return [given.bounds(0) * given.bounds(1)]


@rule("Div")
def _divide(given: Given) -> Sequence[Interval] | None:
    inverse = reciprocal(given.bounds(1))
    return None if inverse is None else [given.bounds(0) * inverse]


def reciprocal(x: Interval) -> Interval | None:
    """One over what cannot be zero; None where it can."""
    low, high = x.floats()
    if not ((low > 0) | (high < 0)).all():
        return None
    ends = [1.0 / high, 1.0 / low]
    plain = [_is_power(end) for end in (high, low)]
    return x.like(
        np.where(plain[0], ends[0], np.nextafter(ends[0], -np.inf)),
        np.where(plain[1], ends[1], np.nextafter(ends[1], np.inf)),
    )


def _is_power(values: Floats) -> NDArray[np.bool_]:
    powers: NDArray[np.bool_] = np.abs(np.frexp(values)[0]) == 0.5
    return powers


@rule("Neg")
def _negate(given: Given) -> Sequence[Interval]:
    return [-given.bounds(0)]


@rule("Abs")
def _absolute(given: Given) -> Sequence[Interval]:
    x = given.bounds(0)
    zero = number(0.0, x.low)
    return [Interval(larger(larger(x.low, -x.high), zero), x.magnitude())]


@rule("Max", "Min")
def _extremes(given: Given) -> Sequence[Interval]:
    pick: Callable[[Numbers, Numbers], Numbers] = larger if given.node.op == "Max" else smaller
    total = given.bounds(0)
    for index in range(1, len(given.node.inputs)):
        other = given.bounds(index)
        total = Interval(pick(total.low, other.low), pick(total.high, other.high))
    return [total]


@rule("Where")
def _where(given: Given) -> Sequence[Interval]:
    return [given.bounds(1).hull(given.bounds(2))]


def sigmoid(x: Floats) -> Floats:
    """The logistic function, without overflow."""
    return np.where(x >= 0, 1.0 / (1.0 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1.0 + np.exp(-np.abs(x))))


SMOOTH: dict[str, tuple[Callable[[Floats], Floats], float, float]] = {
    "Sigmoid": (sigmoid, 0.0, 1.0),
    "Tanh": (np.tanh, -1.0, 1.0),
    "Exp": (np.exp, 0.0, np.inf),
    "Softplus": (lambda x: np.logaddexp(x, 0.0), 0.0, np.inf),
    "Atan": (np.arctan, -1.6, 1.6),
    "Floor": (np.floor, -np.inf, np.inf),
    "Ceil": (np.ceil, -np.inf, np.inf),
    "Sqrt": (lambda x: np.sqrt(np.maximum(x, 0.0)), 0.0, np.inf),
}
"""Non-decreasing functions and the ranges they keep to."""


@rule(*SMOOTH, "HardSigmoid", "Erf", "Elu", "Softsign")
def _smooth(given: Given) -> Sequence[Interval] | None:
    function, least, most = _function(given)
    low, high = given.bounds(0).floats()
    if given.node.op == "Sqrt" and (low < 0).any():
        return None
    return [outward(given.bounds(0), function(low), function(high), least, most)]


def _function(given: Given) -> tuple[Callable[[Floats], Floats], float, float]:
    op = given.node.op
    if op == "HardSigmoid":
        slope, shift = float(given.node.get("alpha", 0.2)), float(given.node.get("beta", 0.5))
        return (lambda x: np.clip(slope * x + shift, 0.0, 1.0)), 0.0, 1.0
    if op == "Elu":
        size = float(given.node.get("alpha", 1.0))
        return (lambda x: np.where(x > 0, x, size * np.expm1(np.minimum(x, 0.0)))), -abs(size), np.inf
    if op == "Softsign":
        return (lambda x: x / (1.0 + np.abs(x))), -1.0, 1.0
    if op == "Erf":
        return erf, -1.0, 1.0
    return SMOOTH[op]


def erf(x: Floats) -> Floats:
    """The error function."""
    from scipy import special  # noqa: PLC0415 # NumPy has none

    return np.asarray(special.erf(x), dtype=np.float64)


def outward(like: Interval, low: Floats, high: Floats, least: float, most: float) -> Interval:
    """Computed ends of a non-decreasing function, widened by the error of its kernel and cut to its range."""
    tiny = float(np.finfo(np.float64).tiny)
    with np.errstate(all="ignore"):
        low = np.nextafter(low - np.abs(low) * KERNEL - tiny, -np.inf)
        high = np.nextafter(high + np.abs(high) * KERNEL + tiny, np.inf)
    return like.like(np.clip(low, least, most), np.clip(high, least, most))


@rule("HardSwish")
def _hard_swish(given: Given) -> Sequence[Interval]:
    def swish(x: Floats) -> Floats:
        return x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)

    low, high = given.bounds(0).floats()
    ends: list[Any] = [swish(low), swish(high)]
    bottom = np.where((low <= -1.5) & (high >= -1.5), -0.375, np.minimum(*ends))
    return [outward(given.bounds(0), bottom, np.maximum(*ends), -0.375, np.inf)]


@rule("Softmax")
def _softmax(given: Given) -> Sequence[Interval]:
    shape = given.bounds(0).shape
    return [given.bounds(0).like(np.zeros(shape), np.ones(shape))]


@rule("Cast")
def _cast(given: Given) -> Sequence[Interval] | None:
    kinds = [given.net.kinds.get(name) for name in (given.node.inputs[0], given.node.outputs[0])]
    same = all(k is not None and k.dtype is not None for k in kinds) and kinds[0].dtype == kinds[1].dtype  # type: ignore[union-attr]
    return [given.bounds(0)] if same else None
