"""Layers of units that switch: stable units folded into the rows that read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from onnxprune.bounds.blocks import Block, Blocks
from onnxprune.operators.interval import Array, gamma


@dataclass(frozen=True, eq=False)
class Layer:
    """The units of one block, with rows over the inputs and the outputs of earlier *unstable* units only.

    Attributes:
        name: Label of the block.
        unstable: Indices in the block of the units that may switch.
        active: Indices of the units that are on everywhere; they are folded into the rows that read them.
        inactive: Indices of the units that are off everywhere.
        weights: Rows of the unstable units, shape (unstable, inputs + unstable units of all earlier layers).
        bias: Shape (unstable,).
        rank: Rank of the rows of unstable and active units over the units before that are not always off.
        plain: Whether the rows of the block read the layer before (or, in the first, the inputs) and nothing else.
        output: Whether these are signs of outputs, not units of the network.
    """

    name: str
    unstable: NDArray[np.int64]
    active: NDArray[np.int64]
    inactive: NDArray[np.int64]
    weights: Array
    bias: Array
    rank: int
    plain: bool
    output: bool = False

    @property
    def size(self) -> int:
        """Number of units that may switch."""
        return len(self.unstable)

    @property
    def units(self) -> int:
        """Number of all units."""
        return len(self.unstable) + len(self.active) + len(self.inactive)


@dataclass(frozen=True, eq=False)
class AffineMap:
    """``x -> matrix @ x + shift`` on the inputs."""

    matrix: Array
    shift: Array

    def __call__(self, points: Array) -> Array:
        """Values at one point, shape (inputs,), or at many, shape (points, inputs)."""
        return points @ self.matrix.T + self.shift


@dataclass
class Folder:
    """Rewrites rows over all columns into rows over the inputs and the unstable units."""

    blocks: Blocks

    def __post_init__(self) -> None:
        self.inputs = len(self.blocks.low)
        self.matrix = sparse.csr_array(sparse.eye_array(self.inputs))  # all columns so far in terms of kept ones
        self.shift = np.zeros(self.inputs)
        self.kept = self.inputs
        self.alive = np.ones(self.inputs, dtype=bool)
        self.previous = slice(0, self.inputs)

    def rows(self, block: Block) -> tuple[Array, Array]:
        """Rows and bias of a block in terms of what is kept so far."""
        moved = sparse.csr_array(block.weights @ self.matrix)
        return np.asarray(moved.toarray()), np.asarray(block.weights @ self.shift + block.bias)

    def layer(self, block: Block, output: bool = False) -> Layer:
        """The next layer; signs of outputs come last."""
        weights, bias = self.rows(block)
        off, on = block.high <= 0, (block.low >= 0) & (block.high > 0)
        free = ~off & ~on
        reads = np.zeros(block.weights.shape[1], dtype=bool)
        reads[block.weights.indices[block.weights.data != 0]] = True
        reads[self.previous] = False
        live = block.weights[:, np.flatnonzero(self.alive)].toarray()[~off]
        rank = int(np.linalg.matrix_rank(live)) if live.size else 0
        found = Layer(
            block.name, np.flatnonzero(free), np.flatnonzero(on), np.flatnonzero(off), weights[free], bias[free], rank,
            not reads.any(), output,
        )  # fmt: skip
        if not output:
            self._append(block, weights, bias, free, on, off)
        return found

    def _append(
        self, block: Block, weights: Array, bias: Array, free: NDArray[np.bool_], on: NDArray[np.bool_],
        off: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        count = int(free.sum())
        own = np.where(on[:, None], weights, 0.0)
        own = np.hstack([own, np.zeros((block.units, count))])
        own[np.flatnonzero(free), self.kept + np.arange(count)] = 1.0
        self.kept += count
        wide = sparse.csr_array(
            (self.matrix.data, self.matrix.indices, self.matrix.indptr), (len(self.shift), self.kept)
        )
        self.previous = slice(len(self.shift), len(self.shift) + block.units)
        self.matrix = sparse.csr_array(sparse.vstack([wide, sparse.csr_array(own)]))
        self.shift = np.concatenate([self.shift, np.where(on, bias, 0.0)])
        self.alive = np.concatenate([self.alive, ~off])


def dense_block(name: str, given: ArrayLike, bias: ArrayLike, columns: int, ends: tuple[Array, Array]) -> Block:
    """A block that reads the last columns, with interval bounds from their ends."""
    weights, shift = np.atleast_2d(np.array(given, dtype=np.float64)), np.array(bias, dtype=np.float64).reshape(-1)
    low, high = ends
    centre, radius = weights @ (low / 2 + high / 2) + shift, np.abs(weights) @ (high / 2 - low / 2)
    size = np.abs(weights) @ np.maximum(np.abs(low), np.abs(high)) + np.abs(shift)
    wide = gamma(weights.shape[1] + 2) * size
    full = np.zeros((len(shift), columns))
    full[:, columns - weights.shape[1] :] = weights
    g_low, g_high = centre - radius - wide, centre + radius + wide
    return Block(name, sparse.csr_array(full), shift, np.zeros(len(shift)), g_low, g_high)
