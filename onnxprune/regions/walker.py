"""A depth-first walk through the regions of a network that can be paused, moved and read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from onnxprune.errors import InputError
from onnxprune.operators.interval import Array
from onnxprune.regions import descent
from onnxprune.regions.descent import (
    CROSS,
    DONE,
    DOUBTS,
    EITHER,
    FAILURES,
    FULL,
    PROGRAMMES,
    STEPS,
    THIN,
    WALK,
    Units,
    Walk,
)
from onnxprune.regions.nearest import Node, copy_node, space
from onnxprune.regions.network import Pattern, RegionNetwork
from onnxprune.regions.pivots import scratch
from onnxprune.regions.simplex import FEASIBLE, Basis, Rows, solve

Definition = Literal["cells", "patterns", "affine"]
TOLERANCE = 1e-9
"""Half-width of a region, as a share of the pre-activation's half-range over the box, below which it is not seen."""
NEGLIGIBLE = 1e-3
"""Proofs that hold down to this share of the tolerance are beyond doubt."""
RANK = 1e-13
"""Rows that are this close to the span of the others, as a share of the largest, count as within it."""
LONGEST = 2e9
"""Operations that finding an orthonormal basis may take, about half a second; inputs are taken as they are beyond."""


class Walker:
    """Walks through the regions of a network.

    Args:
        network: The network.
        definition: "patterns" lets inactive units be 0; "cells" and "affine" walk through open cells.
        tolerance: Least slack of every unit in a region, as a share of the half-range of its pre-activation.

    Raises:
        InputError: The domain is empty or the tolerance out of range.
    """

    def __init__(self, network: RegionNetwork, definition: Definition = "cells", tolerance: float = TOLERANCE) -> None:
        if not 1e-11 <= tolerance < 1:
            raise InputError(f"tolerance cannot be {tolerance}.", hint="It lies between 1e-11 and 1.")
        self.network = network
        self.definition: Definition = definition
        self.tolerance = tolerance
        self.depth: int = network.unstable
        self._centre, self._radius = network.low / 2 + network.high / 2, network.high / 2 - network.low / 2
        self._units = self._project(definition == "patterns")
        self._walk, self._root = self._start()
        self._base = 0
        self._none, self._zero = np.zeros((0, self.depth), dtype=np.int8), np.zeros(1, dtype=np.int64)
        self._all = np.zeros((0, self.depth + 1), dtype=np.int8)
        self.move(())

    def move(self, prefix: Sequence[int]) -> None:
        """Go to a node that exists: the sides of the first units. What waited elsewhere is forgotten."""
        copy_node(self._root, self._walk.current)
        self._walk.waiting[:] = 0
        self._walk.depth[0] = 0
        for side in prefix:
            self._proceed(int(side))
        self._base = len(prefix)

    def count(self, programmes: int = 1 << 62) -> tuple[int, bool]:
        """Walk on below the node that was moved to; how many regions were met, and whether none is left."""
        leaves = np.zeros(1, dtype=np.int64)
        result = self._proceed(WALK, self.depth, programmes, self._none, leaves)
        return int(leaves[0]), result == DONE

    def collect(
        self,
        floor: int | None = None,
        most: int = 4096,
        *,
        programmes: int = 1 << 62,
        parity: NDArray[np.int8] | None = None,
    ) -> tuple[NDArray[np.int8], bool]:
        """The next nodes at a depth, at most so many, one per row; and whether none is left.

        Args:
            floor: The depth; that of regions by default.
            most: Nodes after which to pause.
            programmes: Programmes after which to pause.
            parity: Rows that nodes must satisfy, see :func:`~onnxprune.regions.descent.proceed`.
        """
        floor = self.depth if floor is None else floor
        found, leaves = np.zeros((most, floor), dtype=np.int8), np.zeros(1, dtype=np.int64)
        result = self._proceed(WALK, floor, programmes, found, leaves, parity)
        return found[: leaves[0]], result == DONE or (result == FULL and self._walk.depth[0] < 0)

    def sides(self) -> tuple[int, ...]:
        """Decide the unit at the current node and take its first side; the sides that exist, that one first."""
        unit = int(self._walk.depth[0])
        both = self._proceed(int(EITHER)) == 2
        side = int(self._walk.bits[unit])
        return (side, 1 - side) if both else (side,)

    def cross(self) -> None:
        """After :meth:`sides`, take the second side instead."""
        self._proceed(CROSS)

    def stay(self) -> None:
        """Make the current node the root of what is counted next."""
        self._base = int(self._walk.depth[0])

    def open_nodes(self) -> list[Pattern]:
        """Nodes that are not walked through yet: they and what was counted make up the whole subtree."""
        at = int(self._walk.depth[0])
        if at < 0:
            return []
        bits = [int(bit) for bit in self._walk.bits[:at]]
        waiting = [u for u in range(self._base, at) if self._walk.waiting[u]]
        return [tuple(bits), *((*bits[:u], 1 - bits[u]) for u in waiting)]

    @property
    def prefix(self) -> Pattern:
        """The current node."""
        return tuple(int(bit) for bit in self._walk.bits[: max(0, self._walk.depth[0])])

    @property
    def witness(self) -> Array:
        """An input in the current node's region, shape (inputs,)."""
        values = np.clip(self._walk.current.values, -1.0, 1.0)
        point = self._centre.copy()
        point[self._free] += self._radius[self._free] * values
        return np.clip(point, self.network.low, self.network.high)

    @property
    def doubts(self) -> int:
        """Decisions that a tolerance smaller by 1000 might change, or that arithmetic did not settle."""
        return int(self._walk.statistics[[DOUBTS, THIN, FAILURES]].sum())

    @property
    def programmes(self) -> int:
        """Linear programmes solved so far."""
        return int(self._walk.statistics[PROGRAMMES])

    @property
    def steps(self) -> int:
        """Simplex steps taken so far."""
        return int(self._walk.statistics[STEPS])

    def _proceed(
        self,
        task: int,
        floor: int = 0,
        programmes: int = 0,
        found: NDArray[np.int8] | None = None,
        leaves: NDArray[np.int64] | None = None,
        parity: NDArray[np.int8] | None = None,
    ) -> int:
        found, leaves = self._none if found is None else found, self._zero if leaves is None else leaves
        rows = self._all if parity is None else parity
        return descent.proceed(self._units, self._walk, task, self._base, floor, programmes, found, leaves, rows)

    def _project(self, closed: bool) -> Units:
        """Inputs enter through few combinations: an orthonormal basis of all rows that read them."""
        net, inputs, count = self.network, len(self.network.low), self.depth
        direct, reads, shift = np.zeros((count, inputs)), np.zeros((count, count)), np.zeros(count)
        at = 0
        for layer in net.layers:
            here = slice(at, at + layer.size)
            direct[here], shift[here] = layer.weights[:, :inputs], layer.bias
            reads[here, : layer.weights.shape[1] - inputs] = layer.weights[:, inputs:]
            at += layer.size
        self._free = np.flatnonzero(self._radius > 0)
        everything = np.vstack([direct, net.rows])
        shift = shift + direct @ self._centre
        scaled = everything[:, self._free] * self._radius[self._free]
        columns, parts = _factored(scaled)
        self._domain_rows = parts[count:]
        objective = np.random.default_rng(0).normal(size=len(columns))
        tolerances = np.array([self.tolerance, self.tolerance * NEGLIGIBLE])
        rows = np.ascontiguousarray(parts[:count])
        direct_sizes = np.abs(rows @ columns).sum(axis=1)
        return Units(columns, objective, rows, direct_sizes, shift, reads, tolerances, int(closed))

    def _start(self) -> tuple[Walk, Node]:
        columns = self._units.columns
        d, n = columns.shape
        fixed = len(self._domain_rows)
        total = fixed + self.depth + 1
        rows = Rows(np.zeros((total, d)), np.zeros(total), np.zeros(total), np.zeros(total), np.zeros(total))
        sizes = np.abs(self._domain_rows @ columns).sum(axis=1)
        scale = np.where(sizes > 0, sizes, 1.0)
        rows.rows[:fixed] = -self._domain_rows / scale[:, None]
        rows.shift[:fixed] = (self.network.limits - self.network.rows @ self._centre) / scale
        rows.slip[:fixed] = descent.ZERO
        room = scratch(d, n)
        root, basis = _basis(n, d, d + 1), _basis(n, d, d + 1)
        costs = self._units.objective @ columns
        root.values[:] = np.where(costs > 0, -1.0, 1.0)
        statistics = np.zeros(6, dtype=np.int64)
        units = self._units
        if fixed:
            found = solve(columns, units.objective, rows, fixed, root, room, units.tolerances, statistics)
            if found != FEASIBLE:
                raise InputError("The domain is empty.", hint="Its linear constraints cannot hold together.")
        u = self.depth
        first, current, trial, other = (Node(np.zeros(n), np.zeros(d), np.zeros(total)) for _ in range(4))
        if fixed:  # otherwise the centre of the box is as good
            first.values[:], first.point[:] = root.values, root.point
        walk = Walk(
            rows, np.zeros((u, d)), np.zeros(u), np.zeros(u), np.zeros(u, dtype=np.int64),
            np.full(u + 1, fixed, dtype=np.int64), np.zeros(u, dtype=np.int64), np.zeros((u, n)), np.zeros((u, d)),
            np.zeros((u, total)), current, trial, other, root, basis, room, space(d, n, total),
            np.zeros(1, dtype=np.int64), statistics,
        )  # fmt: skip
        return walk, first


def _basis(n: int, d: int, most: int) -> Basis:
    places = np.zeros(most, dtype=np.int64)
    return Basis(np.zeros(n), np.zeros(d), places.copy(), places, np.zeros(1, dtype=np.int64))


def _factored(rows: Array) -> tuple[Array, Array]:
    """``rows = parts @ columns`` with as few columns' rows as there are independent rows: (columns, parts)."""
    used = rows[np.abs(rows).max(axis=1, initial=0.0) > 0]
    if rows.shape[1] <= len(used) or len(used) ** 2 * rows.shape[1] > LONGEST:
        return np.eye(rows.shape[1]), np.ascontiguousarray(rows)
    if not len(used):
        return np.zeros((0, rows.shape[1])), np.zeros((len(rows), 0))
    basis, triangle, _ = qr(used.T, mode="economic", pivoting=True, check_finite=False)
    sizes = np.abs(np.diagonal(triangle))
    columns = np.ascontiguousarray(basis.T[sizes > RANK * sizes[0]])
    return columns, np.ascontiguousarray(rows @ columns.T)
