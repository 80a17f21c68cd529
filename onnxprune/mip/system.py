"""Linear constraints over boxed columns, in float64 as they are meant, and as a solver can digest them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from onnxprune.operators.interval import Array

INFINITE = 1e20
"""Solvers take anything from here on as infinite."""
SMALL = 2.0**-29
"""Coefficients of a scaled row below this are taken out: HiGHS drops what is below 1e-9 without a word."""
THIN = 2.0**-33
"""A scaled row narrower than this is an equation to a solver: it is far below every feasibility tolerance."""


@dataclass(frozen=True)
class System:
    """``row_low <= rows @ x <= row_high`` with ``low <= x <= high``; the numbers count as exact.

    Attributes:
        low: Shape (columns,); -inf for none.
        high: Shape (columns,); inf for none.
        integer: Shape (columns,); columns that take whole numbers only.
        rows: Shape (rows, columns).
        row_low: Shape (rows,); -inf for none.
        row_high: Shape (rows,); inf for none.
    """

    low: Array
    high: Array
    integer: NDArray[np.bool_]
    rows: sparse.csr_array
    row_low: Array
    row_high: Array

    @property
    def columns(self) -> int:
        """Number of columns."""
        return len(self.low)


@dataclass(frozen=True)
class Scaled:
    """The same constraints times powers of two, so that columns and rows are of the order of 1.

    A tolerance of 1e-6 then means one millionth of what a column or row can hold. ``x = scale * columns``.
    """

    scale: Array
    low: Array
    high: Array

    @staticmethod
    def of(system: System) -> Scaled:
        """Scales of the columns; whole numbers and unbounded columns keep theirs."""
        low = np.where(system.low <= -INFINITE, -np.inf, system.low)
        high = np.where(system.high >= INFINITE, np.inf, system.high)
        size = np.maximum(np.abs(low), np.abs(high))
        usable = np.isfinite(size) & (size > 0) & ~system.integer
        scale = np.where(usable, power_of_two(np.where(usable, size, 1.0), -60, 68), 1.0)
        return Scaled(scale, low / scale, high / scale)

    def row(self, index: NDArray[np.intp], values: Array, low: float, high: float) -> ScaledRow | None:
        """One row, without its negligible coefficients and widened by what they can be worth.

        Args:
            index: Columns.
            values: Coefficients.
            low: Lower side.
            high: Upper side.

        Returns:
            None where nothing is left to demand.
        """
        values = values * self.scale[index]
        index, values = index[values != 0], values[values != 0]
        if not len(index):
            return None
        factor = float(1.0 / power_of_two(np.abs(values).max(), -200, 200))
        values, low, high = values * factor, low * factor, high * factor
        small = np.abs(values) < SMALL
        if small.any():
            size = np.maximum(np.abs(self.low[index[small]]), np.abs(self.high[index[small]]))
            worth = float(np.abs(values[small]) @ size)
            low, high = low - worth, high + worth
            index, values = index[~small], values[~small]
        low = -np.inf if low <= -INFINITE else low
        high = np.inf if high >= INFINITE else high
        if np.isinf(low) and np.isinf(high):
            return None
        if 0 < high - low < THIN:
            low = high = (low + high) / 2
        return ScaledRow(index, values, low, high, factor)


@dataclass(frozen=True)
class ScaledRow:
    """``low <= values @ columns[index] <= high``, which is the original row times ``factor``."""

    index: NDArray[np.intp]
    values: Array
    low: float
    high: float
    factor: float


def power_of_two(values: Array | float, least: int, most: int) -> Array:
    """The power of two just above each value, with a limited exponent."""
    return np.asarray(np.ldexp(1.0, np.clip(np.frexp(values)[1], least, most)), dtype=np.float64)
