"""Activations made of straight pieces: their exact form, their slopes, and lines around them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from onnxprune.operators.base import NodeView
from onnxprune.operators.elementwise import Elementwise
from onnxprune.operators.interval import Array, Interval, down, multiply, subtract, up
from onnxprune.operators.lines import Tails, chosen, distinct, finite_ends, middle, touching
from onnxprune.operators.relaxation import Line, Pieces, Relaxation
from onnxprune.operators.static import variables


@dataclass(frozen=True)
class Segments:
    """A continuous piecewise-linear function: ``slopes[0] * x + offset`` up to ``knots[0]``, then other slopes.

    Arrays broadcast against the tensor; knots do not decrease. Slopes are exact; ``rounded`` says whether the
    knots are quotients, off by at most two units in the last place.
    """

    slopes: tuple[Array, ...]
    knots: tuple[Array, ...] = ()
    offset: Array | float = 0.0
    rounded: bool = False

    @property
    def tails(self) -> Tails:
        """The outer slopes."""
        return Tails(self.slopes[0], self.slopes[-1])

    def slope(self, x: Array) -> Array:
        """The slope at points; at a knot that of the piece in front."""
        result = np.array(np.broadcast_to(self.slopes[0], np.broadcast_shapes(x.shape, self.slopes[0].shape)))
        for knot, slope in zip(self.knots, self.slopes[1:], strict=True):
            result = np.where(x > knot, slope, result)
        return result


def straight(*values: object) -> tuple[Array, ...]:
    """Numbers as arrays."""
    return tuple(np.asarray(value, dtype=np.float64) for value in values)


class Ramps(Elementwise):
    """A piecewise-linear function of one variable input; subclasses state its segments."""

    def segments(self, node: NodeView) -> Segments | None:
        """The segments, None (the default) where the parameters are not constant."""
        return None

    def _segments(self, node: NodeView) -> Segments | None:
        return self.segments(node) if len(variables(node)) == 1 else None

    def pieces(self, node: NodeView) -> Pieces | None:
        found = self._segments(node)
        if found is None:
            return None
        bends = tuple(after - before for before, after in zip(found.slopes[:-1], found.slopes[1:], strict=True))
        return Pieces(found.slopes[0], np.asarray(found.offset, dtype=np.float64), found.knots, bends)

    def derivative(self, node: NodeView, x: Array) -> Array | None:
        found = self._segments(node)
        return None if found is None else found.slope(x)

    def relax(self, node: NodeView, low: Array, high: Array) -> Relaxation | None:
        """Any slope, with the offset from all knots and ends, where alone an extreme can lie.

        The values there come from the operator's interval rule, outward-rounded. A knot that is itself rounded
        stands as a short interval that contains the true one.
        """
        found = self._segments(node)
        if found is None:
            return None
        with np.errstate(all="ignore"):
            lower, upper = (self._lines(node, found, low, high, above) for above in (False, True))
        return Relaxation(lower, upper)

    def _lines(self, node: NodeView, found: Segments, low: Array, high: Array, above: bool) -> tuple[Line, ...]:
        size = [np.abs(knot) for knot in found.knots]
        start, stop = finite_ends(low, high, 1.0 + reduce(np.maximum, size, np.zeros(())))
        points = [start, *(np.minimum(np.maximum(knot, start), stop) for knot in found.knots), stop]
        values = [middle(image.lower, image.upper) for image in (self._image(node, Interval.point(p)) for p in points)]
        at = middle(start, stop)
        places, heights = (np.stack(np.broadcast_arrays(*parts)) for parts in (points, values))
        best = touching(places, heights, at, above=above, otherwise=found.slope(at), corners=True).slope
        first = found.tails.admitted(_snapped(best, found), low, high, above=above)
        inside = [np.where(low >= stop, found.slope(at), found.slope(up(start))), found.slope(stop)]
        second = np.where(first == inside[1], inside[0], inside[1])
        one, other = (self._line(node, found, slope, low, high, above) for slope in (first, second))
        return distinct(*chosen(one, other, low, high, above=above))

    def _line(self, node: NodeView, found: Segments, slope: Array, low: Array, high: Array, above: bool) -> Line:
        """The tightest line of this slope, rounded outward."""
        offsets = []
        for knot in (low, high, *found.knots, np.zeros(())):
            wide = Interval.of(down(down(knot)), up(up(knot))) if found.rounded else Interval.point(knot)
            near = Interval.of(*(np.minimum(np.maximum(end, low), high) for end in (wide.lower, wide.upper)))
            known = np.isfinite(near.lower) & np.isfinite(near.upper)
            point = Interval.of(np.where(known, near.lower, 0.0), np.where(known, near.upper, 0.0))
            rest = subtract(self._image(node, point), multiply(Interval.point(slope), point))
            neutral = -np.inf if above else np.inf
            offsets.append(np.where(known, rest.upper if above else rest.lower, neutral))
        offset = reduce(np.maximum if above else np.minimum, offsets)
        possible = found.tails.possible(slope, low, high, above=above)
        return Line(slope, np.where(possible, offset, np.inf if above else -np.inf))

    def _image(self, node: NodeView, x: Interval) -> Interval:
        """Bounds of the function over bounds of its variable input."""
        slot = variables(node)[0]
        constants = [node.constant(index) for index in range(node.n_inputs)]
        inputs = [None if values is None else Interval.point(values) for values in constants]
        results = self.interval(node, [x if index == slot else known for index, known in enumerate(inputs)])
        return Interval.everything() if results is None else results[0]


def _snapped(slope: Array, found: Segments) -> Array:
    """A slope that differs from one of the segments by rounding only becomes that one: its line is exact."""
    for own in found.slopes:
        slope = np.where(np.abs(slope - own) <= 1e-12 * np.abs(own), own, slope)
    return slope


def relu_lines(low: Array, high: Array) -> Relaxation:
    """Lines around max(x, 0).

    Above: for any slope s in [0, 1] the extremes of max(x, 0) - s x are -s low and high - s high, each step rounded
    up. Below: slopes 0 and 1 through zero, exact; the steeper one first where high > -low.
    """
    on, crossing = low >= 0, (low < 0) & (high > 0)
    with np.errstate(all="ignore"):
        chord = np.where(high == np.inf, 1.0, np.clip(high / (high - low), 0.0, 1.0))
        at_low = np.where(chord == 0, 0.0, up(-chord * low))
        at_high = np.where(chord == 1, 0.0, np.where(chord == 0, high, up(high - down(chord * high))))
    steep, zero, stable = (high > -low).astype(np.float64), np.zeros(low.shape), on.astype(np.float64)
    first, second = (Line(np.where(crossing, slope, stable), zero) for slope in (steep, 1.0 - steep))
    upper = Line(np.where(crossing, chord, stable), np.where(crossing, np.maximum(at_low, at_high), 0.0))
    return Relaxation(distinct(first, second), (upper,))
