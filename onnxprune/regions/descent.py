"""The depth-first walk over units: which side of each cut exists, given the sides before it.

At a node the units before ``depth`` are decided, so that the next pre-activation is affine in z. The side where the
vertex of the node lies is there for free; one programme decides the other. Only the vertex of the side that waits is
kept, so that memory grows with depth, not with the number of regions.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.interval import Array
from onnxprune.regions.compiled import compiled
from onnxprune.regions.nearest import UNSETTLED, Node, Space, copy_node, nearest
from onnxprune.regions.pivots import Scratch
from onnxprune.regions.simplex import DOUBTFUL, FAILED, FEASIBLE, Basis, Rows, copy_basis, solve
from onnxprune.regions.vectors import assign, combine, total

ZERO = 1e-12
"""Share of its parts' sizes below which a coefficient counts as cancelled."""
STEPS, PROGRAMMES, THIN, DOUBTS, FAILURES, SIMPLEX = range(6)
"""Places in the statistics."""
DONE, PAUSED, FULL = 0, 1, 2
CROSS, WALK = 2, 3
OFF, ON, EITHER = (cast(int, np.int64(side)) for side in (0, 1, -1))  # plain numbers would compile functions anew


class Units(NamedTuple):
    """The units front to back over z = columns @ t, t in [-1, 1]^n."""

    columns: Array
    objective: Array
    rows: Array
    """Direct part of every unit's row, shape (units, d)."""
    direct: Array
    """Half-range of that part over the box."""
    shift: Array
    reads: Array
    """Weights on earlier units, shape (units, units)."""
    tolerances: Array
    closed: int
    """1 where an inactive unit means g <= 0 instead of g < 0."""


class Walk(NamedTuple):
    """A node and what waits beside the way to it."""

    constraints: Rows
    gates: Array
    """Pre-activations of decided units over z, shape (units, d)."""
    offsets: Array
    sizes: Array
    """Half-ranges of the pre-activations' linear parts over the box."""
    bits: NDArray[np.int64]
    number: NDArray[np.int64]
    """Constraints before each unit."""
    waiting: NDArray[np.int64]
    values: Array
    points: Array
    weights: Array
    current: Node
    trial: Node
    other: Node
    root: Basis
    basis: Basis
    room: Scratch
    space: Space
    depth: NDArray[np.int64]
    statistics: NDArray[np.int64]


@compiled
def _kept(walk: Walk, unit: int) -> Node:
    return Node(walk.values[unit], walk.points[unit], walk.weights[unit])


@compiled
def _constrain(units: Units, walk: Walk, unit: int, place: int, on: int) -> None:
    """Write the constraint of one side of a unit."""
    rows, sign = walk.constraints, 1.0 if on else -1.0
    scale = sign / walk.sizes[unit]
    for i in range(walk.gates.shape[1]):
        rows.rows[place, i] = scale * walk.gates[unit, i]
    rows.shift[place] = scale * walk.offsets[unit]
    strict = on == 1 or units.closed == 0
    rows.least[place] = units.tolerances[0] if strict else 0.0
    rows.slip[place] = 0.5 * units.tolerances[0] if strict else ZERO
    rows.strict[place] = 1.0 if strict else 0.0


@compiled
def _gate(units: Units, walk: Walk, unit: int) -> tuple[float, float]:
    """The pre-activation of a unit while the earlier ones stay; the sizes of what was added up."""
    gate = walk.gates[unit]
    assign(gate, units.rows[unit])
    offset = units.shift[unit]
    size, offset_size = units.direct[unit], abs(offset)
    for v in range(unit):
        weight = units.reads[unit, v]
        if weight != 0.0 and walk.bits[v] == 1:
            for i in range(len(gate)):
                gate[i] += weight * walk.gates[v, i]
            offset += weight * walk.offsets[v]
            size += abs(weight) * walk.sizes[v]
            offset_size += abs(weight * walk.offsets[v])
    walk.offsets[unit] = offset
    combine(gate, units.columns, walk.room.effect)
    walk.sizes[unit] = total(walk.room.effect)
    return size, offset_size + size


@compiled
def _try(units: Units, walk: Walk, unit: int, place: int, on: int, node: Node) -> bool:
    """Whether a side exists; ``node`` becomes a point of it."""
    copy_node(walk.current, node)
    _constrain(units, walk, unit, place, on)
    node.weights[place] = 0.0
    walk.statistics[PROGRAMMES] += 1
    found = nearest(units.columns, walk.constraints, place + 1, node, walk.space, units.tolerances)
    if found == UNSETTLED:
        walk.statistics[SIMPLEX] += 1
        copy_basis(walk.root, walk.basis)
        found = solve(
            units.columns, units.objective, walk.constraints, place + 1, walk.basis, walk.room, units.tolerances,
            walk.statistics,
        )  # fmt: skip
        if found == DOUBTFUL:
            walk.statistics[DOUBTS] += 1
        if found == FAILED:
            walk.statistics[FAILURES] += 1
        assign(node.values, walk.basis.values)
        assign(node.point, walk.basis.point)
        assign(node.weights, walk.current.weights)
        node.weights[place] = 0.0
    return found == FEASIBLE


@compiled
def decide(units: Units, walk: Walk, unit: int, forced: int) -> int:
    """Decide the unit at the current node.

    Args:
        units: The units.
        walk: Its current vertex becomes that of the side in ``bits[unit]``; ``other`` that of the other side if both
            exist.
        unit: Which unit.
        forced: 0 or 1: take this side, which is known to exist; -1 to look at both.

    Returns:
        Number of sides that exist.
    """
    place = walk.number[unit]
    walk.waiting[unit] = 0
    walk.number[unit + 1] = place
    size, offset_size = _gate(units, walk, unit)
    offset = walk.offsets[unit]
    if abs(offset) >= walk.sizes[unit] or walk.sizes[unit] <= ZERO * size:
        if walk.sizes[unit] <= ZERO * size:
            walk.bits[unit] = 1 if offset > ZERO * offset_size else 0
            return 1
        if abs(offset) > walk.sizes[unit] * (1.0 + ZERO):
            walk.bits[unit] = 1 if offset > 0 else 0
            return 1
    value = offset
    for i in range(walk.gates.shape[1]):
        value += walk.gates[unit, i] * walk.current.point[i]
    value /= walk.sizes[unit]
    tolerance = units.tolerances[0]
    walk.number[unit + 1] = place + 1
    on_free, off_free = value >= tolerance, (value <= 0.0 if units.closed else value <= -tolerance)
    free = ON if on_free else OFF if off_free else EITHER
    first, second = EITHER, EITHER  # sides that programmes decide
    if forced >= 0:
        first = EITHER if free == forced else forced
    elif free >= 0:
        second = ON - free
    else:
        first, second = ON, OFF
    has_first, has_second = False, False
    for attempt in range(2):
        side = first if attempt == 0 else second
        if side >= 0:
            exists = _try(units, walk, unit, place, side, walk.trial if attempt == 0 else walk.other)
            has_first, has_second = has_first or (attempt == 0 and exists), attempt == 1 and exists
    own = forced if forced >= 0 else free
    if first >= 0:
        if not has_first and not has_second:  # all that is here is thinner than the tolerance: the cut is left out
            walk.statistics[THIN] += 1 if forced < 0 else 0
            walk.bits[unit] = (1 if value > ZERO else 0) if forced < 0 else forced
            walk.number[unit + 1] = place
            return 1
        own = first if has_first else second
        copy_node(walk.trial if has_first else walk.other, walk.current)
    walk.bits[unit] = own
    walk.current.weights[place] = 0.0 if first < 0 else walk.current.weights[place]
    _constrain(units, walk, unit, place, own)
    return 2 if has_second and (has_first or first < 0) else 1


@compiled
def cross(units: Units, walk: Walk, unit: int) -> None:
    """Take the other side of a unit, whose vertex is in ``other``."""
    walk.bits[unit] = 1 - walk.bits[unit]
    _constrain(units, walk, unit, walk.number[unit], walk.bits[unit])
    copy_node(walk.other, walk.current)


@compiled
def _turn(units: Units, walk: Walk, base: int) -> bool:
    """Go to the deepest side that waits below the first ``base`` units; False if there is none."""
    for unit in range(walk.depth[0] - 1, base - 1, -1):
        if walk.waiting[unit] == 1:
            walk.waiting[unit] = 0
            copy_node(_kept(walk, unit), walk.other)
            cross(units, walk, unit)
            walk.depth[0] = unit + 1
            return True
    walk.depth[0] = -1
    return False


@compiled
def proceed(
    units: Units,
    walk: Walk,
    task: int,
    base: int,
    floor: int,
    programmes: int,
    found: NDArray[np.int8],
    leaves: NDArray[np.int64],
    parity: NDArray[np.int8],
) -> int:
    """The one way in from outside, so that it is compiled once.

    Args:
        units: The units.
        walk: Where the walk is; it can be continued from there.
        task: A side or EITHER: decide one unit, see :func:`decide`; CROSS: take its other side; WALK: go on.
        base: Depth of the subtree's root.
        floor: Depth at which nodes count as leaves.
        programmes: Stop after about so many.
        found: Room for the bits of leaves, shape (leaves, floor); none to only count them.
        leaves: Its first entry counts leaves; where ``found`` is given it counts those in it.
        parity: Rows that patterns must satisfy, shape (units, units + 1); none for all patterns. Where entry (u, u) is
            1, the bits of units up to u with a 1 in row u add up to the row's last entry, modulo 2.

    Returns:
        The number of sides; or DONE, PAUSED after so many programmes, or FULL.
    """
    if task == CROSS:
        cross(units, walk, walk.depth[0] - 1)
        return DONE
    limit = walk.statistics[PROGRAMMES] + programmes
    while walk.depth[0] >= 0:
        unit = walk.depth[0]
        if task == WALK:
            if unit == floor:
                if len(found):
                    for v in range(floor):
                        found[leaves[0], v] = walk.bits[v]
                leaves[0] += 1
                _turn(units, walk, base)
                if len(found) and leaves[0] == len(found):
                    return FULL
                continue
            if walk.statistics[PROGRAMMES] >= limit:
                return PAUSED
        sides = decide(units, walk, unit, EITHER if task == WALK else task)
        walk.depth[0] = unit + 1
        if task != WALK:
            return sides
        if sides == 2:
            walk.waiting[unit] = 1
            copy_node(walk.other, _kept(walk, unit))
        if len(parity) and parity[unit, unit] == 1:
            if _odd(parity[unit], walk.bits, unit):
                _turn(units, walk, base)  # the other side satisfies the row, if it exists
            else:
                walk.waiting[unit] = 0
    return DONE


@compiled
def _odd(row: NDArray[np.int8], bits: NDArray[np.int64], unit: int) -> bool:
    """Whether the bits of a row up to a unit do not add up to its last entry."""
    difference = np.int64(row[-1])
    for v in range(unit + 1):
        difference += row[v] * bits[v]
    return bool(difference % 2 == 1)
