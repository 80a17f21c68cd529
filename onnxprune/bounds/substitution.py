"""Stably active units written out: later rows read what those units read, and the units themselves go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from onnxprune.bounds.blocks import Block, Blocks
from onnxprune.operators.interval import Array, gamma, up


def without_active(blocks: Blocks, wanted: NDArray[np.int64]) -> Blocks:
    """The same network for some units of its last block, with fewer coefficients where that is possible.

    Args:
        blocks: The network; its last block is the one asked about.
        wanted: Units of the last block; the rows of the others become empty.

    Returns:
        A network in which later blocks no longer read the active units of a block, wherever that makes the rows
        shorter. What it rounds is added to the rows' slack.
    """
    parts = list(blocks.blocks)
    parts[-1] = _only(parts[-1], wanted)
    first = np.cumsum([len(blocks.low), *(block.units for block in parts)])
    size = np.concatenate([np.maximum(np.abs(blocks.low), np.abs(blocks.high)), *(_reach(block) for block in parts)])
    for index in range(len(parts) - 2, -1, -1):
        block = parts[index]
        active = np.flatnonzero((block.low >= 0) & (block.high > 0)) if block.exact else np.zeros(0, dtype=np.int64)
        readers = [k for k in range(index + 1, len(parts)) if parts[k].exact]
        rows = block.weights[active, :]
        longer = sum(_rows_used(parts[k]) for k in readers) * len(np.unique(rows.indices))
        if len(active) and longer < rows.nnz:
            for k in readers:
                parts[k] = _substituted(parts[k], block, active, first[index] + active, size)
    return replace(blocks, blocks=tuple(parts))


def _reach(block: Block) -> Array:
    ends = np.maximum(np.abs(block.low), np.abs(block.high))
    return np.maximum(block.high, 0.0) if block.exact else ends


def _rows_used(block: Block) -> int:
    return int((np.diff(block.weights.indptr) > 0)[block.high > 0].sum())


def _only(block: Block, wanted: NDArray[np.int64]) -> Block:
    keep = np.zeros(block.units)
    keep[wanted] = 1.0
    weights = sparse.csr_array(sparse.diags_array(keep) @ block.weights)
    weights.eliminate_zeros()
    return replace(block, weights=weights)


def _substituted(
    reader: Block, block: Block, active: NDArray[np.int64], columns: NDArray[np.int64], size: Array
) -> Block:
    """The rows of a later block with ``h = g`` put in for some columns."""
    width = reader.weights.shape[1]
    taken = sparse.csr_array(sparse.csc_array(reader.weights)[:, columns])
    if not taken.nnz:
        return reader
    kept = np.ones(width)
    kept[columns] = 0.0
    rest = sparse.csr_array(reader.weights @ sparse.diags_array(kept))
    rows = block.weights[active, :]
    inner = sparse.csr_array(taken @ rows)
    inner = sparse.csr_array((inner.data, inner.indices, inner.indptr), shape=(reader.units, width))
    weights = sparse.csr_array(rest + inner)
    weights.eliminate_zeros()
    terms = int(max(np.diff(taken.indptr).max(initial=1), 1)) + 2
    bias, magnitude = block.bias[active], abs(taken)
    reach = magnitude @ (abs(rows) @ size[: rows.shape[1]] + np.abs(bias)) + abs(reader.weights) @ size[:width]
    moved = magnitude @ block.slack[active] + gamma(terms) * (reach + np.abs(reader.bias))
    touched = np.diff(taken.indptr) > 0
    slack = np.where(touched, up(up(reader.slack + moved) * (1 + gamma(terms))), reader.slack)
    return replace(reader, weights=weights, bias=reader.bias + taken @ bias, slack=slack)
