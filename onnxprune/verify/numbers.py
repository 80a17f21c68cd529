"""Intervals over arrays, in float64 rounded outward or in exact arithmetic; every bound of the checker is one.

A sum of n float64 products, in whatever order, is off by at most ``gamma(n)`` times the sum of the absolute products
(Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.dyadic import Dyadic, joined, pick

Floats = NDArray[np.float64]
Numbers = Any
"""A float64 array or a :class:`Dyadic`: both know the same operators."""
Bilinear = Callable[[Any, Any], Any]
"""From weights and values to sums of their products; linear in both, written with operators of arrays only."""

TINY = float(np.finfo(np.float64).tiny)
UNIT = 2.0**-53


def gamma(terms: int, unit: float = UNIT) -> float:
    """Bound on the relative error of a sum of products, with room for the few operations around it."""
    count = 1.01 * (terms + 8) * unit
    return count / (1.0 - count) if count < 0.5 else np.inf


@dataclass(frozen=True)
class Interval:
    """``low <= x <= high`` entry by entry; arrays of equal shape that broadcast against a tensor."""

    low: Numbers
    high: Numbers

    @staticmethod
    def of(low: Numbers, high: Numbers, *, exact: bool = False) -> Interval:
        """An interval from numbers that count as exact."""
        if exact:
            return Interval(*(Dyadic.of(end) for end in (low, high)))
        return Interval(np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64))

    @staticmethod
    def point(values: Numbers, *, exact: bool = False) -> Interval:
        """Exactly these values; whole numbers beyond 2**53 are rounded outward where floats are used."""
        array = np.asarray(values)
        if exact:
            whole = Dyadic.of(values)
            return Interval(whole, whole)
        number = array.astype(np.float64)
        if array.dtype.kind in "iu" and array.size and (np.abs(number) >= 2.0**53).any():
            return Interval(np.nextafter(number, -np.inf), np.nextafter(number, np.inf))
        return Interval(number, number)

    @property
    def exact(self) -> bool:
        """Whether the ends are exact numbers."""
        return isinstance(self.low, Dyadic)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the ends."""
        return tuple(self.low.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, key: Any) -> Interval:
        return Interval(self.low[key], self.high[key])

    def map(self, rule: Callable[[NDArray[Any]], NDArray[Any]]) -> Interval:
        """A rearrangement of entries: reshape, transpose, take, broadcast ..."""
        if self.low is self.high:
            ends = self.low.map(rule) if self.exact else rule(self.low)
            return Interval(ends, ends)
        if self.exact:
            return Interval(self.low.map(rule), self.high.map(rule))
        return Interval(rule(self.low), rule(self.high))

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.low)

    def __add__(self, other: Interval) -> Interval:
        return Interval(_sum(self.low, other.low, -1), _sum(self.high, other.high, 1))

    def __sub__(self, other: Interval) -> Interval:
        return self + (-other)

    def __mul__(self, other: Interval) -> Interval:
        """Products, entry by entry."""
        pairs = [(a, b) for a in (self.low, self.high) for b in (other.low, other.high)]
        lows, highs = zip(*(_product(a, b) for a, b in pairs), strict=True)
        return Interval(smallest(lows), largest(highs))

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that contains both."""
        return Interval(smaller(self.low, other.low), larger(self.high, other.high))

    def meet(self, other: Interval) -> Interval:
        """What both allow; for two statements about the same value."""
        return Interval(larger(self.low, other.low), smaller(self.high, other.high))

    def clamped(self, low: float, high: float) -> Interval:
        """Both ends moved into a range."""
        return self.monotone(lambda x: smaller(larger(x, number(low, x)), number(high, x)))

    def monotone(self, rule: Callable[[Numbers], Numbers]) -> Interval:
        """Image of a non-decreasing function that is computed exactly."""
        return Interval(rule(self.low), rule(self.high))

    def scaled(self, low: Numbers, high: Numbers) -> Interval:
        """Times a factor that lies between two numbers."""
        return self * Interval.of(low, high, exact=self.exact)

    def magnitude(self) -> Numbers:
        """Largest absolute value."""
        return larger(abs(self.low), abs(self.high))

    def floats(self) -> tuple[Floats, Floats]:
        """The ends as float64, rounded outward."""
        if self.exact:
            return self.low.floats(-np.inf), self.high.floats(np.inf)
        return self.low, self.high

    def like(self, low: Floats, high: Floats) -> Interval:
        """An interval from floats in the arithmetic of this one."""
        return Interval.of(low, high, exact=self.exact)

    def over(self, axes: tuple[int, ...]) -> Interval:
        """One interval for all indices along some axes, which keep the length 1."""
        if not axes or not self.ndim:
            return self
        return Interval(least(self.low, axes), most(self.high, axes))

    def total(self, axis: int) -> Interval:
        """The sum along an axis."""
        if self.exact:
            return Interval(self.low.map(lambda m: m.sum(axis=axis)), self.high.map(lambda m: m.sum(axis=axis)))
        terms = self.shape[axis]
        with np.errstate(invalid="ignore", over="ignore"):
            error = [gamma(terms) * np.abs(end).sum(axis=axis) for end in (self.low, self.high)]
            return Interval(
                np.nan_to_num(self.low.sum(axis=axis) - error[0], nan=-np.inf, posinf=np.inf, neginf=-np.inf),
                np.nan_to_num(self.high.sum(axis=axis) + error[1], nan=np.inf, posinf=np.inf, neginf=-np.inf),
            )


def contract(rule: Bilinear, weights: Numbers, values: Interval, terms: int) -> Interval:
    """Sums of products of exact weights with values that lie in an interval.

    Args:
        rule: How weights and values are combined.
        weights: The numbers count as exact.
        values: Bounds on the values.
        terms: Most products in one sum.
    """
    if values.exact:
        exact = Dyadic.of(weights)
        if values.low is values.high:
            result = values.low.combined(exact, rule)
            return Interval(result, result)
        zero = Dyadic.of(np.zeros(exact.shape))
        good, bad = pick(exact > 0, exact, zero), pick(exact < 0, exact, zero)
        low = values.low.combined(good, rule) + values.high.combined(bad, rule)
        high = values.high.combined(good, rule) + values.low.combined(bad, rule)
        return Interval(low, high)
    return _rounded(rule, np.asarray(weights, dtype=np.float64), values, terms)


def _rounded(rule: Bilinear, weights: Floats, values: Interval, terms: int) -> Interval:
    low, high = values.low, values.high
    tiny = 0.0 if _no_underflow(weights, low, high) else 2 * terms * TINY
    if low is high and np.isfinite(low).all():
        result = rule(weights, low)
        error = gamma(terms) * rule(np.abs(weights), np.abs(low)) + tiny
        return Interval(_down(result - error, error), _up(result + error, error))
    good, bad = np.maximum(weights, 0.0), np.minimum(weights, 0.0)
    finite = bool(np.isfinite(low).all() and np.isfinite(high).all())
    least, most = (np.where(np.isfinite(end), end, 0.0) for end in (low, high)) if not finite else (low, high)
    with np.errstate(over="ignore", invalid="ignore"):
        error_low = gamma(2 * terms) * (rule(good, np.abs(least)) - rule(bad, np.abs(most))) + tiny
        error_high = gamma(2 * terms) * (rule(good, np.abs(most)) - rule(bad, np.abs(least))) + tiny
        bottom = _down(rule(good, least) + rule(bad, most) - error_low, error_low)
        top = _up(rule(good, most) + rule(bad, least) + error_high, error_high)
    if not finite:
        wild_low, wild_high = (np.where(np.isfinite(end), 0.0, 1.0) for end in (low, high))
        bottom = np.where(rule(good, wild_low) - rule(bad, wild_high) > 0, -np.inf, bottom)
        top = np.where(rule(good, wild_high) - rule(bad, wild_low) > 0, np.inf, top)
    return Interval(np.where(np.isnan(bottom), -np.inf, bottom), np.where(np.isnan(top), np.inf, top))


def _no_underflow(*arrays: Floats) -> bool:
    """Whether products of the weights with the values are zero only where a factor is."""
    sizes = [float(np.abs(array).min(where=array != 0, initial=np.inf)) for array in arrays]
    return sizes[0] * min(sizes[1:]) > 4 * TINY


def _down(values: Floats, error: Floats) -> Floats:
    return np.where(error == 0, values, np.nextafter(values, -np.inf))


def _up(values: Floats, error: Floats) -> Floats:
    return np.where(error == 0, values, np.nextafter(values, np.inf))


def _sum(a: Numbers, b: Numbers, side: int) -> Numbers:
    """A sum, rounded to one side only where float64 is not exact (Knuth's TwoSum)."""
    if isinstance(a, Dyadic):
        return a + b
    with np.errstate(invalid="ignore", over="ignore"):
        total = a + b
        shadow = total - a
        error = (a - (total - shadow)) + (b - shadow)
        result = np.where(error == 0, total, np.nextafter(total, side * np.inf))
    return np.where(np.isnan(result), side * np.inf, result)


def _product(a: Numbers, b: Numbers) -> tuple[Numbers, Numbers]:
    """A product rounded down and up; zero times anything is zero, and a known sign is kept."""
    if isinstance(a, Dyadic):
        product = a * b
        return product, product
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        nothing = (a == 0) | (b == 0)
        product = np.where(nothing, 0.0, a * b)
        plain = nothing | (np.abs(a) == 1) | (np.abs(b) == 1)
        sign = np.sign(a) * np.sign(b)
        low = np.where(plain, product, np.nextafter(product, -np.inf))
        high = np.where(plain, product, np.nextafter(product, np.inf))
    return np.where(sign >= 0, np.maximum(low, 0.0), low), np.where(sign <= 0, np.minimum(high, 0.0), high)


def number(value: object, like: Numbers) -> Numbers:
    """A constant in the arithmetic of another array."""
    return Dyadic.of(value) if isinstance(like, Dyadic) else np.asarray(value, dtype=np.float64)


def choose(mask: NDArray[np.bool_], one: Numbers, other: Numbers) -> Numbers:
    """Entries of one where the mask holds, of the other elsewhere."""
    return pick(mask, one, other) if isinstance(one, Dyadic) else np.where(mask, one, other)


def larger(a: Numbers, b: Numbers) -> Numbers:
    """The maximum, entry by entry."""
    return pick(a >= b, a, b) if isinstance(a, Dyadic) else np.maximum(a, b)


def smaller(a: Numbers, b: Numbers) -> Numbers:
    """The minimum, entry by entry."""
    return pick(a <= b, a, b) if isinstance(a, Dyadic) else np.minimum(a, b)


def largest(parts: Sequence[Numbers]) -> Numbers:
    """The maximum of several arrays."""
    result = parts[0]
    for part in parts[1:]:
        result = larger(result, part)
    return result


def smallest(parts: Sequence[Numbers]) -> Numbers:
    """The minimum of several arrays."""
    result = parts[0]
    for part in parts[1:]:
        result = smaller(result, part)
    return result


def least(values: Numbers, axes: tuple[int, ...]) -> Numbers:
    """The minimum along axes, which stay with length 1."""
    if isinstance(values, Dyadic):
        return values.map(lambda m: np.min(m, axis=axes, keepdims=True))
    return values.min(axis=axes, keepdims=True)


def most(values: Numbers, axes: tuple[int, ...]) -> Numbers:
    """The maximum along axes, which stay with length 1."""
    if isinstance(values, Dyadic):
        return values.map(lambda m: np.max(m, axis=axes, keepdims=True))
    return values.max(axis=axes, keepdims=True)


def concatenated(parts: Sequence[Interval], axis: int) -> Interval:
    """Intervals behind one another along an axis."""
    if parts[0].exact:
        return Interval(joined([p.low for p in parts], axis), joined([p.high for p in parts], axis))
    return Interval(np.concatenate([p.low for p in parts], axis), np.concatenate([p.high for p in parts], axis))
