"""Smooth activations in a walk back: their second derivative says how far they can leave their chords."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.forward import Given
from onnxprune.verify.numbers import UNIT
from onnxprune.verify.rules_entries import KERNEL, erf, sigmoid

Floats = NDArray[np.float64]
PIECES = 24
"""Parts that an interval is cut into."""
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Curve:
    """A function with a bounded second derivative.

    Attributes:
        value: The function; its kernel errs by less than ``KERNEL``, relative.
        slope: Its derivative, roughly.
        bend: Largest absolute value of its second derivative.
    """

    value: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]
    bend: float


def _elu(x: Floats) -> Floats:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0.0)))


CURVES = {
    "Sigmoid": Curve(sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x)), 0.0963),
    "Tanh": Curve(np.tanh, lambda x: 1 - np.tanh(x) ** 2, 0.77),
    "Softplus": Curve(lambda x: np.logaddexp(x, 0.0), sigmoid, 0.25),
    "Erf": Curve(erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-np.square(x)), 0.968),
    "Elu": Curve(_elu, lambda x: np.exp(np.minimum(x, 0.0)), 1.0),
}


def curve(given: Given) -> Curve | None:
    """What is known of a node; None for other nodes, and for Elu with a kink."""
    if given.node.op == "Elu" and float(given.node.get("alpha", 1.0)) != 1.0:
        return None
    return CURVES.get(given.node.op)


def multipliers(known: Curve, c: Floats, low: Floats, high: Floats, *, chord: bool) -> Floats:
    """Slopes to go back with: of the chord, or of the flatter end."""
    if chord:
        width = high - low
        slope = (known.value(high) - known.value(low)) / np.where(width > 0, width, 1.0)
    else:
        slope = np.minimum(known.slope(low), known.slope(high))
    return c * np.where(np.isfinite(slope), slope, 0.0)


def largest(known: Curve, c: Floats, d: Floats, low: Floats, high: Floats) -> Floats:
    """Upper bounds on ``c s(x) - d x`` over [low, high].

    Between two points h apart a function with a second derivative of at most M stays within ``M h**2 / 8`` of its
    chord.
    """
    with np.errstate(all="ignore"):
        most = np.full(np.broadcast_shapes(c.shape, low.shape), -np.inf)
        widest = np.zeros(np.broadcast_shapes(low.shape))
        last = low
        for k in range(PIECES + 1):
            x = high if k == PIECES else low + (high - low) * (k / PIECES)
            value = known.value(x)
            cost = np.abs(c) * (np.abs(value) * (KERNEL + 4 * UNIT) + TINY) + 4 * UNIT * np.abs(d * x)
            most = np.maximum(most, c * value - d * x + cost)
            widest = np.maximum(widest, np.abs(x - last))
            last = x
        total = most + np.abs(c) * known.bend * (widest * (1 + 4 * UNIT)) ** 2 / 8 * (1 + 8 * UNIT)
    return np.where(np.isnan(total), np.inf, np.nextafter(total, np.inf))
