"""How many weights each row loses: one threshold on the slopes of convex lower hulls of cost curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.errors import InputError
from onnxprune.surgeon.selection.arrays import Array, Index


def lower_hull(curve: Array) -> Index:
    """Vertices of the greatest convex function below a curve, from its first point to its last.

    Args:
        curve: Shape (points,), values at 0, 1, 2, ...
    """
    told = curve.tolist()
    hull: list[int] = []
    for place, value in enumerate(told):
        while len(hull) > 1:
            last, before = hull[-1], hull[-2]
            if (told[last] - told[before]) * (place - before) < (value - told[before]) * (last - before):
                break
            hull.pop()
        hull.append(place)
    return np.array(hull, dtype=np.intp)


def share_removals(curves: Sequence[Array], count: int) -> Index:
    """Divide removals among rows so that the total cost is least, up to the convexity of the curves.

    Optimal for convex curves. For others it is optimal for every count at which the threshold meets vertices of the
    hulls only; in between the last few removals go where they cost least.

    Args:
        curves: Per row its cost after 0, 1, 2, ... removals, such as a row of :attr:`Removals.costs`; multiply the
            curves of a layer with its trade-off weight to share among layers.
        count: Removals in all.

    Returns:
        Shape (rows,), removals per row.

    Raises:
        InputError: If the curves do not reach so far.
    """
    if count > sum(len(curve) - 1 for curve in curves):
        raise InputError(f"{count} removals are more than all rows have.", hint="Use a lower sparsity.")
    taken = np.zeros(len(curves), dtype=np.intp)
    slopes, rows, lengths = [], [], []
    for row, curve in enumerate(curves):
        hull = lower_hull(np.asarray(curve, dtype=np.float64))
        slopes.append(np.diff(np.asarray(curve)[hull]) / np.diff(hull))
        lengths.append(np.diff(hull))
        rows.append(np.full(len(hull) - 1, row))
    if not curves or not count:
        return taken
    slope, length, owner = np.concatenate(slopes), np.concatenate(lengths), np.concatenate(rows)
    order = np.lexsort((owner, slope))
    ends = np.cumsum(length[order])
    whole = int(np.searchsorted(ends, count, side="right"))
    np.add.at(taken, owner[order[:whole]], length[order[:whole]])
    left = count - (int(ends[whole - 1]) if whole else 0)
    while left:
        row, extra = _cheapest(curves, taken, left)
        taken[row] += extra
        left -= extra
    return taken


def _cheapest(curves: Sequence[Array], taken: Index, left: int) -> tuple[int, int]:
    """The row that takes all that is left at the least cost, or the one that takes most where none takes all."""
    room = np.array([len(curve) - 1 for curve in curves]) - taken
    able = np.flatnonzero(room >= left)
    if not len(able):
        return int(room.argmax()), int(room.max())
    costs = [float(curves[row][taken[row] + left] - curves[row][taken[row]]) for row in able.tolist()]
    return int(able[int(np.argmin(costs))]), left
