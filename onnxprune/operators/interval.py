"""Intervals over tensors: float64 arrays that broadcast against the tensor, rounded outward.

Rounding follows Rump's style of error bounds: a sum of n float64 products, in any order, is off by at most
``gamma(n)`` times the sum of the absolute products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

UNIT_ROUNDOFF = 2.0**-53
TINY = float(np.finfo(np.float64).tiny)
LARGEST = float(np.finfo(np.float64).max)


def gamma(terms: int) -> float:
    """Bound on the relative error of a float64 sum of ``terms`` products, with room for the surrounding steps."""
    return 1.01 * (terms + 8) * UNIT_ROUNDOFF / (1.0 - (terms + 8) * UNIT_ROUNDOFF)


def up(values: Array) -> Array:
    """The next float64 above."""
    with np.errstate(over="ignore", under="ignore"):
        return np.nextafter(values, np.inf)


def down(values: Array) -> Array:
    """The next float64 below."""
    with np.errstate(over="ignore", under="ignore"):
        return np.nextafter(values, -np.inf)


@dataclass(frozen=True)
class Interval:
    """Bounds on every entry of a tensor, in real arithmetic.

    ``lower`` and ``upper`` have the same shape: either no axes at all (valid for every entry), or the rank of
    the tensor with each axis of full length or of length 1 (valid for every index along it).
    """

    lower: Array
    upper: Array

    @staticmethod
    def of(lower: object, upper: object) -> Interval:
        """An interval from array-likes of broadcastable shapes; NaN means unbounded."""
        low = np.asarray(lower, dtype=np.float64)
        high = np.asarray(upper, dtype=np.float64)
        shape = np.broadcast_shapes(low.shape, high.shape)
        low = np.where(np.isnan(low), -np.inf, low)
        high = np.where(np.isnan(high), np.inf, high)
        return Interval(np.broadcast_to(low, shape), np.broadcast_to(high, shape))

    @staticmethod
    def point(values: object) -> Interval:
        """The interval that holds exactly ``values`` (whole numbers beyond 2**53 are rounded outward)."""
        given = np.asarray(values)
        array = given.astype(np.float64)
        if given.dtype.kind in "iu" and given.size and (np.abs(array) >= 2.0**53).any():
            return Interval.of(down(array), up(array))
        return Interval.of(array, array)

    @staticmethod
    def everything() -> Interval:
        """The interval that excludes nothing."""
        return Interval.of(-np.inf, np.inf)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the two arrays."""
        return self.lower.shape

    @property
    def ndim(self) -> int:
        """Number of axes of the two arrays."""
        return self.lower.ndim

    def center_radius(self) -> tuple[Array, Array]:
        """Centre and radius, the radius rounded up so that both ends are covered."""
        low = np.clip(self.lower, -LARGEST, LARGEST)
        high = np.clip(self.upper, -LARGEST, LARGEST)
        center = low / 2 + high / 2
        with np.errstate(over="ignore"):
            radius = np.maximum(up(high - center), up(center - low))
        exact = (high == center) & (center == low)
        return center, np.where(exact, 0.0, np.minimum(radius, LARGEST))

    def magnitude(self) -> Array:
        """Largest absolute value."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that contains both."""
        return Interval.of(np.minimum(self.lower, other.lower), np.maximum(self.upper, other.upper))

    def meet(self, other: Interval) -> Interval:
        """What both allow; both must be valid, so rounding can not make it empty beyond an ulp."""
        return Interval.of(np.maximum(self.lower, other.lower), np.minimum(self.upper, other.upper))

    def include(self, value: float) -> Interval:
        """The hull with one value."""
        return Interval.of(np.minimum(self.lower, value), np.maximum(self.upper, value))

    def clamp(self, low: float, high: float) -> Interval:
        """Both ends limited to ``[low, high]``."""
        return Interval.of(np.clip(self.lower, low, high), np.clip(self.upper, low, high))

    def aligned(self, rank: int) -> Interval:
        """The same bounds with exactly ``rank`` axes (axes of length 1 in front)."""
        if self.ndim == rank:
            return self
        shape = (1,) * (rank - self.ndim) + self.shape
        return Interval.of(self.lower.reshape(shape), self.upper.reshape(shape))

    def hull_over(self, axes: tuple[int, ...]) -> Interval:
        """One interval for all indices along ``axes`` (kept as axes of length 1)."""
        if not axes or self.ndim == 0 or self.lower.size == 0:
            return self
        return Interval.of(self.lower.min(axis=axes, keepdims=True), self.upper.max(axis=axes, keepdims=True))

    def map(self, rule: Callable[[Array], Array]) -> Interval:
        """Apply a rearrangement of entries (reshape, transpose, take ...) to both ends."""
        return Interval.of(rule(self.lower), rule(self.upper))


def add(a: Interval, b: Interval) -> Interval:
    """The sum; rounded only where the float64 sum is not exact."""
    low, low_exact = exact_sum(a.lower, b.lower)
    high, high_exact = exact_sum(a.upper, b.upper)
    return Interval.of(np.where(low_exact, low, down(low)), np.where(high_exact, high, up(high)))


def exact_sum(a: Array, b: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The float64 sum, and where its error is exactly zero (Knuth's TwoSum)."""
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        total = a + b
        shadow = total - a
        error = (a - (total - shadow)) + (b - shadow)
    return total, error == 0


def negate(a: Interval) -> Interval:
    """The negative, exact."""
    return Interval.of(-a.upper, -a.lower)


def subtract(a: Interval, b: Interval) -> Interval:
    """The difference, for independent operands."""
    return add(a, negate(b))


def multiply(a: Interval, b: Interval) -> Interval:
    """The product; zero times anything is zero, since every value is finite; products with 0, 1 and -1 are exact."""
    lows, highs = [], []
    for x in (a.lower, a.upper):
        for y in (b.lower, b.upper):
            with np.errstate(invalid="ignore", over="ignore", under="ignore"):
                product = np.where((x == 0) | (y == 0), 0.0, x * y)
            exact = (x == 0) | (y == 0) | (np.abs(x) == 1) | (np.abs(y) == 1)
            low, high = _keep_sign(product, exact, np.sign(x) * np.sign(y))
            lows.append(low)
            highs.append(high)
    return Interval.of(np.minimum.reduce(lows), np.maximum.reduce(highs))


def _keep_sign(result: Array, exact: Array, sign: Array) -> tuple[Array, Array]:
    """Round a product or quotient outward, but not across zero: its sign is known."""
    low, high = np.where(exact, result, down(result)), np.where(exact, result, up(result))
    return np.where(sign >= 0, np.maximum(low, 0.0), low), np.where(sign <= 0, np.minimum(high, 0.0), high)


def divide(a: Interval, b: Interval) -> Interval:
    """The quotient; unbounded where b may be zero, exact zero where a is zero and b is not."""
    safe = (b.lower > 0) | (b.upper < 0)
    low_b = np.where(safe, b.lower, 1.0)
    high_b = np.where(safe, b.upper, 1.0)
    lows, highs = [], []
    for x in (a.lower, a.upper):
        for y in (low_b, high_b):
            with np.errstate(invalid="ignore", over="ignore", under="ignore"):
                quotient = np.where(x == 0, 0.0, x / y)
            exact = (x == 0) | (np.abs(y) == 1)
            least, most = _keep_sign(quotient, exact, np.sign(x) * np.sign(y))
            lows.append(least)
            highs.append(most)
    low, high = np.minimum.reduce(lows), np.maximum.reduce(highs)
    return Interval.of(np.where(safe, low, -np.inf), np.where(safe, high, np.inf))


def widen(values: Interval, relative: float) -> Interval:
    """Outward by a relative error (plus one ulp and the smallest normal number), for inexact kernels."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        low = down(values.lower - np.abs(values.lower) * relative - TINY)
        high = up(values.upper + np.abs(values.upper) * relative + TINY)
    return Interval.of(low, high)


def monotone(a: Interval, function: Callable[[Array], Array], *, relative: float = 1e-14) -> Interval:
    """Image of a non-decreasing function whose kernel has the stated relative error."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        low, high = function(a.lower), function(a.upper)
    return widen(Interval.of(low, high), relative)
