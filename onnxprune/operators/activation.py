"""Activations that are piecewise linear; the others are in :mod:`onnxprune.operators.smooth_activation`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.channels import ChannelMap
from onnxprune.operators.elementwise import Broadcasting, Unary, element_type, given, unary_channels
from onnxprune.operators.enclosure import select, wrapped
from onnxprune.operators.interval import Array, Interval, add, multiply
from onnxprune.operators.ramps import Ramps, Segments, relu_lines, straight
from onnxprune.operators.relaxation import Relaxation
from onnxprune.operators.static import reals

FLOAT_MAX = float(np.finfo(np.float32).max)


def single_precision(default: float) -> float:
    """The default of a float attribute as it is stored: in single precision."""
    return float(np.float32(default))


class Rectifier(Unary):
    """The identity for x >= 0, another function for x <= 0; both are 0 at 0."""

    def negative(self, node: NodeView, x: Interval) -> Interval | None:
        """Image of bounds that are not positive, None when nothing is known (the default)."""
        return None

    def image(self, node: NodeView, x: Interval) -> Interval | None:
        """Image of the two halves."""
        left = self.negative(node, x.clamp(-np.inf, 0.0))
        return None if left is None else halves(x, left)

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """The non-negative numbers."""
        return 0.0, np.inf


def halves(x: Interval, left: Interval) -> Interval:
    """``left`` where x is not positive, x where it is not negative, else the hull of both."""
    right = x.clamp(0.0, np.inf)
    return select(x.upper <= 0, left, select(x.lower >= 0, right, left.hull(right)))


class Relu(Ramps, Rectifier):
    """max(x, 0), exact."""

    op_types = ("Relu",)
    homogeneous = True

    def segments(self, node: NodeView) -> Segments:
        """Flat, then rising."""
        return Segments(straight(0, 1), straight(0))

    def relax(self, node: NodeView, low: Array, high: Array) -> Relaxation:
        """The general rule written out, as most time goes here."""
        return relu_lines(low, high)

    def negative(self, node: NodeView, x: Interval) -> Interval:
        """Zero."""
        return Interval.point(0.0)


class LeakyRelu(Ramps, Rectifier):
    """x, or alpha x for negative x."""

    op_types = ("LeakyRelu",)
    homogeneous = True

    def _slope(self, node: NodeView) -> float:
        return float(node.attr("alpha", single_precision(0.01)))

    def segments(self, node: NodeView) -> Segments:
        """Two slopes that meet at zero."""
        return Segments(straight(self._slope(node), 1), straight(0))

    def negative(self, node: NodeView, x: Interval) -> Interval:
        """Product with the slope."""
        return multiply(Interval.point(self._slope(node)), x)

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """The non-negative numbers, everything for slope 1."""
        return (-np.inf if self._slope(node) == 1 else 0.0), np.inf


class PRelu(Ramps, Broadcasting):
    """x, or slope x for negative x; the slope may be any tensor."""

    op_types = ("PRelu",)
    homogeneous = True

    def supported(self, node: NodeView) -> bool:
        """Before opset 7 a slope vector stood for the channels, wherever they were."""
        slope = node.constant(1)
        return node.opset >= 7 or (slope is not None and slope.size == 1)

    def segments(self, node: NodeView) -> Segments | None:
        """Two slopes that meet at zero, for a constant slope."""
        slope = reals(node, 1)
        return None if slope is None or not self.supported(node) else Segments(straight(slope, 1), straight(0))

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Product with the slope."""
        x, slope = parts
        return wrapped(element_type(node), halves(x, multiply(slope, x.clamp(-np.inf, 0.0))))

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """The non-negative numbers, everything where all slopes are 1."""
        slope = node.constant(1)
        return (-np.inf if slope is not None and bool(np.all(slope == 1)) else 0.0), np.inf


class ThresholdedRelu(Unary):
    """x above alpha, else 0."""

    op_types = ("ThresholdedRelu",)

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Zero, x, or both."""
        alpha = float(node.attr("alpha", 1.0))
        both = x.clamp(alpha, np.inf).include(0.0)
        return select(x.upper <= alpha, Interval.point(0.0), select(x.lower > alpha, x, both))


class Clip(Ramps):
    """min(max(x, low), high): attributes up to opset 6, inputs from opset 11."""

    op_types = ("Clip",)

    def _limits(self, node: NodeView, inputs: Inputs) -> tuple[Interval, Interval]:
        if node.opset < 11:
            # The default is the largest single-precision number, which binds nothing but a double.
            dtype = element_type(node)
            edge = np.inf if dtype is not None and dtype.name in ("float16", "float32") else FLOAT_MAX
            low, high = float(node.attr("min", -edge)), float(node.attr("max", edge))
            return Interval.point(low), Interval.point(high)
        low_given, high_given = node.has_input(1), node.has_input(2)
        return (
            given(inputs, 1) if low_given else Interval.point(-np.inf),
            given(inputs, 2) if high_given else Interval.point(np.inf),
        )

    def segments(self, node: NodeView) -> Segments | None:
        """Level, rising, level; a limit that binds nothing is left out."""
        limits = self._constant_limits(node)
        if limits is None:
            return None
        low, high = limits
        if low >= high:
            return Segments(straight(0), offset=high)
        knots = [value for value in limits if np.isfinite(value)]
        inner = (0, 1) if np.isfinite(low) else (1,)
        slopes = (*inner, 0) if np.isfinite(high) else inner
        return Segments(straight(*slopes), straight(*knots), offset=low if np.isfinite(low) else 0.0)

    def interval(self, node: NodeView, inputs: Inputs) -> Sequence[Interval] | None:
        """Both ends limited; the upper limit wins."""
        x = given(inputs, 0)
        low, high = (_scalar(limit) for limit in self._limits(node, inputs))
        lower = np.minimum(np.maximum(x.lower, low.lower), high.lower)
        return [Interval.of(lower, np.minimum(np.maximum(x.upper, low.upper), high.upper))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Every axis of x index for index; the limits are scalars."""
        return unary_channels(node, links)

    def _constant_limits(self, node: NodeView) -> tuple[float, float] | None:
        known = [None if v is None else Interval.point(v) for v in (node.constant(i) for i in range(3))]
        if node.opset >= 11 and any(node.has_input(i) and known[i] is None for i in (1, 2)):
            return None
        low, high = (float(_scalar(limit).lower) for limit in self._limits(node, known))
        return low, high

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """Between constant limits."""
        limits = self._constant_limits(node)
        return limits if limits is not None and limits[0] <= limits[1] else None


def _scalar(limit: Interval) -> Interval:
    return Interval.of(limit.lower.min(), limit.upper.max()) if limit.ndim else limit


class HardSigmoid(Ramps, Unary):
    """alpha x + beta between 0 and 1."""

    op_types = ("HardSigmoid",)

    @staticmethod
    def _parameters(node: NodeView) -> tuple[float, float]:
        return float(node.attr("alpha", single_precision(0.2))), float(node.attr("beta", 0.5))

    def segments(self, node: NodeView) -> Segments | None:
        """Level, sloping, level."""
        alpha, beta = self._parameters(node)
        if alpha == 0:
            return Segments(straight(0), offset=min(max(beta, 0.0), 1.0))
        zero, one = -beta / alpha, (1.0 - beta) / alpha
        if not np.isfinite([zero, one]).all():
            return None
        knots = straight(zero, one) if alpha > 0 else straight(one, zero)
        return Segments(straight(0, alpha, 0), knots, offset=0.0 if alpha > 0 else 1.0, rounded=True)

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Affine, then limited."""
        alpha, beta = (Interval.point(value) for value in self._parameters(node))
        return add(multiply(alpha, x), beta).clamp(0.0, 1.0)


OPERATORS: tuple[type[Operator], ...] = (
    Relu,
    LeakyRelu,
    PRelu,
    ThresholdedRelu,
    Clip,
    HardSigmoid,
)
