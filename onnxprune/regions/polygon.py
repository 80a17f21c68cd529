"""Convex polygons in the plane, as lists of corners in counter-clockwise order, cut by lines.

A line is a triple (value at the origin, slope along x, slope along y): the affine function whose sign cuts.
"""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]
Polygon = list[Point]
Line = tuple[float, float, float]

TIE = 1e-12
"""A corner closer to a line than this, relative to the line's coefficients, lies on it."""


def values(polygon: Polygon, line: Line) -> list[float]:
    """The function at every corner; what is within rounding of 0 is 0."""
    shift, right, up = line
    least = TIE * (abs(shift) + abs(right) + abs(up))
    found = [shift + right * x + up * y for x, y in polygon]
    return [0.0 if -least <= value <= least else value for value in found]


def part(polygon: Polygon, at: Sequence[float], sign: int) -> Polygon:
    """The part of a polygon where ``sign * function >= 0``.

    Args:
        polygon: Convex.
        at: The function at its corners.
        sign: 1 or -1.
    """
    kept: Polygon = []
    before, value_before = polygon[-1], sign * at[-1]
    for corner, raw in zip(polygon, at, strict=True):
        value = sign * raw
        if (value > 0 > value_before) or (value < 0 < value_before):
            t = value_before / (value_before - value)
            kept.append((before[0] + t * (corner[0] - before[0]), before[1] + t * (corner[1] - before[1])))
        if value >= 0:
            kept.append(corner)
        before, value_before = corner, value
    return kept


def split(polygon: Polygon, line: Line) -> list[Polygon]:
    """The polygon, or the two parts of it where the line runs through its interior."""
    at = values(polygon, line)
    if min(at) >= 0 or max(at) <= 0:
        return [polygon]
    return [side for side in (part(polygon, at, 1), part(polygon, at, -1)) if len(side) > 2]


def keep(polygon: Polygon, line: Line) -> Polygon:
    """The part where the function is not negative; fewer than three corners where there is none with an area."""
    if len(polygon) < 3:
        return []
    at = values(polygon, line)
    if min(at) >= 0:
        return polygon
    return [] if max(at) <= 0 else part(polygon, at, 1)


def centre(polygon: Polygon) -> Point:
    """The mean of the corners: a point of the interior."""
    count = len(polygon)
    return sum(x for x, _ in polygon) / count, sum(y for _, y in polygon) / count


def area(polygon: Polygon) -> float:
    """Area (positive for counter-clockwise corners)."""
    if len(polygon) < 3:
        return 0.0
    return 0.5 * sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(polygon, [*polygon[1:], polygon[0]], strict=True))


def largest(polygon: Polygon, lines: Sequence[Line]) -> list[tuple[int, Polygon]]:
    """Where each of several functions is the largest: pairs of its number and the part, which cover the polygon."""
    alive: list[int] = []
    at = [[line[0] + line[1] * x + line[2] * y for x, y in polygon] for line in lines]
    for number, own in enumerate(at):
        if not any(_below(own, at[other], strict=other > number) for other in range(len(lines)) if other != number):
            alive.append(number)
    if len(alive) < 2:
        return [(alive[0] if alive else 0, polygon)]
    found = []
    for number in alive:
        rest = polygon
        for other in alive:
            if other != number:
                rest = keep(rest, _minus(lines[number], lines[other]))
        if len(rest) > 2 and area(rest) > 0:
            found.append((number, rest))
    return found


def _below(values_: Sequence[float], others: Sequence[float], *, strict: bool) -> bool:
    """Whether a function is nowhere above another; of equal ones the first wins."""
    pairs = list(zip(values_, others, strict=True))
    return all(a <= b for a, b in pairs) and (not strict or any(a < b for a, b in pairs))


def _minus(one: Line, other: Line) -> Line:
    return one[0] - other[0], one[1] - other[1], one[2] - other[2]
