"""How a polygon is cut where units switch or another entry of a maximum becomes the largest.

Affine functions come as their values at the three reference points (0, 0), (1, 0) and (0, 1), shape (3, functions).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.interval import Array
from onnxprune.operators.relaxation import Choices
from onnxprune.regions.polygon import TIE, Line, Polygon, centre, largest, split


def cut_by_lines(polygon: Polygon, values: Array, most: int) -> tuple[list[Polygon], bool]:
    """A polygon cut by many lines, the most central first.

    Args:
        polygon: Convex.
        values: Functions whose zeros are the lines, shape (3, lines).
        most: Parts after which the work ends.

    Returns:
        The parts, and whether they are all.
    """
    done: list[Polygon] = []
    waiting = [(polygon, values)]
    while waiting and len(done) <= most:
        part, lines = waiting.pop()
        lines, best = _crossing(part, lines)
        if best < 0:
            done.append(part)
            continue
        sides = split(part, lines_of(lines[:, best : best + 1])[0])
        rest = np.delete(lines, best, axis=1)
        waiting += [(side, rest) for side in sides]
    return done, not waiting


def cut_by_choice(kind: Choices, polygon: Polygon, values: Array) -> list[Polygon]:
    """A polygon cut where another entry becomes the largest."""
    own = values if kind.largest else -values
    done, waiting = [], [(polygon, kind.indices)]
    while waiting:
        part, windows = waiting.pop()
        windows = _contested(part, own, windows)
        if not len(windows):
            done.append(part)
            continue
        first = windows[0]
        waiting += [(piece, windows[1:]) for _, piece in largest(part, lines_of(own[:, first[first >= 0]]))]
    return done


def lines_of(values: Array) -> list[Line]:
    """Affine functions from their values at the reference points, shape (3, functions)."""
    first, right, up = values
    return [(a, b - a, c - a) for a, b, c in zip(first.tolist(), right.tolist(), up.tolist(), strict=True)]


def centres(polygons: Sequence[Polygon]) -> Array:
    """What a value at each polygon's centre takes of the values at the reference points, shape (polygons, 3)."""
    x, y = np.array([centre(polygon) for polygon in polygons]).T
    return np.stack([1.0 - x - y, x, y], axis=1)


def at_centres(weights: Array, values: Array) -> Array:
    """Values at one point per polygon, shape (polygons, entries)."""
    return np.asarray(np.einsum("pk,pke->pe", weights, values), dtype=np.float64)


def may_cross(polygons: Sequence[Polygon], values: Array) -> NDArray[np.bool_]:
    """Which functions may change sign inside a polygon, for many at once, shape (polygons, functions).

    A function stays within its value at the centre plus and minus its slopes times the polygon's reach from there.

    Args:
        polygons: Convex.
        values: Per polygon, shape (polygons, 3, functions).
    """
    weights = centres(polygons)
    reach = np.array([np.abs(np.array(p) - w[1:]).max(axis=0) for p, w in zip(polygons, weights, strict=True)])
    spread = np.abs(values[:, 1] - values[:, 0]) * reach[:, :1]
    spread += np.abs(values[:, 2] - values[:, 0]) * reach[:, 1:]
    return np.asarray(np.abs(at_centres(weights, values)) <= spread, dtype=np.bool_)


def _corner_values(polygon: Polygon, values: Array) -> tuple[Array, Array]:
    """Values at the corners, shape (corners, entries), and what counts as 0 there, shape (entries,)."""
    x, y = np.array(polygon).T
    right, up = values[1] - values[0], values[2] - values[0]
    at = values[0] + np.outer(x, right) + np.outer(y, up)
    return at, TIE * (np.abs(values[0]) + np.abs(right) + np.abs(up))


def _crossing(polygon: Polygon, values: Array) -> tuple[Array, int]:
    """The functions that change sign inside a polygon, and which of them cuts it most evenly (-1 for none)."""
    if not values.shape[1]:
        return values, -1
    at, tie = _corner_values(polygon, values)
    low, high = at.min(axis=0), at.max(axis=0)
    which = np.flatnonzero((low < -tie) & (high > tie))
    if not len(which):
        return values[:, which], -1
    balance = np.minimum(-low[which], high[which]) / (high[which] - low[which])
    return values[:, which], int(balance.argmax())


def _contested(polygon: Polygon, values: Array, windows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The windows (rows of candidates, -1 for none) whose largest entry changes inside a polygon."""
    used, inverse = np.unique(np.maximum(windows, 0), return_inverse=True)
    at, tie = _corner_values(polygon, values[:, used])
    places = inverse.reshape(windows.shape)
    candidates = np.where(windows < 0, -np.inf, at[:, places])
    least = candidates.max(axis=-1, keepdims=True) - tie[places]
    open_: NDArray[np.bool_] = ~(candidates >= least).all(axis=0).any(axis=-1)
    return np.asarray(windows[open_], dtype=np.int64)
