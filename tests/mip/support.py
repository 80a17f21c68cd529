"""Tiny networks as blocks, and what is true about them by exact arithmetic."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, sparse

from onnxprune.bounds.blocks import Block, Blocks
from onnxprune.mip import Pair
from onnxprune.operators.interval import Array

Point = tuple[Fraction, Fraction]
Row = tuple[Fraction, Fraction, Fraction]
"""``a x + b y + c`` over a cell of a network with two inputs."""


def network(
    layers: Sequence[tuple[ArrayLike, ArrayLike]],
    low: ArrayLike,
    high: ArrayLike,
    *,
    rows: ArrayLike | None = None,
    limits: ArrayLike = (),
    slack: float = 0.0,
    dense_columns: bool = False,
) -> Blocks:
    """Blocks with interval bounds; each layer reads the one before, or with ``dense_columns`` everything before."""
    low, high = np.array(low, dtype=np.float64), np.array(high, dtype=np.float64)
    least, most = low, high
    blocks: list[Block] = []
    columns, before = len(low), len(low)
    for index, (given, given_bias) in enumerate(layers):
        inner, bias = np.array(given, dtype=np.float64), np.array(given_bias, dtype=np.float64)
        weights = np.zeros((len(inner), columns))
        weights[:, (0 if dense_columns else columns - before) :] = inner
        down, up = np.minimum(weights, 0.0), np.maximum(weights, 0.0)
        wide = np.full(len(bias), slack)
        g_low, g_high = up @ least + down @ most + bias - wide, up @ most + down @ least + bias + wide
        blocks.append(Block(f"layer{index}", sparse.csr_array(weights), bias, wide, g_low, g_high))
        least = np.concatenate([least, np.maximum(g_low, 0.0)])
        most = np.concatenate([most, np.maximum(g_high, 0.0)])
        before, columns = len(bias), columns + len(bias)
    domain = sparse.csr_array(np.zeros((0, len(low))) if rows is None else np.array(rows, dtype=np.float64))
    return Blocks(low, high, tuple(blocks), domain, np.array(limits, dtype=np.float64))


def random_network(
    rng: np.random.Generator, *, inputs: int = 2, depth: int = 3, width: int = 4, skips: bool = False
) -> Blocks:
    """Small whole numbers as weights, so that everything before rounding is exact."""
    sizes = [int(n) for n in rng.integers(3, width + 1, size=depth)]
    layers, before, everything = [], inputs, inputs
    for size in sizes:
        reads = everything if skips else before
        weights = rng.integers(-3, 4, size=(size, reads)) * (rng.random((size, reads)) < 0.8)
        layers.append((weights, rng.integers(-4, 4, size=size)))
        before, everything = size, everything + size
    low = rng.integers(-2, 1, size=inputs)
    return network(layers, low, low + rng.integers(1, 3, size=inputs), dense_columns=skips)


def run(blocks: Blocks, point: Array) -> list[Array]:
    """Pre-activations of all blocks at one point."""
    columns, found = point, []
    for block in blocks.blocks:
        found.append(block.weights @ columns + block.bias)
        columns = np.concatenate([columns, np.maximum(found[-1], 0.0)])
    return found


def refuted(blocks: Blocks, point: Array) -> set[Pair]:
    """Pairs that the network refutes at a point."""
    values = run(blocks, point)
    return {(b, u, s) for b, g in enumerate(values) for u in range(len(g)) for s in (1, -1) if s * g[u] > 1e-9}


def exact_ranges(blocks: Blocks) -> list[list[tuple[Fraction, Fraction]]]:
    """Smallest and largest value of each pre-activation, for two inputs, in rational arithmetic.

    The box is cut by the line of one unit after another; in each cell the network is affine, so that extremes are at
    the corners of cells.
    """
    (x0, y0), (x1, y1) = (map(Fraction, side.tolist()) for side in (blocks.low, blocks.high))
    zero, one = Fraction(0), Fraction(1)
    cells: list[tuple[list[Point], list[Row]]] = [
        ([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], [(one, zero, zero), (zero, one, zero)])
    ]
    for row, limit in zip(blocks.rows.toarray().tolist(), blocks.limits.tolist(), strict=True):
        line = (-Fraction(row[0]), -Fraction(row[1]), Fraction(limit))
        cells = [(_half(corners, line), maps) for corners, maps in cells]
    ranges = []
    for block in blocks.blocks:
        weights, bias = block.weights.toarray().tolist(), block.bias.tolist()
        found: list[list[Fraction]] = [[] for _ in bias]
        following = []
        for corners, maps in cells:
            lines = [_combined(row, maps, b) for row, b in zip(weights, bias, strict=True)]
            for values, line in zip(found, lines, strict=True):
                values += [_value(line, corner) for corner in corners]
            following += _cut(corners, maps, lines)
        ranges.append([(min(values), max(values)) for values in found])
        cells = following
    return ranges


def _combined(row: list[float], maps: list[Row], bias: float) -> Row:
    sums = [sum((Fraction(w) * m[k] for w, m in zip(row, maps, strict=True) if w), Fraction(0)) for k in range(3)]
    return sums[0], sums[1], sums[2] + Fraction(bias)


def _value(line: Row, point: Point) -> Fraction:
    return line[0] * point[0] + line[1] * point[1] + line[2]


def _half(corners: list[Point], line: Row) -> list[Point]:
    """The part of a convex polygon where a line is at least 0."""
    kept: list[Point] = []
    for a, b in itertools.pairwise([*corners, corners[0]] if corners else []):
        va, vb = _value(line, a), _value(line, b)
        if va >= 0:
            kept.append(a)
        if (va > 0 > vb) or (va < 0 < vb):
            t = va / (va - vb)
            kept.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])))
    return kept


def _cut(corners: list[Point], maps: list[Row], lines: list[Row]) -> list[tuple[list[Point], list[Row]]]:
    """The cells that a block makes of one cell."""
    zero = (Fraction(0), Fraction(0), Fraction(0))
    cells = [(corners, maps)]
    for line in lines:
        following = []
        for part, known in cells:
            above = _half(part, line)
            below = _half(part, (-line[0], -line[1], -line[2]))
            if above:
                following.append((above, [*known, line]))
            if below and any(_value(line, corner) < 0 for corner in below):
                following.append((below, [*known, zero]))
        cells = following
    return cells


def pattern_ranges(blocks: Blocks) -> list[list[tuple[float, float]]]:
    """The same for any number of inputs: one linear programme per pattern of active units, in floating point."""
    inputs = len(blocks.low)
    cells = [(np.zeros((0, inputs)), np.zeros(0), np.eye(inputs), np.zeros(inputs))]
    box = list(zip(blocks.low, blocks.high, strict=True))
    ranges = []
    for block in blocks.blocks:
        found = [(np.inf, -np.inf)] * block.units
        following = []
        for a, b, maps, shifts in cells:
            slopes, offsets = block.weights @ maps, block.weights @ shifts + block.bias
            for unit, (slope, offset) in enumerate(zip(slopes, offsets, strict=True)):
                ends = [_end(s * slope, a, b, box) for s in (1, -1)]
                if ends[0] is None or ends[1] is None:
                    break
                low, high = found[unit]
                found[unit] = min(low, ends[0] + offset), max(high, -ends[1] + offset)
            else:
                following += [
                    (
                        np.concatenate([a, np.where(on[:, None], -slopes, slopes)]),
                        np.concatenate([b, np.where(on, offsets, -offsets)]),
                        np.concatenate([maps, np.where(on[:, None], slopes, 0.0)]),
                        np.concatenate([shifts, np.where(on, offsets, 0.0)]),
                    )
                    for on in (np.array(bits) for bits in itertools.product([False, True], repeat=block.units))
                ]
        ranges.append(found)
        cells = following
    return ranges


def _end(cost: Array, a: Array, b: Array, box: list[tuple[float, float]]) -> float | None:
    solved = optimize.linprog(cost, a if len(a) else None, b if len(b) else None, bounds=box)
    return None if solved.status != 0 or solved.x is None else float(cost @ solved.x)
