"""Whether half-spaces meet inside a box: a dual simplex for few rows, warm from one row to the next.

The inputs are t in [-1, 1]^n and enter through z = W t alone, with few rows in W. Constraint i is
``rows[i] @ z + shift[i] >= least[i]``. A basis is k tight constraints and k columns between their ends, k at most the
number of rows of W; it stays optimal for one fixed objective, so that a new constraint is repaired by dual steps.
Steps pass breakpoints as long as the dual objective rises ("long step" rule; Maros 2003, section 7). Everything is
recomputed from the basis at every step, so that errors do not add up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.interval import Array
from onnxprune.regions.compiled import compiled
from onnxprune.regions.pivots import SMALLEST_PIVOT, Scratch, enter, invert
from onnxprune.regions.vectors import assign, combine, project

OUTSIDE = 1e-11
"""How far a column may be outside its ends."""
MOST_STEPS = 2000
FEASIBLE, INFEASIBLE, DOUBTFUL, FAILED = 0, 1, 2, 3
"""Outcomes; doubtful: infeasible, but by so little that a smaller tolerance could change it."""


class Rows(NamedTuple):
    """Constraints; those in front stay while others come and go behind them."""

    rows: Array
    shift: Array
    least: Array
    slip: Array
    """How far below ``least`` still counts as satisfied."""
    strict: Array
    """1.0 where ``least`` is the tolerance, 0.0 where it is a plain bound."""


class Basis(NamedTuple):
    """A vertex: values of the columns, z, the tight constraints, the columns between their ends, and how many."""

    values: Array
    point: Array
    tight: NDArray[np.int64]
    between: NDArray[np.int64]
    number: NDArray[np.int64]


@compiled
def copy_basis(source: Basis, target: Basis) -> None:
    """Overwrite one basis by another."""
    k = source.number[0]
    assign(target.values, source.values)
    assign(target.point, source.point)
    for a in range(k):
        target.tight[a], target.between[a] = source.tight[a], source.between[a]
    target.number[0] = k


@compiled
def vertex(columns: Array, objective: Array, rows: Rows, basis: Basis, room: Scratch) -> bool:
    """Values of the columns in between, z, multipliers, and prices; False where the basis is singular."""
    k = basis.number[0]
    values, tight, between, point = basis.values, basis.tight, basis.between, basis.point
    for b in range(k):
        values[between[b]] = 0.0
    project(columns, values, point)
    assign(room.prices, objective)
    if k == 0:
        return True
    for a in range(k):
        for b in range(k):
            room.system[a, b] = _along(columns, rows.rows[tight[a]], between[b])
    if not invert(room.system, room.inverse, k):
        return False
    for a in range(k):
        room.reduced[a] = rows.least[tight[a]] - rows.shift[tight[a]] - _inner(rows.rows, tight[a], point)
    for b in range(k):
        total = 0.0
        for a in range(k):
            total += room.inverse[b, a] * room.reduced[a]
        values[between[b]] = total
        for i in range(len(point)):
            point[i] += columns[i, between[b]] * total
    for b in range(k):
        room.reduced[b] = _along(columns, objective, between[b])
    for a in range(k):
        room.multipliers[a] = _column_product(room.reduced, room.inverse, a, k)
        _subtract(room.prices, room.multipliers[a], rows.rows, tight[a])
    return True


@compiled
def _along(columns: Array, direction: Array, j: int) -> float:
    total = 0.0
    for i in range(len(direction)):
        total += direction[i] * columns[i, j]
    return total


@compiled
def _inner(matrix: Array, row: int, point: Array) -> float:
    total = 0.0
    for i in range(len(point)):
        total += matrix[row, i] * point[i]
    return total


@compiled
def _column_product(left: Array, matrix: Array, column: int, k: int) -> float:
    total = 0.0
    for b in range(k):
        total += left[b] * matrix[b, column]
    return total


@compiled
def _subtract(target: Array, factor: float, matrix: Array, row: int) -> None:
    for i in range(len(target)):
        target[i] -= factor * matrix[row, i]


@compiled
def _most_violated(rows: Rows, number: int, basis: Basis, point: Array) -> tuple[int, float, float]:
    """A constraint, or ``number`` + a place in ``between``; whether it must rise or fall; by how much. -1 for none."""
    leaving, side, worst, excess = -1, 1.0, 0.0, 0.0
    for r in range(number):
        lack = rows.least[r] - rows.shift[r] - _inner(rows.rows, r, point)
        if lack - rows.slip[r] > worst:
            leaving, worst, excess = r, lack - rows.slip[r], lack
    for b in range(basis.number[0]):
        value = basis.values[basis.between[b]]
        lack = abs(value) - 1.0
        if lack - OUTSIDE > worst:
            leaving, worst, excess = number + b, lack - OUTSIDE, lack
            side = -1.0 if value > 0 else 1.0
    return leaving, side, excess


@compiled
def _exchange(basis: Basis, leaving: int, number: int, side: float, entering: int, row_out: int) -> None:
    k, tight, between = basis.number[0], basis.tight, basis.between
    if leaving < number:
        if entering >= 0:
            tight[k], between[k] = leaving, entering
            basis.number[0] = k + 1
        else:
            tight[row_out] = leaving
        return
    place = leaving - number
    basis.values[between[place]] = -side
    if entering >= 0:
        between[place] = entering
    else:
        tight[row_out], between[place] = tight[k - 1], between[k - 1]
        basis.number[0] = k - 1


@compiled
def solve(
    columns: Array, objective: Array, rows: Rows, number: int, basis: Basis, room: Scratch, tolerances: Array,
    statistics: NDArray[np.int64],
) -> int:  # fmt: skip
    """Repair a basis until the first ``number`` constraints hold.

    Args:
        columns: W, shape (d, n).
        objective: Direction in z that the vertices minimise, shape (d,).
        rows: The constraints.
        number: How many of them count.
        basis: Dual feasible; changed in place.
        room: Scratch.
        tolerances: The tolerance that strict constraints ask for, and the smallest one that matters.
        statistics: Its first entry counts steps.

    Returns:
        One of the outcomes above.
    """
    tight, between, point = basis.tight, basis.between, basis.point
    share, direction, inverse = room.share, room.direction, room.inverse
    for _ in range(MOST_STEPS):
        k = basis.number[0]
        if not vertex(columns, objective, rows, basis, room):
            return FAILED
        leaving, side, excess = _most_violated(rows, number, basis, point)
        if leaving < 0:
            return FEASIBLE
        statistics[0] += 1
        # the violated value as share @ (tight constraints) + direction @ z of the columns at their ends
        if leaving < number:
            assign(direction, rows.rows[leaving])
            for b in range(k):
                room.reduced[b] = _along(columns, direction, between[b])
            for a in range(k):
                share[a] = _column_product(room.reduced, inverse, a, k)
        else:
            for i in range(len(direction)):
                direction[i] = 0.0
            for a in range(k):
                share[a] = inverse[leaving - number, a]
        for a in range(k):
            _subtract(direction, share[a], rows.rows, tight[a])
        combine(direction, columns, room.effect)
        combine(room.prices, columns, room.costs)
        for b in range(k):
            room.effect[between[b]] = 0.0
        limit, row_out = np.inf, -1
        for a in range(k):
            if side * share[a] > SMALLEST_PIVOT:
                cost = max(0.0, room.multipliers[a])
                if cost / (side * share[a]) < limit:
                    limit, row_out = cost / (side * share[a]), a
        entering, rest = enter(basis.values, room, side, excess, limit)
        if entering == -1 and row_out == -1:
            weight = rows.strict[leaving] if leaving < number else 0.0
            for a in range(k):
                weight += abs(share[a]) * rows.strict[tight[a]]
            # a proof: no smaller tolerance above this one is met either
            return DOUBTFUL if tolerances[0] * weight - rest > tolerances[1] * weight else INFEASIBLE
        _exchange(basis, leaving, number, side, entering, row_out)
    return FAILED
