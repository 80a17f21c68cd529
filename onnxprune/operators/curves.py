"""Proved straight lines above and below smooth functions.

The slope of a line is found by search and need not be good. Its offset is the supremum of ``f(x) - slope x``,
bounded from above region by region, in a way that needs no accurate solution of any equation:

* where f is convex, the difference is convex too, so its supremum is at the ends;
* where f is concave, the difference g lies below each of its tangents: for *any* point m of the region,
  ``g(x) <= g(m) + g'(m) (x - m)``, which is largest at an end. A good m has ``g'(m)`` near zero, a bad one only
  makes the bound loose;
* in the short regions around an inflection that is not known exactly, interval arithmetic bounds g as a whole;
* towards an infinite end, g tends to a limit, or to an infinity whose sign the slopes tell; a concave function
  with a finite limit rises towards it, so the limit is the supremum.

Values and derivatives are enclosed by intervals and rounded outward. A line below f is a line above -f.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.interval import Array, Interval, add, down, multiply, negate, subtract, up
from onnxprune.operators.lines import Tails, chosen, distinct, finite_ends, middle, touching
from onnxprune.operators.relaxation import Line, Relaxation

POINTS = 5
"""Grid on each side of the middle on which a slope is searched."""
ZOOMS = 2
"""How often the grid is refined around the points where the line touches."""
HALVINGS = 24
"""Steps of the search for a tangent point."""
BLOCK = 8192
"""Entries that are searched at a time."""
NUDGE = 1e-6
"""How far a tangent point is moved towards an infinite end, so that its slope has the right sign."""


@dataclass(frozen=True)
class Region:
    """An interval of arguments on which a function is convex, concave, both (straight), or neither is known."""

    start: float
    stop: float
    convex: bool = False
    concave: bool = False


@dataclass(frozen=True)
class Curve:
    """A continuous function and its shape.

    Attributes:
        value: Enclosure of the function over an interval.
        slope: Enclosure of the derivative at points; of both one-sided derivatives where they differ.
        rate: The derivative in plain floats, for searches.
        regions: What the arguments are made of, in order.
        tails: Slopes towards the infinite ends.
        limits: What ``f(x) - tail * x`` tends to at both ends.
    """

    value: Callable[[Interval], Interval]
    slope: Callable[[Interval], Interval]
    rate: Callable[[Array], Array]
    regions: tuple[Region, ...]
    tails: Tails
    limits: tuple[Interval, Interval]

    def relax(self, low: Array, high: Array) -> Relaxation:
        """The lines that are closest at the middle of each interval, then level ones."""
        low = np.maximum(low, self.regions[0].start)
        high = np.maximum(np.minimum(high, self.regions[-1].stop), low)
        a, b = (np.array_split(end.reshape(-1), -(-end.size // BLOCK) or 1) for end in np.broadcast_arrays(low, high))
        with np.errstate(all="ignore"):
            sides = [[self._lines(x, y, above) for x, y in zip(a, b, strict=True)] for above in (False, True)]
        lower, upper = (_joined(parts, low.shape) for parts in sides)
        return Relaxation(lower, upper)

    def derivative(self, x: Array) -> Array:
        """Slopes at points, without rigour."""
        with np.errstate(all="ignore"):
            return np.nan_to_num(self.rate(x), posinf=1e300, neginf=-1e300)

    def _lines(self, low: Array, high: Array, above: bool) -> tuple[Line, Line]:
        slope = self.tails.admitted(self._search(low, high, above), low, high, above=above)
        slope = np.where(np.isfinite(slope), slope, 0.0)
        sign = 1.0 if above else -1.0
        first = Line(slope, sign * self._supremum(slope, low, high, sign))
        image = self.value(Interval.of(low, high))
        level = Line(np.zeros(slope.shape), np.array(image.upper if above else image.lower))
        return chosen(first, level, low, high, above=above)

    def _search(self, low: Array, high: Array, above: bool) -> Array:
        """Slope of the hull of the graph over the middle."""
        start, stop = finite_ends(low, high)
        at = middle(start, stop)
        bends = [np.minimum(np.maximum(region.start, start), stop) for region in self.regions[1:]]
        sides = [np.sort(np.stack([*_grid(end, at), *bends]), axis=0) for end in (start, stop)]
        tangent = self.derivative(at)
        for _ in range(1 + ZOOMS):
            x = np.concatenate(sides)
            best = touching(x, self._middle(x), at, above=above, otherwise=tangent, split=len(sides[0]))
            sides = [_around(x, index) for index in (best.left, best.right)]
        narrow = stop - start <= 1e-6 * (1.0 + np.abs(at))
        return np.where(narrow, tangent, best.slope)

    def _middle(self, x: Array) -> Array:
        image = self.value(Interval.point(x))
        return middle(image.lower, image.upper)

    def _supremum(self, slope: Array, low: Array, high: Array, sign: float) -> Array:
        """Upper bound of ``sign * (f(x) - slope * x)`` over ``[low, high]``."""
        result = np.full(low.shape, -np.inf)
        for region in self.regions:
            a, b = np.maximum(low, region.start), np.minimum(high, region.stop)
            convex, concave = (region.convex, region.concave) if sign > 0 else (region.concave, region.convex)
            if convex:
                bound = self._at_ends(slope, a, b, sign)
            elif concave:
                bound = self._by_tangent(slope, a, b, sign, region)
            else:
                inside = Interval.of(np.minimum(a, b), np.maximum(a, b))
                bound = self._rest(inside, slope, sign).upper
            result = np.where(a <= b, np.maximum(result, np.where(np.isnan(bound), np.inf, bound)), result)
        return result

    def _rest(self, x: Interval, slope: Array, sign: float) -> Interval:
        """Enclosure of ``sign * (f(x) - slope * x)``."""
        rest = subtract(self.value(x), multiply(Interval.point(slope), x))
        return rest if sign > 0 else negate(rest)

    def _at_ends(self, slope: Array, a: Array, b: Array, sign: float) -> Array:
        bounds = []
        for end, side, tail in ((a, -1.0, self.tails.left), (b, 1.0, self.tails.right)):
            known = np.isfinite(end)
            near = self._rest(Interval.point(np.where(known, end, 0.0)), slope, sign).upper
            trend = side * sign * np.sign(tail - slope)
            far = np.where(trend > 0, np.inf, np.where(trend < 0, -np.inf, self._limit(side, sign)))
            bounds.append(np.where(known, near, far))
        return np.maximum(*bounds)

    def _limit(self, side: float, sign: float) -> Array:
        limit = self.limits[0 if side < 0 else 1]
        return limit.upper if sign > 0 else -limit.lower

    def _by_tangent(self, slope: Array, a: Array, b: Array, sign: float, region: Region) -> Array:
        m = self._tangent_point(slope, a, b, sign, region)
        point = Interval.point(m)
        steepness = subtract(self.slope(point), Interval.point(slope))
        steepness = steepness if sign > 0 else negate(steepness)
        base = self._rest(point, slope, sign)
        bound = base.upper
        for end in (a, b):
            rise = multiply(steepness, subtract(Interval.point(end), point))
            bound = np.maximum(bound, np.where(end == m, -np.inf, add(base, rise).upper))
        for infinite, side, tail in ((a == -np.inf, -1.0, self.tails.left), (b == np.inf, 1.0, self.tails.right)):
            bound = np.where(infinite & (slope == tail), self._limit(side, sign), bound)
        return bound

    def _tangent_point(self, slope: Array, a: Array, b: Array, sign: float, region: Region) -> Array:
        """A point of ``[a, b]`` where the derivative is about ``slope``; inside the region, where it is unique."""
        left, right = finite_ends(a, b)
        inner = np.maximum(left, up(np.array(region.start))), np.minimum(right, down(np.array(region.stop)))
        left, right = (
            np.where(inner[0] <= inner[1], value, end) for value, end in zip(inner, (left, right), strict=True)
        )
        first, last = left, right
        for _ in range(HALVINGS):
            m = middle(left, right)
            rising = sign * (self.derivative(m) - slope) > 0
            left, right = np.where(rising, m, left), np.where(rising, right, m)
        ends = [sign * (self.derivative(m) - slope) for m in (left, right)]
        share = np.clip(np.nan_to_num(ends[0] / (ends[0] - ends[1]), nan=0.5), 0.0, 1.0)
        m = left + share * (right - left)
        m = m + NUDGE * (1.0 + np.abs(m)) * ((b == np.inf).astype(np.float64) - (a == -np.inf))
        return np.asarray(np.minimum(np.maximum(m, first), last))


def _joined(parts: list[tuple[Line, Line]], shape: tuple[int, ...]) -> tuple[Line, ...]:
    """Lines of blocks of entries as lines of all; the second ones only where they differ somewhere."""
    first, second = (
        Line(
            np.concatenate([pair[k].slope for pair in parts]).reshape(shape),
            np.concatenate([pair[k].offset for pair in parts]).reshape(shape),
        )
        for k in (0, 1)
    )
    return distinct(first, second)


def _grid(end: Array, at: Array) -> list[Array]:
    """Places from an end to the middle."""
    return [end + (at - end) * (k / POINTS) for k in range(POINTS + 1)]


def _around(stack: Array, index: NDArray[np.int64]) -> Array:
    """A finer grid between the neighbours of a grid point."""
    last = len(stack) - 1
    own, before, after = (
        np.take_along_axis(stack, np.clip(index + step, 0, last)[None], axis=0)[0] for step in (0, -1, 1)
    )
    return np.sort(np.stack([*(before + (after - before) * (k / 8) for k in range(9)), own]), axis=0)
