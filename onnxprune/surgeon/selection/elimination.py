"""Cholesky factorisations of one matrix for many rows at a time, where each row chooses its own pivots.

A step chooses in every row the pivot p with the least (or largest) ``values_p^2 / (2 matrix_pp)``, takes the rank-one
matrix ``matrix_{:,p} matrix_{p,:} / matrix_pp`` out of the row's matrix, and ``matrix_{:,p} values_p / matrix_pp`` out
of its values. The rank-one terms of a block of steps are kept, and go into the matrices together.
"""

from __future__ import annotations

import numpy as np

from onnxprune.surgeon.selection.arrays import Array, Index, Mask

_BLOCK = 64
"""Steps whose rank-one terms go into the matrices together."""
MEMORY = 1 << 25
"""Bytes of matrices for the rows treated together."""
_SHRINK = 0.85
"""Share of columns still there at which the others are taken out of the matrices."""


def eliminate(
    shared: Array,
    values: Array,
    count: int,
    *,
    first: Mask | None = None,
    never: Mask | None = None,
    group: tuple[int, int] | None = None,
    largest: bool = False,
) -> tuple[Index, Array]:
    """Choose ``count`` pivots in every row.

    Args:
        shared: Shape (d, d), or (rows, d, d) for rows with matrices of their own; positive definite.
        values: Shape (rows, d).
        count: Steps.
        first: Shape (rows, d), True for pivots that come before all others.
        never: Shape (rows, d), True for what is no pivot; at most ``d - count`` in a row.
        group: ``(n, m)``: at most ``m - n`` pivots in every m neighbours.
        largest: Whether the largest score is chosen, not the least.

    Returns:
        The pivots and their scores ``values_p^2 / (2 matrix_pp)``; shape (rows, count) both.
    """
    rows, size = values.shape
    order, scores = np.zeros((rows, count), dtype=np.intp), np.zeros((rows, count))
    none = np.zeros((rows, size), dtype=np.bool_)
    first, never = none if first is None else first, none if never is None else never
    together = max(1, MEMORY // max(8 * size * size, 1))
    for start in range(0, rows, together):
        part = slice(start, start + together)
        matrices = shared if shared.ndim == 2 else shared[part]
        elimination = _Elimination(matrices, values[part], first[part], never[part], group, largest)
        for number in range(count):
            order[part, number], scores[part, number] = elimination.step()
    return order, scores


class _Elimination:
    """Some rows and their matrices, restricted to the columns that are still there or left recently."""

    def __init__(
        self, shared: Array, values: Array, first: Mask, never: Mask, group: tuple[int, int] | None, largest: bool
    ) -> None:
        rows, size = values.shape
        self.each = np.arange(rows)
        self.sign = -1.0 if largest else 1.0
        self.names = np.broadcast_to(np.arange(size), (rows, size)).copy()
        self.matrix = np.broadcast_to(shared, (rows, size, size)).copy()
        self.values = values.copy()
        self.diagonal = np.broadcast_to(np.diagonal(shared, axis1=-2, axis2=-1), (rows, size)).copy()
        self.rank = np.where(never, np.inf, np.where(first, -np.inf, 0.0))  # added to every score
        self.alive = np.ones((rows, size), dtype=np.bool_)
        self.terms = np.zeros((rows, _BLOCK, size))
        self.held = 0
        self.span = group[1] if group else 0
        self.room = np.array([[]])
        if group is not None:
            sizes = np.bincount(np.arange(size) // group[1])
            self.room = np.tile(np.maximum(sizes - group[0], 0), (rows, 1))
            self.rank[:, np.repeat(sizes <= group[0], sizes)] = np.inf

    def step(self) -> tuple[Index, Array]:
        """One pivot in every row; which, and its score."""
        with np.errstate(divide="ignore", invalid="ignore"):
            scores = self.sign * self.values**2 / self.diagonal + self.rank
        scores[~self.alive] = np.inf
        chosen = scores.argmin(axis=1)
        terms = self.terms[:, : self.held]
        column = self.matrix[self.each, chosen]
        column = column - np.matmul(terms[self.each, :, chosen][:, None, :], terms)[:, 0]
        pivot = column[self.each, chosen]
        value = self.values[self.each, chosen]
        self.values -= column * (value / pivot)[:, None]
        term = column / np.sqrt(pivot)[:, None]
        self.diagonal -= term**2
        self.terms[:, self.held] = term
        self.held += 1
        self.alive[self.each, chosen] = False
        names = self.names[self.each, chosen]
        if self.span:
            self._fill(names // self.span)
        if self.held == _BLOCK:
            self._settle()
        return names, value**2 / (2 * pivot)

    def _fill(self, groups: Index) -> None:
        """Count a pivot in the group of each row, and close groups that are full."""
        self.room[self.each, groups] -= 1
        full = self.room[self.each, groups] <= 0
        self.rank[full[:, None] & (self.names // self.span == groups[:, None])] = np.inf

    def _settle(self) -> None:
        """Put the terms into the matrices, and take out columns that are gone where there are many."""
        left = int(self.alive[0].sum())
        if left < _SHRINK * self.alive.shape[1]:
            places = np.nonzero(self.alive)[1].reshape(len(self.each), left)
            self.matrix = self.matrix[self.each[:, None, None], places[:, :, None], places[:, None, :]]
            self.names, self.values, self.diagonal, self.rank = (
                np.take_along_axis(array, places, axis=1)
                for array in (self.names, self.values, self.diagonal, self.rank)
            )
            self.terms = np.take_along_axis(self.terms, places[:, None, :], axis=2)
            self.alive = np.ones((len(self.each), left), dtype=np.bool_)
        self.matrix -= np.matmul(self.terms.transpose(0, 2, 1), self.terms)
        self.held = 0
