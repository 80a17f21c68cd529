"""The shapes of the smooth functions that ONNX has operators for: where they bend which way, and their tails.

Each claim about convexity follows from the sign of the second derivative, stated beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.special import expit, ndtr

from onnxprune.operators.base import NodeView
from onnxprune.operators.curves import Curve, Region
from onnxprune.operators.elementwise import Unary
from onnxprune.operators.enclosure import increasing, select
from onnxprune.operators.interval import Array, Interval, add, divide, multiply
from onnxprune.operators.kernels import TWO_OVER_ROOT_PI, bell, gauss, normal_cdf, normal_density, sigmoid
from onnxprune.operators.lines import Tails
from onnxprune.operators.relaxation import Relaxation
from onnxprune.operators.static import variables

Map = Callable[[Interval], Interval]
Rate = Callable[[Array], Array]
INF = np.inf
POINT = Interval.point
CONVEX = (Region(-INF, 0.0, convex=True), Region(0.0, INF, convex=True))
S_SHAPED = (Region(-INF, 0.0, convex=True), Region(0.0, INF, concave=True))
GELU_BEND = 1.4142135623730951
"""Where Gelu changes its curvature: the square root of 2, as its second derivative is density(x) (2 - x^2)."""
SWISH_BEND = 2.399357280515468
"""The root of x tanh(x / 2) = 2: the second derivative of x sigmoid(x) is bell(x) (2 - x tanh(x / 2))."""
SLIVER = 1e-9
"""How far these may be off; around them nothing is assumed."""


class Curved(Unary):
    """A function of one variable with a known shape; subclasses state it."""

    def curve(self, node: NodeView) -> Curve | None:
        """The shape, None (the default) where it is not known."""
        return None

    def image_of(self, node: NodeView, x: Interval) -> Interval:
        """Bounds of the output, where nothing is known no bounds."""
        found = self.image(node, x)
        return Interval.everything() if found is None else found

    def relax(self, node: NodeView, low: Array, high: Array) -> Relaxation | None:
        curve = self.curve(node) if variables(node) == [0] else None
        return None if curve is None else curve.relax(low, high)

    def derivative(self, node: NodeView, x: Array) -> Array | None:
        """From the shape, else a difference quotient."""
        curve = self.curve(node)
        if curve is not None:
            return curve.derivative(x)
        step = 1e-5 * (1.0 + np.abs(x))
        images = [self.image(node, POINT(x + side * step)) for side in (-1, 1)]
        values = [image.lower / 2 + image.upper / 2 for image in images if image is not None]
        if len(values) < 2:
            return None
        with np.errstate(all="ignore"):
            return np.nan_to_num((values[1] - values[0]) / (2 * step), posinf=0.0, neginf=0.0)


def tails(left: float, right: float) -> Tails:
    """Slopes towards both ends."""
    return Tails(np.array(left), np.array(right))


def bell_rate(x: Array) -> Array:
    """The slope of the sigmoid."""
    return np.asarray(expit(x) * expit(-x))


def s_shaped(value: Map, slope: Map, rate: Rate, low: float, high: float) -> Curve:
    """Convex on the left of zero, concave on the right, level at both ends."""
    return Curve(value, slope, rate, S_SHAPED, tails(0, 0), (POINT(low), POINT(high)))


def sigmoid_curve(value: Map) -> Curve:
    """The second derivative is bell(x) (1 - 2 sigmoid(x))."""
    return s_shaped(value, bell, bell_rate, 0.0, 1.0)


def tanh_curve(value: Map) -> Curve:
    """tanh(x) = 2 sigmoid(2x) - 1."""
    two, four = POINT(2.0), POINT(4.0)

    def slope(x: Interval) -> Interval:
        return multiply(four, bell(multiply(two, x)))

    return s_shaped(value, slope, lambda x: 4.0 * bell_rate(2.0 * x), -1.0, 1.0)


def erf_curve(value: Map) -> Curve:
    """The second derivative has the sign of -x."""

    def slope(x: Interval) -> Interval:
        return multiply(TWO_OVER_ROOT_PI, gauss(x))

    return s_shaped(value, slope, lambda x: 1.1283791670955126 * np.exp(-x * x), -1.0, 1.0)


def softsign_curve(value: Map) -> Curve:
    """The derivative is 1 / (1 + |x|)^2, largest at zero."""

    def slope(x: Interval) -> Interval:
        share = divide(POINT(1.0), add(POINT(1.0), Interval.of(np.abs(x.lower), np.abs(x.lower))))
        return multiply(share, share)

    return s_shaped(value, slope, lambda x: 1.0 / (1.0 + np.abs(x)) ** 2, -1.0, 1.0)


def softplus_curve(value: Map) -> Curve:
    """Its derivative is the sigmoid, which increases."""
    return Curve(value, sigmoid, expit, CONVEX, tails(0, 1), (POINT(0.0), POINT(0.0)))


def exponential_curve(value: Map) -> Curve:
    """Convex."""
    return Curve(value, value, np.exp, CONVEX, tails(0, INF), (POINT(0.0), POINT(0.0)))


def root_curve(value: Map) -> Curve:
    """Concave; the derivative of the square root is half its reciprocal."""
    half = POINT(0.5)
    regions = (Region(0.0, INF, concave=True),)
    rate: Rate = lambda x: 0.5 / np.sqrt(x)  # noqa: E731
    return Curve(value, lambda x: divide(half, value(x)), rate, regions, tails(INF, 0), (POINT(INF), POINT(INF)))


def logarithm_curve(value: Map) -> Curve:
    """Concave."""
    regions = (Region(0.0, INF, concave=True),)
    one = POINT(1.0)
    return Curve(value, lambda x: divide(one, x), np.reciprocal, regions, tails(INF, 0), (POINT(-INF), POINT(INF)))


def elu_curve(value: Map, left: Map, stretch: float, floor: Interval, right: Interval, *, convex: bool) -> Curve:
    """An exponential part on the left of zero, straight on the right.

    Args:
        value: The function.
        left: Derivative of the exponential part.
        stretch: What the argument of the exponential is divided by.
        floor: Limit on the left.
        right: Slope on the right.
        convex: Whether the exponential part is convex, else concave.
    """

    def slope(x: Interval) -> Interval:
        exponential = left(x.clamp(-INF, 0.0))
        return select(x.upper < 0, exponential, select(x.lower > 0, right, exponential.hull(right)))

    def rate(x: Array) -> Array:
        inner = floor.lower / -stretch * np.exp(np.minimum(x, 0.0) / stretch)
        return np.where(x > 0, right.lower, inner)

    regions = (
        Region(-INF, 0.0, convex=convex, concave=not convex),
        Region(0.0, INF, convex=True, concave=True),
    )
    return Curve(value, slope, rate, regions, Tails(np.array(0.0), np.array(right.lower)), (floor, POINT(0.0)))


def hard_swish_curve(value: Map) -> Curve:
    """A parabola between -3 and 3, straight outside."""

    def slope(x: Interval) -> Interval:
        inner = divide(add(multiply(POINT(2.0), x), POINT(3.0)), POINT(6.0))
        level, rising = POINT(0.0), POINT(1.0)
        inner = select(x.lower <= -3, inner.hull(level), select(x.upper >= 3, inner.hull(rising), inner))
        return select(x.upper < -3, level, select(x.lower > 3, rising, inner))

    straight = partial(Region, convex=True, concave=True)
    regions = (straight(-INF, -3.0), Region(-3.0, 3.0, convex=True), straight(3.0, INF))

    def rate(x: Array) -> Array:
        return np.where(x <= -3, 0.0, np.where(x >= 3, 1.0, (2.0 * x + 3.0) / 6.0))

    return Curve(value, slope, rate, regions, tails(0, 1), (POINT(0.0), POINT(0.0)))


def dipping_curve(value: Map, slope: Map, rate: Rate, bend: float) -> Curve:
    """Convex between two inflections, concave outside, level on the left and rising with slope 1 on the right."""
    wide, tight = bend * (1 + SLIVER), bend * (1 - SLIVER)
    regions = (
        Region(-INF, -wide, concave=True),
        Region(-wide, -tight),
        Region(-tight, tight, convex=True),
        Region(tight, wide),
        Region(wide, INF, concave=True),
    )
    return Curve(value, slope, rate, regions, tails(0, 1), (POINT(0.0), POINT(0.0)))


def gelu_curve(value: Map) -> Curve:
    """X times the normal distribution function."""

    def slope(x: Interval) -> Interval:
        return add(normal_cdf(x), multiply(x, normal_density(x)))

    def rate(x: Array) -> Array:
        return np.asarray(ndtr(x) + x * 0.3989422804014327 * np.exp(-0.5 * x * x))

    return dipping_curve(value, slope, rate, GELU_BEND)


def swish_curve(value: Map, alpha: float) -> Curve:
    """X sigmoid(alpha x) for positive alpha: the function for alpha = 1, scaled along both axes."""
    factor = POINT(alpha)

    def slope(x: Interval) -> Interval:
        u = multiply(factor, x)
        return add(sigmoid(u), multiply(u, bell(u)))

    def rate(x: Array) -> Array:
        return np.asarray(expit(alpha * x) + alpha * x * bell_rate(alpha * x))

    return dipping_curve(value, slope, rate, SWISH_BEND / alpha)


def growth(x: Interval) -> Interval:
    """exp(x)."""
    return increasing(x, np.exp, low=0.0)
