"""The two inner steps of the dual simplex: which column enters, and the inverse of a small matrix."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.interval import Array
from onnxprune.regions.compiled import COMPILED, compiled

SMALLEST_PIVOT = 1e-10
NOTHING = 1e-14
"""Coefficients below count as 0."""


class Scratch(NamedTuple):
    """Room for intermediate results."""

    costs: Array
    effect: Array
    ratio: Array
    weight: Array
    order: NDArray[np.int64]
    system: Array
    inverse: Array
    reduced: Array
    multipliers: Array
    prices: Array
    share: Array
    direction: Array


def scratch(rows: int, columns: int) -> Scratch:
    """Room for W of this shape."""
    n, d = np.zeros(columns), np.zeros(rows)
    square, k = np.zeros((rows + 1, rows + 1)), np.zeros(rows + 1)
    order = np.zeros(columns, dtype=np.int64)
    return Scratch(n.copy(), n.copy(), n.copy(), n, order, square.copy(), square, k.copy(), k.copy(), d.copy(), k, d)


@compiled
def _partition(order: NDArray[np.int64], ratio: Array, pivot: float, low: int, high: int) -> tuple[int, int]:
    """Sort ``order[low:high]`` into below, equal and above; where equal and above begin."""
    below, at, above = low, low, high
    while at < above:
        found = ratio[order[at]]
        if found < pivot:
            order[below], order[at] = order[at], order[below]
            below += 1
            at += 1
        elif found > pivot:
            above -= 1
            order[above], order[at] = order[at], order[above]
        else:
            at += 1
    return below, above


@compiled
def _enter_fast(values: Array, room: Scratch, side: float, excess: float, limit: float) -> tuple[int, float]:
    """Pass breakpoints below ``limit`` while ``excess`` lasts; flip what is passed.

    Returns:
        The column that enters, -1 for none; and what is left of the excess.
    """
    ratio, weight, order = room.ratio, room.weight, room.order
    count = 0
    for j in range(len(values)):
        gain = -values[j] * side * room.effect[j]
        if gain > NOTHING:
            found = abs(room.costs[j]) / gain
            if found < limit:
                ratio[j], weight[j], order[count] = found, 2.0 * gain, j
                count += 1
    low, high, rest = 0, count, excess
    entering = -1
    while low < high:
        pivot = ratio[order[(low + high) // 2]]
        below, same = _partition(order, ratio, pivot, low, high)
        sum_below, sum_same = 0.0, 0.0
        for a in range(low, below):
            sum_below += weight[order[a]]
        if sum_below >= rest:
            high = below
            continue
        for a in range(below, same):
            sum_same += weight[order[a]]
        if sum_below + sum_same >= rest:
            entering, low = order[below], below
            for a in range(below, same):
                if weight[order[a]] > weight[entering]:
                    entering = order[a]
            break
        rest -= sum_below + sum_same
        low = same
    if entering >= 0 and weight[entering] < SMALLEST_PIVOT:
        best = -1
        for a in range(low):
            if weight[order[a]] >= SMALLEST_PIVOT and (best < 0 or ratio[order[a]] > ratio[best]):
                best = order[a]
        entering = best if best >= 0 else entering
    for a in range(low):
        if entering < 0 or ratio[order[a]] < ratio[entering]:
            values[order[a]] = -values[order[a]]
    return entering, rest


def _enter_plain(values: Array, room: Scratch, side: float, excess: float, limit: float) -> tuple[int, float]:
    """The same without loops."""
    gain = -values * side * room.effect
    ratio = np.full(len(values), np.inf)
    np.divide(np.abs(room.costs), gain, out=ratio, where=gain > NOTHING)
    order = np.flatnonzero((gain > NOTHING) & (ratio < limit))
    order = order[np.lexsort((-gain[order], ratio[order]))]
    total = np.cumsum(2.0 * gain[order])
    at = int(np.searchsorted(total, excess)) if len(order) else 0
    if at == len(order):
        values[order] = -values[order]
        return -1, float(excess - (total[-1] if len(order) else 0.0))
    while at > 0 and ratio[order[at - 1]] == ratio[order[at]]:
        at -= 1  # the heaviest of equals comes first
    usable = order[: at + 1][2.0 * gain[order[: at + 1]] >= SMALLEST_PIVOT]
    entering = int(usable[-1]) if len(usable) else int(order[at])
    passed = order[ratio[order] < ratio[entering]]
    values[passed] = -values[passed]
    return entering, 0.0


@compiled
def _invert_fast(matrix: Array, inverse: Array, k: int) -> bool:
    """Gauss and Jordan with row pivots; ``matrix`` is used up. False where it is singular."""
    for a in range(k):
        for b in range(k):
            inverse[a, b] = 1.0 if a == b else 0.0
    for c in range(k):
        best = c
        for a in range(c + 1, k):
            if abs(matrix[a, c]) > abs(matrix[best, c]):
                best = a
        if abs(matrix[best, c]) < NOTHING:
            return False
        if best != c:
            for b in range(k):
                matrix[c, b], matrix[best, b] = matrix[best, b], matrix[c, b]
                inverse[c, b], inverse[best, b] = inverse[best, b], inverse[c, b]
        scale = 1.0 / matrix[c, c]
        for b in range(k):
            matrix[c, b] *= scale
            inverse[c, b] *= scale
        for a in range(k):
            if a != c and matrix[a, c] != 0.0:
                factor = matrix[a, c]
                for b in range(k):
                    matrix[a, b] -= factor * matrix[c, b]
                    inverse[a, b] -= factor * inverse[c, b]
    return True


def _invert_plain(matrix: Array, inverse: Array, k: int) -> bool:
    """The same by LAPACK."""
    try:
        inverse[:k, :k] = np.linalg.inv(matrix[:k, :k])
    except np.linalg.LinAlgError:
        return False
    return True


enter = _enter_fast if COMPILED else _enter_plain
invert = _invert_fast if COMPILED else _invert_plain
