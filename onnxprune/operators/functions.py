"""Functions of analysis: powers, Exp, Log, Sqrt, Erf, Sin, Cos."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from onnxprune.operators.base import NodeView, Operator
from onnxprune.operators.curve_library import Curved, erf_curve, exponential_curve, logarithm_curve, root_curve
from onnxprune.operators.curves import Curve
from onnxprune.operators.elementwise import Broadcasting, Unary, element_type
from onnxprune.operators.enclosure import KERNEL, absolute, increasing, select, truncated
from onnxprune.operators.interval import LARGEST, TINY, UNIT_ROUNDOFF, Interval, divide, down, negate, up


class Pow(Broadcasting):
    """x ** y: fixed whole exponents for any base, others for a base that can not be negative."""

    op_types = ("Pow",)

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Each case computed everywhere and chosen per entry."""
        x, y = parts
        fixed = (y.lower == y.upper) & np.isfinite(y.lower)
        parity = np.abs(np.where(fixed, y.lower, 0.5) % 2)
        # A fixed fractional power of a negative number is not finite, which the domain rules out.
        real = (x.lower >= 0) | (fixed & (x.upper >= 0))
        result = select(real, _power(x.clamp(0.0, np.inf), y), Interval.everything())
        result = select(parity == 0, _power(absolute(x), y), result)
        result = select(parity == 1, _odd_power(x, y), result)
        return truncated(element_type(node), result)


def _power(base: Interval, y: Interval) -> Interval:
    """Power of a base that is not negative: extreme at the corners, unknown where 0 meets exponents <= 0."""
    lows, highs = [], []
    with np.errstate(all="ignore"):
        for b in (base.lower, base.upper):
            for e in (y.lower, y.upper):
                value = np.power(b, e)
                exact = ((b == 0) & (e > 0)) | (b == 1) | (e == 0) | (e == 1)
                below = np.minimum(value, LARGEST) * (1 - KERNEL) - TINY
                lows.append(np.where(exact, value, np.maximum(below, 0.0)))
                highs.append(np.where(exact, value, value * (1 + KERNEL) + TINY))
    hull = Interval.of(np.minimum.reduce(lows), np.maximum.reduce(highs))
    one = (y.lower == 0) & (y.upper == 0)
    return select((base.lower > 0) | (y.lower > 0) | one, hull, Interval.everything())


def _odd_power(x: Interval, y: Interval) -> Interval:
    """Odd powers: increasing for y > 0, the reciprocal of that for y < 0."""
    ends = []
    for end in (x.lower, x.upper):
        power = _power(Interval.point(np.abs(end)), absolute(y))
        ends.append(select(end < 0, negate(power), power))
    rising = Interval.of(ends[0].lower, ends[1].upper)
    return select(y.lower < 0, divide(Interval.point(1.0), rising), rising)


class Elementary(Curved):
    """Increasing elementary functions."""

    op_types = ("Exp", "Log", "Sqrt", "Erf")
    shapes: ClassVar[dict[str, Callable[[Callable[[Interval], Interval]], Curve]]] = {
        "Exp": exponential_curve,
        "Log": logarithm_curve,
        "Sqrt": root_curve,
        "Erf": erf_curve,
    }

    def curve(self, node: NodeView) -> Curve:
        """Convex, concave or S-shaped."""
        return self.shapes[node.op](partial(self.image_of, node))

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Image of the ends; arguments without a finite value are ruled out by the domain."""
        if node.op == "Exp":
            return increasing(x, np.exp, low=0.0)
        if node.op == "Erf":
            return increasing(x, erf, low=-1.0, high=1.0, zero=0.0)
        defined = x.clamp(0.0, np.inf)
        if node.op == "Log":
            return select(x.upper > 0, increasing(defined, np.log, zero=1.0), Interval.everything())
        root = increasing(defined, np.sqrt, low=0.0, zero=0.0, error=lambda _: UNIT_ROUNDOFF)
        return select(x.upper >= 0, root, Interval.everything())


class Sinusoid(Unary):
    """Sine and cosine."""

    op_types = ("Sin", "Cos")

    def image(self, node: NodeView, x: Interval) -> Interval:
        """The ends, and 1 or -1 where a crest or a trough can not be excluded."""
        sine = node.op == "Sin"
        ends = []
        for end in (x.lower, x.upper):
            with np.errstate(all="ignore"):
                value = np.sin(end) if sine else np.cos(end)
            error = KERNEL * np.minimum(1.0, np.abs(end)) if sine else KERNEL
            wide = Interval.of(down(value - error), up(value + error))
            ends.append(select(end == 0, Interval.point(value), wide))
        hull = ends[0].hull(ends[1])
        crest = np.pi / 2 if sine else 0.0
        lower = np.where(_meets(x, crest + np.pi), -1.0, hull.lower)
        return Interval.of(lower, np.where(_meets(x, crest), 1.0, hull.upper)).clamp(-1.0, 1.0)


def _meets(x: Interval, phase: float) -> NDArray[np.bool_]:
    """Whether ``phase + 2 k pi`` may lie inside for a whole number k."""
    first, last = (x.lower - phase) / (2 * np.pi), (x.upper - phase) / (2 * np.pi)
    with np.errstate(all="ignore"):
        first = np.where(np.isfinite(first), first - 1e-14 * (1 + np.abs(first)), -np.inf)
        last = np.where(np.isfinite(last), last + 1e-14 * (1 + np.abs(last)), np.inf)
    meets: NDArray[np.bool_] = np.ceil(first) <= np.floor(last)
    return meets


OPERATORS: tuple[type[Operator], ...] = (
    Pow,
    Elementary,
    Sinusoid,
)
