"""From a graph to layers of rectified affine maps, with every row's rounding stated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from scipy import sparse

from onnxprune.bounds.backward import Backward
from onnxprune.bounds.blocks import Block, Blocks
from onnxprune.bounds.interval import Bounds
from onnxprune.bounds.static import StaticGraph
from onnxprune.domain import Domain
from onnxprune.operators import Interval
from onnxprune.operators.interval import Array, add, gamma, negate, up

CHUNK = 2**26
"""Bytes of dense rows that are made at a time."""


@dataclass(frozen=True)
class Place:
    """Where a block comes from: its units are the entries of a pre-activation, shifted by a knot.

    Attributes:
        tensor: The pre-activation.
        knot: Per entry; g = entry - knot.
    """

    tensor: str
    knot: Array


@dataclass(frozen=True)
class Unrolled:
    """A network and what its parts are called in the graph.

    Attributes:
        network: The blocks.
        places: Per block; None for columns that are only boxed.
        inputs: Per input of the graph its name and first column.
    """

    network: Blocks
    places: tuple[Place | None, ...]
    inputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Affine:
    """A flat tensor as ``matrix @ columns + shift``, up to ``slack``."""

    matrix: sparse.csr_array
    shift: Array
    slack: Array


def unroll(net: StaticGraph, domain: Domain, bounds: Bounds, *, limit: float = 5e7) -> Unrolled | None:
    """Every activation of a graph over a domain as blocks, front to back.

    Args:
        net: The graph.
        domain: Where the inputs lie.
        bounds: Proved bounds on its tensors.
        limit: Entries of all rows together beyond which the rest of the graph is left out.

    Returns:
        None where an input has no static size or no finite box.
    """
    box = net.input_box(domain)
    if len(box) != len(net.inputs) or not all(np.isfinite(ends).all() for pair in box.values() for ends in pair):
        return None
    maker = _Maker(net, bounds, limit)
    for name in net.inputs:
        maker.free(name, *box[name])
    for node in net.graph.nodes:
        if maker.full:
            break
        maker.visit(node)
    rows, limits = _constraints(domain, dict(maker.inputs), maker.first_block)
    low, high = np.concatenate([box[name][0] for name in net.inputs]), np.concatenate([box[n][1] for n in net.inputs])
    network = Blocks(low, high, tuple(maker.blocks), rows, limits)
    return Unrolled(network, tuple(maker.places), tuple(maker.inputs))


@dataclass
class _Maker:
    net: StaticGraph
    bounds: Bounds
    limit: float
    blocks: list[Block] = field(default_factory=list)
    places: list[Place | None] = field(default_factory=list)
    inputs: list[tuple[str, int]] = field(default_factory=list)
    columns: int = 0
    first_block: int = 0
    size: Array = field(default_factory=lambda: np.zeros(0))
    """Largest absolute value of every column."""
    known: dict[str, _Affine] = field(default_factory=dict)
    boxes: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    entries: float = 0.0

    @property
    def full(self) -> bool:
        return self.entries > self.limit

    def free(self, name: str, low: Array, high: Array) -> None:
        """The columns of an input."""
        self.inputs.append((name, self.columns))
        self._columns(name, np.maximum(np.abs(low), np.abs(high)))
        self.first_block = self.columns
        self.boxes[name] = (low[None], high[None])

    def visit(self, node: gs.Node) -> None:
        """Note bounds; make blocks of an activation, boxed columns of what is neither affine nor piecewise linear."""
        for tensor in node.outputs:
            flat = self._flat(tensor.name)
            if flat is not None:
                self.boxes[tensor.name] = (flat[0][None], flat[1][None])
        if self.net.constant_part(node) is not None:
            return
        operator, source = self.net.operator(node), node.inputs[0].name if node.inputs else ""
        pieces = None if operator is None else operator.pieces(self.net.view(node))
        size = self.net.size(source)
        row = self.affine(source) if pieces is not None and source in self.boxes else None
        if pieces is None or row is None or size is None:
            for tensor in node.outputs:
                self._boxed(tensor.name)
            return
        shape = self.net.shape(source) or ()
        slope, offset = (np.broadcast_to(v, shape).reshape(-1) for v in (pieces.slope, pieces.offset))
        total = _scaled(row, slope, offset, self.size)
        for number, (knot, bend) in enumerate(zip(pieces.knots, pieces.bends, strict=True)):
            at, weight = (np.broadcast_to(v, shape).reshape(-1) for v in (knot, bend))
            block = self._block(source, number, row, at)
            exact = (weight == 1) & (slope == 0) if number == 0 else np.zeros(len(weight), dtype=bool)
            total = self._with_columns(total, block, weight, exact)
        self.known[node.outputs[0].name] = total

    def affine(self, name: str) -> _Affine | None:
        """A tensor in terms of columns; None where something on the way has no columns."""
        if name in self.known:
            return self.known[name]
        size = self.net.size(name) or 0
        step = max(1, int(CHUNK / (8 * max(1, self.net.widest))))
        parts = []
        for start in range(0, size, step):
            part = self._rows(name, np.arange(start, min(size, start + step)), size)
            if part is None:
                return None
            parts.append(part)
        if not parts:
            return None
        matrix = sparse.csr_array(sparse.vstack([p.matrix for p in parts]))
        self.entries += matrix.nnz
        return _Affine(matrix, np.concatenate([p.shift for p in parts]), np.concatenate([p.slack for p in parts]))

    def _rows(self, name: str, units: NDArray[np.int64], size: int) -> _Affine | None:
        one_hot = np.zeros((len(units), size))
        one_hot[np.arange(len(units)), units] = 1.0
        walk = Backward.start(self.net, name, one_hot, self.boxes)
        walk.run(frozenset(self.known))
        if not np.isfinite(walk.total).all() or any(source not in self.known for source in walk.open):
            return None
        shift, slack = walk.total[0], walk.error[0]
        matrix = sparse.csr_array((len(units), self.columns))
        sizes = np.zeros(len(units))
        for source, coefficients in walk.open.items():
            part, rows = self.known[source], sparse.csr_array(coefficients[0])
            added = _widened(sparse.csr_array(rows @ part.matrix), self.columns)
            matrix, sizes = matrix + added, sizes + abs(added) @ self.size
            moved = rows @ part.shift
            spread = abs(rows) @ (abs(part.matrix) @ self.size[: part.matrix.shape[1]] + np.abs(part.shift))
            exact = not part.shift.any() and not part.slack.any() and _selects(part.matrix)
            error = abs(rows) @ part.slack + (0.0 if exact else gamma(coefficients.shape[2]) * spread)
            shift = shift + moved
            slack = slack if exact else up(slack + up(np.asarray(error)) + gamma(1) * (np.abs(shift) + np.abs(moved)))
        if len(walk.open) > 1:
            slack = up(slack + gamma(len(walk.open)) * sizes)
        return _Affine(matrix, np.asarray(shift), np.asarray(slack))

    def _block(self, source: str, number: int, row: _Affine, knot: Array) -> int:
        """Add a block of rectified entries; its first column."""
        low, high = self._flat(source) or (np.full(len(knot), -np.inf), np.full(len(knot), np.inf))
        shifted = add(Interval.of(low, high), negate(Interval.point(knot)))
        name = source if number == 0 else f"{source}#{number}"
        same = sum(where is not None and where.tensor == source for where in self.places)
        name = name if same == number else f"{source}#{same}"
        plain = not knot.any()
        bias = row.shift - knot
        slack = row.slack if plain else up(row.slack + gamma(1) * (np.abs(row.shift) + np.abs(knot)))
        matrix = _widened(row.matrix, self.columns)
        self.blocks.append(Block(name, matrix, bias, slack, shifted.lower, shifted.upper))
        self.places.append(Place(source, knot))
        first = self.columns
        top = np.maximum(shifted.upper, 0.0)
        self.size = np.concatenate([self.size, top])
        self.columns += len(knot)
        return first

    def _with_columns(self, row: _Affine, first: int, weight: Array, exact: NDArray[np.bool_]) -> _Affine:
        extra = sparse.csr_array(
            (weight, (np.arange(len(weight)), first + np.arange(len(weight)))), shape=(len(weight), self.columns)
        )
        top = self.size[first : first + len(weight)]
        rounding = np.where(exact, 0.0, gamma(1) * np.abs(weight) * top)  # a bend is rounded to float64
        slack = np.where(rounding == 0, row.slack, up(row.slack + rounding))
        return _Affine(sparse.csr_array(_widened(row.matrix, self.columns) + extra), row.shift, slack)

    def _boxed(self, name: str) -> None:
        flat = self._flat(name)
        if flat is None or not np.isfinite(flat).all() or not self.net.is_float(name):
            return
        low, high = flat
        empty = sparse.csr_array((len(low), self.columns))
        zero = np.zeros(len(low))
        self.blocks.append(Block(name, empty, zero, zero, low, high, exact=False))
        self.places.append(None)
        self._columns(name, np.maximum(np.abs(low), np.abs(high)))

    def _columns(self, name: str, size: Array) -> None:
        count = len(size)
        places = (np.arange(count), self.columns + np.arange(count))
        matrix = sparse.csr_array((np.ones(count), places), shape=(count, self.columns + count))
        self.known[name] = _Affine(matrix, np.zeros(count), np.zeros(count))
        self.size = np.concatenate([self.size, size])
        self.columns += count

    def _flat(self, name: str) -> tuple[Array, Array] | None:
        known: Mapping[str, Interval] = self.bounds
        return self.net.flat(known, name)


def _scaled(row: _Affine, slope: Array, offset: Array, size: Array) -> _Affine:
    """``slope * row + offset``; nothing is rounded where the slope is 0 or 1 and the offset 0."""
    matrix = sparse.csr_array(sparse.diags_array(slope) @ row.matrix)
    matrix.eliminate_zeros()
    shift = slope * row.shift + offset
    plain = ((slope == 0) | (slope == 1)) & (offset == 0)
    reach = np.abs(slope) * (abs(row.matrix) @ size[: row.matrix.shape[1]] + np.abs(row.shift)) + np.abs(offset)
    slack = np.where(slope == 0, 0.0, np.abs(slope) * row.slack)
    return _Affine(matrix, shift, np.where(plain, slack, up(slack + gamma(4) * reach)))


def _selects(matrix: sparse.csr_array) -> bool:
    """Whether every row is a single column as it is."""
    return bool((np.diff(matrix.indptr) == 1).all() and (matrix.data == 1).all())


def _widened(matrix: sparse.csr_array, columns: int) -> sparse.csr_array:
    return sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], columns))


def _constraints(domain: Domain, first: Mapping[str, int], columns: int) -> tuple[sparse.csr_array, Array]:
    rows = np.zeros((len(domain.constraints), columns))
    for number, constraint in enumerate(domain.constraints):
        for name, index, coefficient in constraint.terms:
            rows[number, first[name] + index] += coefficient
    return sparse.csr_array(rows), np.array([constraint.bound for constraint in domain.constraints], dtype=np.float64)
