"""The quick answer to whether half-spaces meet inside a box: the point nearest to the centre.

Minimising |t|^2 / 2 over the constraints has a dual in one multiplier per constraint, concave and piecewise quadratic,
with t = clip(W' R' multipliers). Newton steps on it (with an active set, Hager and Zhang 2016) need no column pivots:
few steps, each two products with W. Any point on the way that satisfies all constraints is an answer, and so are
multipliers that prove by Farkas' lemma that there is none. What neither settles is left to the simplex method.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onnxprune.operators.interval import Array
from onnxprune.regions.compiled import COMPILED, compiled, compiled_sums
from onnxprune.regions.simplex import FEASIBLE, INFEASIBLE, Rows
from onnxprune.regions.vectors import assign, combine, project

UNSETTLED = 4
MOST_NEWTON = 25
HALVINGS = 5
RIDGE = 1e-11
"""Share of the diagonal that keeps the system regular."""


class Node(NamedTuple):
    """A point of a node: the columns' values, z, and multipliers to start from."""

    values: Array
    point: Array
    weights: Array


class Space(NamedTuple):
    """Room for intermediate results; ``gram`` always belongs to ``free``."""

    pull: Array
    direction: Array
    free: Array
    gram: Array
    slack: Array
    step: Array
    old: Array
    system: Array
    turned: Array


def space(rows: int, columns: int, constraints: int) -> Space:
    """Room for W of this shape and so many constraints."""
    n, d, m = np.zeros(columns), np.zeros(rows), np.zeros(constraints)
    square = np.zeros((constraints, constraints + 1))
    return Space(
        n.copy(), d.copy(), n, np.zeros((rows, rows)), m.copy(), m.copy(), m, square, np.zeros((constraints, rows))
    )


@compiled
def copy_node(source: Node, target: Node) -> None:
    """Overwrite one node by another."""
    assign(target.values, source.values)
    assign(target.point, source.point)
    assign(target.weights, source.weights)


@compiled
def nearest(columns: Array, rows: Rows, number: int, node: Node, room: Space, tolerances: Array) -> int:
    """Find a point where the first ``number`` constraints hold, or a proof that there is none.

    Args:
        columns: W, shape (d, n).
        rows: The constraints.
        number: How many of them count.
        node: Where to start; its point is the answer if there is one.
        room: Scratch.
        tolerances: As for :func:`~onnxprune.regions.simplex.solve`.

    Returns:
        FEASIBLE, INFEASIBLE (for the smallest tolerance that matters, too), or UNSETTLED.
    """
    weights = node.weights
    worst, height, proved = _evaluate(columns, rows, number, node, room, tolerances)
    for _ in range(MOST_NEWTON):
        if worst < 0:
            return FEASIBLE
        if proved:
            return INFEASIBLE
        _refresh(columns, room)
        if not _newton(rows, number, weights, worst, room):
            return UNSETTLED
        assign(room.old, weights)
        share = 1.0
        for i in range(number):
            if room.step[i] < 0.0 and weights[i] + share * room.step[i] < 0.0:
                share = weights[i] / -room.step[i]
        before = height
        for _attempt in range(HALVINGS):
            for i in range(number):
                weights[i] = max(0.0, room.old[i] + share * room.step[i])
                if weights[i] <= 1e-15 * room.old[i]:
                    weights[i] = 0.0
            worst, height, proved = _evaluate(columns, rows, number, node, room, tolerances)
            if worst < 0 or proved or height >= before:
                break
            share *= 0.5
    return UNSETTLED


@compiled
def _evaluate(
    columns: Array, rows: Rows, number: int, node: Node, room: Space, tolerances: Array
) -> tuple[int, float, bool]:
    """The most violated constraint (-1: none), the dual value, and whether the multipliers are a proof."""
    direction, pull = room.direction, room.pull
    for i in range(len(direction)):
        direction[i] = 0.0
    gain, strict, weight = 0.0, 0.0, 0.0
    for r in range(number):
        if node.weights[r] > 0.0:
            gain += node.weights[r] * (rows.least[r] - rows.shift[r])
            strict += node.weights[r] * rows.strict[r]
            weight += node.weights[r]
            for i in range(len(direction)):
                direction[i] += node.weights[r] * rows.rows[r, i]
    combine(direction, columns, pull)
    reach, energy = _clip(pull, node.values)
    project(columns, node.values, node.point)
    worst, excess = -1, 0.0
    for r in range(number):
        lack = rows.least[r] - rows.shift[r]
        for i in range(len(direction)):
            lack -= rows.rows[r, i] * node.point[i]
        room.slack[r] = lack
        if lack - rows.slip[r] > excess:
            worst, excess = r, lack - rows.slip[r]
    proof = gain - reach
    certain = proof > 1e-12 * (weight + abs(gain)) and tolerances[0] * strict - proof <= tolerances[1] * strict
    return worst, gain - energy, certain


@compiled_sums
def _clip_fast(pull: Array, values: Array) -> tuple[float, float]:
    reach, energy = 0.0, 0.0
    for j in range(len(pull)):
        size = abs(pull[j])
        values[j] = min(1.0, max(-1.0, pull[j]))
        reach += size
        energy += 0.5 * size * size if size < 1.0 else size - 0.5
    return reach, energy


def _clip_plain(pull: Array, values: Array) -> tuple[float, float]:
    np.clip(pull, -1.0, 1.0, out=values)
    size = np.abs(pull)
    return float(size.sum()), float(np.where(size < 1.0, 0.5 * size * size, size - 0.5).sum())


@compiled
def _refresh_fast(columns: Array, room: Space) -> None:
    gram = room.gram
    for j in range(len(room.pull)):
        now = 1.0 if abs(room.pull[j]) < 1.0 else 0.0
        if now != room.free[j]:
            sign = now - room.free[j]
            room.free[j] = now
            for a in range(columns.shape[0]):
                factor = sign * columns[a, j]
                for b in range(columns.shape[0]):
                    gram[a, b] += factor * columns[b, j]


def _refresh_plain(columns: Array, room: Space) -> None:
    room.free[:] = np.abs(room.pull) < 1.0
    room.gram[:] = (columns * room.free) @ columns.T


@compiled
def _newton(rows: Rows, number: int, weights: Array, worst: int, room: Space) -> bool:
    """The step of the multipliers in use and of the most violated constraint, into ``room.step``."""
    d, system, turned = len(room.direction), room.system, room.turned
    count = 0
    for r in range(number):
        room.step[r] = 0.0
        if weights[r] > 0.0 or r == worst:
            for a in range(d):
                turned[count, a] = 0.0
                for b in range(d):
                    turned[count, a] += room.gram[a, b] * rows.rows[r, b]
            place = 0
            for q in range(r + 1):
                if weights[q] > 0.0 or q == worst:
                    entry = 0.0
                    for a in range(d):
                        entry += turned[count, a] * rows.rows[q, a]
                    system[count, place] = entry
                    system[place, count] = entry
                    place += 1
            count += 1
    largest = 0.0
    for c in range(count):
        largest = max(largest, system[c, c])
    place = 0
    for r in range(number):
        if weights[r] > 0.0 or r == worst:
            system[place, place] += RIDGE * largest + 1e-15
            system[place, count] = room.slack[r]
            place += 1
    if not _eliminate(system, count):
        return False
    place = 0
    for r in range(number):
        if weights[r] > 0.0 or r == worst:
            room.step[r] = system[place, count]
            place += 1
    return bool(weights[worst] > 0.0 or room.step[worst] > 0.0)


@compiled
def _eliminate(system: Array, count: int) -> bool:
    """Solve a positive definite system whose right-hand side is the column behind it; in place."""
    for c in range(count):
        if not system[c, c] > 0.0:
            return False
        for a in range(c + 1, count):
            factor = system[a, c] / system[c, c]
            if factor != 0.0:
                for b in range(c, count + 1):
                    system[a, b] -= factor * system[c, b]
    for c in range(count - 1, -1, -1):
        for b in range(c + 1, count):
            system[c, count] -= system[c, b] * system[b, count]
        system[c, count] /= system[c, c]
    return True


_clip = _clip_fast if COMPILED else _clip_plain
_refresh = _refresh_fast if COMPILED else _refresh_plain
