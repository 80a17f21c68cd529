"""A network up to one of its blocks as linear constraints: the triangle relaxation, or exact with binaries.

An open unit with bounds ``L < 0 < U`` is split into its two parts, ``g = h - n`` with ``h, n >= 0``, of which one is
zero. That needs one long row per unit and

* relaxed (the triangle): ``-L h + U n <= -L U``, each coefficient divided by ``U - L`` and the right-hand side
  rounded up, which is the line through the corners of ReLU over [L, U];
* exact (big-M with proved bounds): ``h <= U z`` and ``n <= -L (1 - z)``, z binary.

The same as ``h >= g, h >= 0, h <= U z, h <= g - L (1 - z)`` (Tjeng et al. 2019), with fewer long rows. Every true
assignment over the domain satisfies the constraints in real arithmetic: what is rounded is rounded outward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from onnxprune.bounds.blocks import Blocks
from onnxprune.mip.affine import column_bounds, column_sizes, constants, fold, free_part
from onnxprune.mip.system import INFINITE, System
from onnxprune.operators.interval import TINY, Array, up

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Affine:
    """``coefficients @ x + c`` with some c in ``[low, high]``; coefficients of shape (columns of the system,)."""

    coefficients: Array
    low: float
    high: float

    def times(self, sign: int) -> Affine:
        """The same times 1 or -1."""
        return self if sign > 0 else Affine(-self.coefficients, -self.high, -self.low)


@dataclass(frozen=True)
class Encoding:
    """A system of constraints, and where the network's columns are in it.

    Attributes:
        system: The constraints.
        blocks: The network.
        place: Shape (network columns before the target,); column of the system, -1 where there is none.
        value: Same shape; the value of columns that can take only one, NaN elsewhere.
        parts: Per (block, unit) the columns whose difference (or the one that) is its pre-activation.
        reaches_inputs: Whether rows tie the columns to the network's inputs.
        equations: Per (block, unit) with a column for its output the row that says what its pre-activation is.
    """

    system: System
    blocks: Blocks
    place: Index
    value: Array
    parts: Mapping[tuple[int, int], tuple[int, ...]]
    reaches_inputs: bool
    equations: Mapping[tuple[int, int], int]

    def preactivation(self, block: int, unit: int) -> Affine:
        """The pre-activation of a unit over the columns of the system, rounding and slack included.

        Args:
            block: Index of its block.
            unit: Index of the unit.

        Raises:
            ValueError: If the unit was not among the targets.
        """
        coefficients = np.zeros(self.system.columns)
        if (block, unit) in self.parts:
            coefficients[list(self.parts[block, unit])] = (1.0, -1.0)[: len(self.parts[block, unit])]
            return Affine(coefficients, 0.0, 0.0)
        rows, low, high = fold(self.blocks.blocks[block], np.array([unit]), self.value)
        columns = self.place[rows.indices]
        if (columns < 0).any():
            raise ValueError(f"Unit {unit} of block {self.blocks.blocks[block].name} was not encoded.")
        coefficients[columns] = rows.data
        return Affine(coefficients, float(low[0]), float(high[0]))

    def scale(self, block: int, unit: int) -> float:
        """Size of the largest number in a unit's row; tolerances are meant relative to it."""
        what = self.blocks.blocks[block]
        row = what.weights[[unit], :]
        size = column_sizes(self.blocks, block)[row.indices]
        terms = np.abs(row.data) * size
        sizes = np.array([*terms, abs(what.bias[unit]), abs(what.low[unit]), abs(what.high[unit])])
        return float(sizes[np.isfinite(sizes) & (sizes < INFINITE)].max(initial=TINY))

    def point(self, x: Array) -> Array | None:
        """The network's inputs at a solution, moved into their box; None where the constraints never reach them.

        Args:
            x: Shape (columns,).
        """
        if not self.reaches_inputs:
            return None
        low, high = self.blocks.low, self.blocks.high
        middle = np.clip(np.where(np.isfinite(low) & np.isfinite(high), low / 2 + high / 2, 0.0), low, high)
        place = self.place[: len(low)]
        return np.asarray(np.clip(np.where(place >= 0, x[place], middle), low, high))


def encode(
    blocks: Blocks,
    targets: Mapping[int, Index],
    *,
    whole: bool,
    window: int | None = None,
    explicit: bool = False,
) -> Encoding:
    """Constraints on everything that some pre-activations depend on.

    Args:
        blocks: The network.
        targets: Units per block whose pre-activations will be asked for; blocks before the last of them are encoded.
        whole: Exactly, with binaries; otherwise relaxed.
        window: Only so many blocks before the first target are encoded, columns before those are boxes; None for all.
        explicit: Give each target a column of its own for its pre-activation.

    Raises:
        ValueError: If the pre-activations of a target block are not known to be affine.
    """
    for index in targets:
        if not blocks.blocks[index].exact:
            raise ValueError(f"Nothing but bounds is known about block {blocks.blocks[index].name}.")
    first = 0 if window is None else max(0, min(targets) - window)
    return _Builder(blocks, targets, first, whole, explicit).build()


class _Builder:
    """Collects columns and rows."""

    def __init__(self, blocks: Blocks, targets: Mapping[int, Index], first: int, whole: bool, explicit: bool) -> None:
        self.blocks, self.targets, self.first, self.whole = blocks, targets, first, whole
        self.stop = max(targets)
        self.low, self.high = column_bounds(blocks, self.stop)
        self.value = np.where((self.low == self.high) & np.isfinite(self.low), self.low, np.nan)
        self.place: Index = np.full(len(self.low), -1, dtype=np.int64)
        self.offset = np.cumsum([len(blocks.low), *(block.units for block in blocks.blocks)])
        self.wants_explicit = explicit
        self.parts: dict[tuple[int, int], tuple[int, ...]] = {}
        self.equations: dict[tuple[int, int], int] = {}
        self.bounds: list[tuple[Array, Array, bool]] = []
        self.columns = 0
        self.entries: list[tuple[Index, Index, Array]] = []
        self.sides: list[tuple[Array, Array]] = []
        self.rows = 0

    def build(self) -> Encoding:
        needed = self._needed()
        inputs = self.offset[0]
        free = np.isnan(self.value) & needed
        self._columns_for(np.flatnonzero(free[:inputs]))
        self._domain(needed[:inputs])
        for index in range(self.stop):
            units = np.flatnonzero(free[self.offset[index] : self.offset[index + 1]])
            if self._encoded(index):
                self._block(index, units)
            else:
                self._columns_for(self.offset[index] + units)
            self._targets(index)
        self._targets(self.stop)
        rows = [np.zeros(0, dtype=np.int64)] if not self.entries else [e[0] for e in self.entries]
        cols = [np.zeros(0, dtype=np.int64)] if not self.entries else [e[1] for e in self.entries]
        data = [np.zeros(0)] if not self.entries else [e[2] for e in self.entries]
        matrix = sparse.csr_array(
            (np.concatenate(data), (np.concatenate(rows), np.concatenate(cols))), shape=(self.rows, self.columns)
        )
        system = System(
            low=_joined([b[0] for b in self.bounds]),
            high=_joined([b[1] for b in self.bounds]),
            integer=np.concatenate([np.zeros(0, dtype=bool), *(np.full(len(b[0]), b[2]) for b in self.bounds)]),
            rows=matrix,
            row_low=_joined([s[0] for s in self.sides]),
            row_high=_joined([s[1] for s in self.sides]),
        )
        reaches = bool((self.place[:inputs] >= 0).any())
        return Encoding(system, self.blocks, self.place, self.value, self.parts, reaches, self.equations)

    def _encoded(self, index: int) -> bool:
        return index >= self.first and self.blocks.blocks[index].exact

    def _needed(self) -> NDArray[np.bool_]:
        """Columns that the targets depend on through encoded blocks."""
        needed = np.zeros(len(self.low), dtype=bool)
        for index in range(self.stop, -1, -1):
            block = self.blocks.blocks[index]
            units = self.targets.get(index, np.zeros(0, dtype=np.int64))
            if index < self.stop and self._encoded(index):
                own = np.arange(self.offset[index], self.offset[index + 1])
                units = np.union1d(units, np.flatnonzero(needed[own] & np.isnan(self.value[own])))
            if len(units) and block.exact:
                needed[free_part(sparse.csr_array(block.weights[units, :]), self.value).indices] = True
        inputs = self.offset[0]
        if needed[:inputs].any() and self.blocks.rows.shape[0]:
            needed[:inputs] |= abs(self.blocks.rows).sum(axis=0) > 0
        return needed

    def _add_columns(self, low: Array, high: Array, *, whole: bool = False) -> Index:
        self.bounds.append((low, high, whole))
        self.columns += len(low)
        return np.arange(self.columns - len(low), self.columns)

    def _columns_for(self, columns: Index) -> Index:
        """Boxed columns for columns of the network."""
        self.place[columns] = self._add_columns(self.low[columns], self.high[columns])
        return self.place[columns]

    def _add_rows(self, parts: list[tuple[Index, Index, Array]], low: Array, high: Array) -> None:
        """Add rows; parts are row (counted from 0), column and coefficient."""
        self.entries += [(rows + self.rows, columns, values) for rows, columns, values in parts if len(rows)]
        self.sides.append((low, high))
        self.rows += len(low)

    def _long(self, rows: sparse.csr_array) -> tuple[Index, Index, Array]:
        """Entries of ``-rows``; columns of the network replaced by columns of the system."""
        entries = sparse.coo_array(rows)
        return entries.row.astype(np.int64), self.place[entries.col], -entries.data

    def _domain(self, needed: NDArray[np.bool_]) -> None:
        rows, limits = self.blocks.rows, self.blocks.limits
        if not needed.any() or not rows.shape[0]:
            return
        low, _ = constants(rows, np.zeros(len(limits)), self.value[: rows.shape[1]])
        side = np.where(low == 0, limits, up(limits - low))
        row, column, values = self._long(free_part(rows, self.value))
        self._add_rows([(row, column, -values)], np.full(len(side), -np.inf), side)

    def _block(self, index: int, units: Index) -> None:
        """Constraints on the outputs of the needed units of one block."""
        if not len(units):
            return
        block = self.blocks.blocks[index]
        outputs = self._columns_for(self.offset[index] + units)
        rows, low, high = fold(block, units, self.value)
        count = np.arange(len(units))
        parts = [self._long(rows), (count, outputs, np.ones(len(units)))]
        lower, upper = np.minimum(block.low, block.high)[units], np.maximum(block.low, block.high)[units]
        opened = np.flatnonzero(~(lower >= 0))
        lower, upper = lower[opened], upper[opened]
        least = np.where(np.isnan(lower) | (lower <= -INFINITE), -np.inf, lower)
        negative = self._add_columns(np.zeros(len(opened)), -least)
        parts.append((opened, negative, np.full(len(opened), -1.0)))
        for unit, pair in zip(
            units[opened].tolist(), zip(outputs[opened].tolist(), negative.tolist(), strict=True), strict=True
        ):
            self.parts[index, unit] = pair
        self.equations |= {(index, int(unit)): self.rows + k for k, unit in enumerate(units)}
        self._add_rows(parts, low, high)
        bounded = np.flatnonzero(np.isfinite(least) & (upper < INFINITE))
        arms = _Arms(outputs[opened][bounded], negative[bounded], least[bounded], upper[bounded])
        if self.whole:
            self._big_m(arms)
        else:
            self._triangle(arms)

    def _triangle(self, arms: _Arms) -> None:
        low, high = arms.low, arms.high
        steep, flat = -low / (high - low), high / (high - low)
        limit = np.maximum(up(steep * high), up(flat * -low))
        count = np.arange(len(low))
        self._add_rows([(count, arms.positive, steep), (count, arms.negative, flat)], np.full(len(low), -np.inf), limit)

    def _big_m(self, arms: _Arms) -> None:
        count, none = np.arange(len(arms.low)), np.full(len(arms.low), -np.inf)
        ones = np.ones(len(arms.low))
        phase = self._add_columns(np.zeros(len(arms.low)), ones, whole=True)
        self._add_rows([(count, arms.positive, ones), (count, phase, -arms.high)], none, np.zeros(len(arms.low)))
        self._add_rows([(count, arms.negative, ones), (count, phase, -arms.low)], none, -arms.low)

    def _targets(self, index: int) -> None:
        """Columns for the pre-activations that get one of their own."""
        units = np.array([u for u in self.targets.get(index, ()) if (index, int(u)) not in self.parts], dtype=np.int64)
        if not self.wants_explicit or not len(units):
            return
        block = self.blocks.blocks[index]
        rows, low, high = fold(block, units, self.value)
        columns = self._add_columns(block.low[units], block.high[units])
        count = np.arange(len(units))
        self._add_rows([self._long(rows), (count, columns, np.ones(len(units)))], low, high)
        self.parts |= {(index, int(unit)): (int(column),) for unit, column in zip(units, columns, strict=True)}


@dataclass(frozen=True)
class _Arms:
    """Columns of the positive and the negative parts of open units, and bounds on their pre-activations."""

    positive: Index
    negative: Index
    low: Array
    high: Array


def _joined(parts: list[Array]) -> Array:
    return np.concatenate([np.zeros(0), *parts])
