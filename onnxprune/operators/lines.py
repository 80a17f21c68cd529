"""Search for good slopes of bounding lines. Nothing here is rigorous: any slope will do, its offset is proved later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.interval import Array
from onnxprune.operators.relaxation import Line

FAR = 1e6
"""Where the search ends on an unbounded side, in units of what is finite."""


@dataclass(frozen=True)
class Tails:
    """Slopes of a function towards minus and plus infinity."""

    left: Array
    right: Array

    def _range(self, low: Array, high: Array, *, above: bool) -> tuple[Array, Array]:
        """Slopes with which a line above (below) a function stays so towards infinite ends; may be empty."""
        left = np.where(low == -np.inf, self.left, np.inf if above else -np.inf)
        right = np.where(high == np.inf, self.right, -np.inf if above else np.inf)
        return (right, left) if above else (left, right)

    def admitted(self, slope: Array, low: Array, high: Array, *, above: bool) -> Array:
        """The nearest slope that is possible; any where none is."""
        least, most = self._range(low, high, above=above)
        return np.minimum(np.maximum(slope, least), most)

    def possible(self, slope: Array, low: Array, high: Array, *, above: bool) -> NDArray[np.bool_]:
        """Whether a line of this slope stays above (below) towards infinite ends."""
        least, most = self._range(low, high, above=above)
        return np.asarray((least <= slope) & (slope <= most))


def finite_ends(low: Array, high: Array, scale: Array | float = 1.0) -> tuple[Array, Array]:
    """Ends to search between: infinite ones are replaced by finite ones far out, evenly on both sides."""
    inner = [np.where(np.isfinite(end), np.abs(end), 0.0) for end in (low, high)]
    far = np.minimum(FAR * (np.maximum(*inner) + scale), 1e300)
    return np.where(np.isfinite(low), low, -far), np.where(np.isfinite(high), high, far)


def slope_between(x0: Array, f0: Array, x1: Array, f1: Array) -> Array:
    """Slope of a chord, scaled where huge ends would overflow; NaN where both ends coincide."""
    with np.errstate(all="ignore"):
        run, rise = x1 - x0, f1 - f0
        scaled = (f1 / 4 - f0 / 4) / (x1 / 4 - x0 / 4)
        return np.where(np.isfinite(run) & np.isfinite(rise), rise / run, scaled)


def middle(low: Array, high: Array) -> Array:
    """The middle of finite ends."""
    return low / 2 + high / 2


@dataclass(frozen=True)
class Touching:
    """A line that touches the hull of some points over the middle: its slope, and between which points."""

    slope: Array
    left: NDArray[np.int64]
    right: NDArray[np.int64]


def touching(
    x: Array, f: Array, at: Array, *, above: bool, otherwise: Array, split: int | None = None, corners: bool = False
) -> Touching:
    """The side of the upper (lower) hull of the points ``(x, f)`` that lies over ``at``.

    Args:
        x: Arguments, along a first axis, in any order.
        f: Values.
        at: Where.
        above: Whether the upper hull.
        otherwise: The slope where the points leave none.
        split: A side has one end among so many first points, the other among the rest (None: any ends).
        corners: Whether a side may end exactly there.
    """
    i, j = np.triu_indices(len(x), 1)
    if split is not None:
        i, j = (grid.reshape(-1) for grid in np.meshgrid(np.arange(split), np.arange(split, len(x)), indexing="ij"))
    with np.errstate(all="ignore"):
        slopes = slope_between(x[i], f[i], x[j], f[j])
        heights = (f[i] + slopes * (at - x[i])) * (1.0 if above else -1.0)
        first, last = np.minimum(x[i], x[j]), np.maximum(x[i], x[j])
        apart = (first < at) & ((at <= last) if corners else (at < last)) & np.isfinite(heights)
    heights = np.where(apart, heights, -np.inf)
    pick = heights.argmax(axis=0)[None]
    slope = np.take_along_axis(slopes, pick, axis=0)[0]
    found = np.isfinite(np.take_along_axis(heights, pick, axis=0)[0])
    return Touching(np.where(found, slope, otherwise), i[pick[0]], j[pick[0]])


def chosen(first: Line, second: Line, low: Array, high: Array, *, above: bool) -> tuple[Line, Line]:
    """Both lines; the second replaced by the first where that one is better at both ends."""
    sign = 1.0 if above else -1.0
    with np.errstate(all="ignore"):
        worse = np.ones(first.slope.shape, np.bool_)
        for end in (low, high):
            known = np.isfinite(end)
            place = np.where(known, end, 0.0)
            one, other = (sign * (line.slope * place + line.offset) for line in (first, second))
            outward = np.where(end == low, -sign, sign)
            steeper = outward * first.slope <= outward * second.slope
            slack = 1e-9 * (np.abs(first.offset) + np.abs(first.slope * place))
            worse &= np.where(known, one <= other + slack, steeper)
    worse |= (~np.isfinite(second.offset)) | ((first.slope == second.slope) & (first.offset == second.offset))
    rescued = ~np.isfinite(first.offset) & np.isfinite(second.offset)
    first = _either(rescued, second, first)
    return first, _either(worse | rescued, first, second)


def distinct(first: Line, second: Line) -> tuple[Line, ...]:
    """Both lines, or one where they are the same everywhere."""
    same = np.array_equal(first.slope, second.slope) and np.array_equal(first.offset, second.offset)
    return (first,) if same else (first, second)


def _either(mask: NDArray[np.bool_], yes: Line, no: Line) -> Line:
    return Line(np.where(mask, yes.slope, no.slope), np.where(mask, yes.offset, no.offset))
