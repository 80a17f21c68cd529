"""Operators that only move entries: one rule for all, from the map of output entries to input entries.

The map is found by running the node itself, once, on numbered entries; the affine map is then a gather, its
adjoint a sum over the places each entry went to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.base import NodeView, Operator
from onnxprune.operators.entries import entry_maps
from onnxprune.operators.interval import Array
from onnxprune.operators.static import added, input_sizes, output_sizes, reals, slots, variables
from onnxprune.operators.tape import Sizes, T, Tape

Index = NDArray[np.int64]


def picked(tape: Tape[T], x: T, index: Index) -> T:
    """Entries of a vector, zero where the index is -1, in the shape of the index; a range without a gather."""
    size = tape.shape(x)[0]
    flat = index.reshape(-1)
    inside = np.flatnonzero(flat >= 0)
    first = int(inside[0]) if len(inside) else 0
    start = int(flat[first]) if len(inside) else 0
    stop = start + len(inside)
    if np.array_equal(flat[first : first + len(inside)], np.arange(start, stop)):
        part = tape.cut(x, 0, start, stop)
        part = tape.embed(part, 0, first, len(flat) - first - len(inside)) if len(inside) < len(flat) else part
        return tape.reshape(part, index.shape)
    if len(inside) < len(flat):
        x, index = tape.embed(x, 0, 0, 1), np.where(index < 0, size, index)
    return tape.gather(x, index)


@dataclass(frozen=True)
class Scatter:
    """The adjoint of :func:`picked`: where each of ``size`` entries went."""

    index: Index
    size: int

    @cached_property
    def tables(self) -> tuple[list[Index], Index]:
        """Places by entry, one table (entries, places) per order of magnitude of their number, -1 for none.

        The second part says where each entry stands in the concatenation of all tables.
        """
        flat = self.index.reshape(-1)
        counts = np.bincount(flat[flat >= 0], minlength=self.size)
        order = np.argsort(flat, kind="stable")[int((flat < 0).sum()) :]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        tables, position, done = [], np.full(self.size, -1, np.int64), 0
        magnitude = np.frexp(counts.astype(np.float64))[1]
        for level in np.unique(magnitude[counts > 0]):
            entries = np.flatnonzero((magnitude == level) & (counts > 0))
            steps = np.arange(int(counts[entries].max()))
            found = order[np.minimum(starts[entries, None] + steps, len(order) - 1)]
            tables.append(np.where(steps < counts[entries, None], found, -1))
            position[entries] = done + np.arange(len(entries))
            done += len(entries)
        return tables, position

    def run(self, tape: Tape[T], coefficients: T) -> T:
        """Coefficients on the entries from those on the places."""
        tables, position = self.tables
        flat = tape.reshape(coefficients, (self.index.size,))
        if not tables:
            return picked(tape, flat, position)
        if len(tables) == 1 and tables[0].shape[1] == 1:
            inverse = np.where(position < 0, -1, tables[0][np.maximum(position, 0), 0])
            return picked(tape, flat, inverse)
        parts = [tape.reshape(tape.total(picked(tape, flat, t), [1]), (len(t),)) for t in tables]
        return picked(tape, tape.concatenate(parts, 0), position)


@dataclass(frozen=True)
class Plan:
    """What moves where: variable sources in order, and per output the map into their concatenation."""

    sources: tuple[tuple[int, Sizes], ...]
    scatters: tuple[Scatter | None, ...]
    shifts: tuple[Array | None, ...]

    @property
    def total(self) -> int:
        """Number of variable entries."""
        return sum(prod(sizes) for _, sizes in self.sources)


class Movement(Operator):
    """An operator whose every output entry is an entry of one of its sources, or a constant."""

    sources: ClassVar[tuple[int, ...] | None] = (0,)
    """Input slots whose entries move (None: all); the others say how, and have to be constant."""

    def moves(self, node: NodeView) -> bool:
        """Whether this node only moves entries."""
        return True

    def filling(self, node: NodeView) -> float:
        """The constant where no source is."""
        return 0.0

    def plan(self, node: NodeView) -> Plan | None:
        """What moves where, None where sizes or settings are not known."""
        sources = tuple(range(node.n_inputs)) if self.sources is None else self.sources
        sources = tuple(slot for slot in sources if node.has_input(slot))
        if not self.moves(node) or any(slot not in sources for slot in variables(node)):
            return None
        sizes = [input_sizes(node, slot) for slot in sources]
        shapes = tuple(shape for shape in sizes if shape is not None)
        maps = entry_maps(node, sources, shapes) if len(shapes) == len(sizes) else None
        return None if maps is None else self._plan(node, sources, shapes, maps)

    def _plan(
        self, node: NodeView, sources: tuple[int, ...], shapes: tuple[Sizes, ...], maps: Sequence[Index | None]
    ) -> Plan | None:
        """Entries of constant sources become shifts, those of variable ones are numbered anew."""
        moving = set(variables(node))
        place, value, count = [np.array([-1])], [np.array([self.filling(node)])], 0
        for slot, shape in zip(sources, shapes, strict=True):
            size, known = prod(shape), reals(node, slot)
            if slot not in moving and known is None:
                return None
            place.append(np.arange(count, count + size) if known is None else np.full(size, -1))
            value.append(np.zeros(size) if known is None else known.reshape(-1))
            count += size if known is None else 0
        places, values = np.concatenate(place), np.concatenate(value)
        scatters = tuple(None if found is None else Scatter(places[found], count) for found in maps)
        shifts = tuple(None if found is None or not values[found].any() else values[found] for found in maps)
        kept = tuple((slot, shape) for slot, shape in zip(sources, shapes, strict=True) if slot in moving)
        return Plan(kept, scatters, shifts)

    def affine(self, node: NodeView, tape: Tape[T], inputs: Sequence[T | None]) -> list[T] | None:
        plan = self.plan(node)
        if plan is None or not plan.sources or any(scatter is None for scatter in plan.scatters):
            return None
        parts = [tape.reshape(x, (prod(shape),)) for slot, shape in plan.sources if (x := inputs[slot]) is not None]
        if len(parts) < len(plan.sources):
            return None
        whole = tape.concatenate(parts, 0)
        found = []
        for scatter, shift in zip(plan.scatters, plan.shifts, strict=True):
            if scatter is not None:
                y = picked(tape, whole, scatter.index)
                found.append(y if shift is None else tape.translate(y, shift))
        return found

    def adjoint(self, node: NodeView, tape: Tape[T], coefficients: Sequence[T | None]) -> list[T | None] | None:
        plan = self.plan(node)
        if plan is None or not plan.sources:
            return None
        pairs = zip(plan.scatters, coefficients, strict=True)
        parts = [scatter.run(tape, c) for scatter, c in pairs if scatter is not None and c is not None]
        if not parts:
            return slots(node, {})
        whole = added(tape, parts)
        found: dict[int, T] = {}
        start = 0
        for slot, shape in plan.sources:
            stop = start + prod(shape)
            found[slot] = tape.reshape(tape.cut(whole, 0, start, stop), shape)
            start = stop
        return slots(node, found)


class InOrder(Operator):
    """An operator that hands on all entries of its first input in their order, in whatever shape.

    Its other inputs only say which shape; they may be computed as long as the result is known.
    """

    def passes(self, node: NodeView) -> bool:
        """Whether this node does so."""
        return True

    def _shapes(self, node: NodeView) -> tuple[Sizes, Sizes] | None:
        inside, outside = input_sizes(node, 0), output_sizes(node)
        fits = inside is not None and outside is not None and prod(inside) == prod(outside)
        if inside is None or outside is None or not fits or 0 not in variables(node) or not self.passes(node):
            return None
        return inside, outside

    def affine(self, node: NodeView, tape: Tape[T], inputs: Sequence[T | None]) -> list[T] | None:
        shapes, x = self._shapes(node), inputs[0]
        return None if shapes is None or x is None else [tape.reshape(x, shapes[1])]

    def adjoint(self, node: NodeView, tape: Tape[T], coefficients: Sequence[T | None]) -> list[T | None] | None:
        shapes, c = self._shapes(node), coefficients[0]
        if shapes is None or any(other is not None for other in coefficients[1:]):
            return None
        return slots(node, {} if c is None else {0: tape.reshape(c, shapes[0])})
