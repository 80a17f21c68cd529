"""Activations that are curved: exponential, sigmoid-shaped, or with one minimum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np

from onnxprune.operators.activation import Rectifier, halves, single_precision
from onnxprune.operators.base import NodeView, Operator
from onnxprune.operators.curve_library import (
    Curved,
    elu_curve,
    gelu_curve,
    growth,
    hard_swish_curve,
    sigmoid_curve,
    softplus_curve,
    softsign_curve,
    swish_curve,
    tanh_curve,
)
from onnxprune.operators.curves import Curve
from onnxprune.operators.enclosure import increasing, select
from onnxprune.operators.interval import Array, Interval, add, divide, multiply, negate
from onnxprune.operators.kernels import enclosed, exponential, normal_cdf, sigmoid

NEAR = 1e-9
"""How far a stored minimiser may be off: a minimum is flat, so this costs less than an ulp of the value."""

GELU_DIP = (-0.7517915246935645, -0.16997120747990369)
TANH_GELU_DIP = (-0.7524614220710163, -0.1700407505712541)
SWISH_DIP = (-1.2784645427610738, -0.27846454276107385)
MISH_DIP = (-1.1924312145154952, -0.3088434130172505)
"""Where each function is smallest, and its smallest value rounded down."""


GELU_SCALE = enclosed(1.5957691216057308)  # 2 sqrt(2/pi)
GELU_CUBIC = enclosed(0.044715)


def dip(x: Interval, at: Callable[[Interval], Interval], lowest: tuple[float, float]) -> Interval:
    """Image of a function that falls from 0 at -inf to one minimum and rises from there on.

    Every x g(x), where g is positive and increasing, and log-concave left of zero, is of this kind: there the
    sign of its slope is that of 1 + x (log g)', which increases.

    Args:
        x: Bounds of the argument.
        at: The function at points.
        lowest: The minimiser (up to ``NEAR``) and a lower bound on the minimum.
    """
    place, bottom = lowest
    zero = Interval.point(0.0)
    left, right = (select(end == -np.inf, zero, at(Interval.point(end))) for end in (x.lower, x.upper))
    hull = left.hull(right)
    inside = (x.lower <= place + NEAR) & (x.upper >= place - NEAR)
    return Interval.of(np.where(inside, bottom, np.maximum(hull.lower, bottom)), hull.upper)


class Elu(Curved, Rectifier):
    """x, or alpha (exp(x) - 1) for negative x."""

    op_types = ("Elu",)

    def curve(self, node: NodeView) -> Curve:
        """Bent as alpha is signed."""
        alpha = Interval.point(float(node.attr("alpha", 1.0)))
        return elu_curve(
            partial(self.image_of, node),
            lambda x: multiply(alpha, growth(x)),
            1.0,
            negate(alpha),
            Interval.point(1.0),
            convex=bool(alpha.lower >= 0),
        )

    def negative(self, node: NodeView, x: Interval) -> Interval:
        """Product of alpha and the exponential part."""
        return multiply(Interval.point(float(node.attr("alpha", 1.0))), exponential(x))


class Celu(Curved, Rectifier):
    """x, or alpha (exp(x / alpha) - 1) for negative x, for either sign of alpha."""

    op_types = ("Celu",)

    def curve(self, node: NodeView) -> Curve | None:
        """Convex for positive alpha; for others nothing is claimed."""
        alpha = Interval.point(float(node.attr("alpha", 1.0)))
        if alpha.lower <= 0:
            return None
        one = Interval.point(1.0)
        return elu_curve(
            partial(self.image_of, node),
            lambda x: growth(divide(x, alpha)),
            float(alpha.lower),
            negate(alpha),
            one,
            convex=True,
        )

    def negative(self, node: NodeView, x: Interval) -> Interval | None:
        """Product of alpha and the exponential part; alpha = 0 is no function."""
        alpha = Interval.point(float(node.attr("alpha", 1.0)))
        return multiply(alpha, exponential(divide(x, alpha))) if alpha.lower != 0 else None


class Selu(Curved):
    """gamma x, or gamma alpha (exp(x) - 1) for negative x."""

    op_types = ("Selu",)

    @staticmethod
    def _parameters(node: NodeView) -> tuple[Interval, Interval]:
        alpha = Interval.point(float(node.attr("alpha", single_precision(1.6732632))))
        return alpha, Interval.point(float(node.attr("gamma", single_precision(1.050701))))

    def curve(self, node: NodeView) -> Curve:
        """Bent as the product of both is signed."""
        alpha, gamma = self._parameters(node)
        scale = multiply(alpha, gamma)
        return elu_curve(
            partial(self.image_of, node),
            lambda x: multiply(scale, growth(x)),
            1.0,
            negate(scale),
            gamma,
            convex=bool(alpha.lower * np.sign(gamma.lower) >= 0),
        )

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Product of gamma and an Elu."""
        alpha, gamma = self._parameters(node)
        return multiply(gamma, halves(x, multiply(alpha, exponential(x.clamp(-np.inf, 0.0)))))


class Monotone(Curved):
    """Smooth increasing functions."""

    op_types = ("Sigmoid", "Tanh", "Softplus", "Softsign")
    shapes: ClassVar[dict[str, Callable[[Callable[[Interval], Interval]], Curve]]] = {
        "Sigmoid": sigmoid_curve,
        "Tanh": tanh_curve,
        "Softplus": softplus_curve,
        "Softsign": softsign_curve,
    }

    def curve(self, node: NodeView) -> Curve:
        """S-shaped, but for Softplus."""
        return self.shapes[node.op](partial(self.image_of, node))

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Image of the ends."""
        if node.op == "Sigmoid":
            return sigmoid(x)
        if node.op == "Softplus":
            return increasing(x, _softplus, low=0.0)
        kernel = np.tanh if node.op == "Tanh" else _softsign
        return increasing(x, kernel, low=-1.0, high=1.0, zero=0.0)


def _softplus(values: Array) -> Array:
    result: Array = np.maximum(values, 0.0) + np.log1p(np.exp(-np.abs(values)))
    return result


def _softsign(values: Array) -> Array:
    return np.where(np.isinf(values), np.sign(values), values / (1.0 + np.abs(values)))


class HardSwish(Curved):
    """x times the hard sigmoid with slope 1/6 (exactly, as the operator's text says)."""

    op_types = ("HardSwish",)

    def curve(self, node: NodeView) -> Curve:
        """A parabola between two straight pieces."""
        return hard_swish_curve(partial(self.image_of, node))

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Smallest at -3/2."""
        return dip(x, _hard_swish, (-1.5, -0.375))

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """From 3 on."""
        return 3.0, np.inf


def _hard_swish(x: Interval) -> Interval:
    middle = divide(multiply(x, add(x, Interval.point(3.0))), Interval.point(6.0))
    return select(x.upper <= -3, Interval.point(0.0), select(x.lower >= 3, x, middle))


class Gelu(Curved):
    """x times the normal distribution function, or its approximation by tanh."""

    op_types = ("Gelu",)

    def curve(self, node: NodeView) -> Curve | None:
        """Known for the exact form."""
        exact = node.attr("approximate", "none") == "none"
        return gelu_curve(partial(self.image_of, node)) if exact else None

    def image(self, node: NodeView, x: Interval) -> Interval | None:
        """One minimum."""
        approximate = node.attr("approximate", "none")
        if approximate == "none":
            return dip(x, _gelu, GELU_DIP)
        return dip(x, _tanh_gelu, TANH_GELU_DIP) if approximate == "tanh" else None


def _gelu(x: Interval) -> Interval:
    return multiply(x, normal_cdf(x))


def _tanh_gelu(x: Interval) -> Interval:
    inner = add(Interval.point(1.0), multiply(GELU_CUBIC, multiply(x, x)))
    return multiply(x, sigmoid(multiply(multiply(GELU_SCALE, x), inner)))


class Mish(Curved):
    """x tanh(softplus(x))."""

    op_types = ("Mish",)

    def image(self, node: NodeView, x: Interval) -> Interval:
        """One minimum."""
        return dip(x, _mish, MISH_DIP)


def _mish(x: Interval) -> Interval:
    return multiply(x, increasing(x, _mish_gate, low=0.0, high=1.0))


def _mish_gate(values: Array) -> Array:
    """tanh(log(1 + exp(x))) without overflow and without cancellation."""
    small = np.exp(-np.abs(values))
    rising = small * (small + 2.0)
    result: Array = np.where(
        values < 0, rising / (rising + 2.0), (1.0 + 2.0 * small) / (1.0 + 2.0 * small * (1.0 + small))
    )
    return result


class Swish(Curved):
    """x sigmoid(alpha x)."""

    op_types = ("Swish",)
    flat: ClassVar[Interval] = Interval.point(0.5)

    def curve(self, node: NodeView) -> Curve | None:
        """Known for positive alpha."""
        alpha = float(node.attr("alpha", 1.0))
        return swish_curve(partial(self.image_of, node), alpha) if alpha > 0 else None

    def image(self, node: NodeView, x: Interval) -> Interval:
        """The function for alpha = 1, scaled along both axes."""
        alpha = Interval.point(float(node.attr("alpha", 1.0)))
        if alpha.lower == 0:
            return multiply(x, self.flat)
        return divide(dip(multiply(alpha, x), _swish, SWISH_DIP), alpha)


def _swish(x: Interval) -> Interval:
    return multiply(x, sigmoid(x))


OPERATORS: tuple[type[Operator], ...] = (
    Elu,
    Celu,
    Selu,
    Monotone,
    HardSwish,
    Gelu,
    Mish,
    Swish,
)
