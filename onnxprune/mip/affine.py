"""What is known about the columns of a network, and rows of pre-activations over those that are free."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from onnxprune.bounds.blocks import Block, Blocks
from onnxprune.mip.system import INFINITE
from onnxprune.operators.interval import TINY, Array, down, gamma, up


def column_bounds(blocks: Blocks, stop: int) -> tuple[Array, Array]:
    """Bounds on the columns before a block: inputs and outputs of earlier blocks, shape (columns,) each."""
    lows, highs = [blocks.low], [blocks.high]
    for block in blocks.blocks[:stop]:
        low, high = np.minimum(block.low, block.high), np.maximum(block.low, block.high)
        lows.append(np.fmax(low, 0.0) if block.exact else low)
        highs.append(np.maximum(high, 0.0) if block.exact else high)
    low, high = np.concatenate(lows), np.concatenate(highs)
    low = np.where(np.isnan(low) | (low <= -INFINITE), -np.inf, low)
    return low, np.where(np.isnan(high) | (high >= INFINITE), np.inf, high)


def column_sizes(blocks: Blocks, stop: int) -> Array:
    """Largest absolute value of each column before a block."""
    low, high = column_bounds(blocks, stop)
    return np.maximum(np.abs(low), np.abs(high))


def fold(block: Block, units: NDArray[np.int64], value: Array) -> tuple[sparse.csr_array, Array, Array]:
    """Rows of some units over the free columns, and bounds on their constants: bias, fixed columns, slack.

    Args:
        block: The block.
        units: Its units.
        value: Shape (columns before the target,); values of fixed columns, NaN for free ones.

    Returns:
        Rows without the fixed columns, lower and upper bounds on the constants; shape (units,) each.
    """
    rows = sparse.csr_array(block.weights[units, :])
    low, high = constants(rows, block.bias[units], value[: rows.shape[1]])
    slack = block.slack[units]
    low, high = np.where(slack > 0, down(low - slack), low), np.where(slack > 0, up(high + slack), high)
    return free_part(rows, value), low, high


def free_part(rows: sparse.csr_array, value: Array) -> sparse.csr_array:
    """Rows without fixed columns and explicit zeros."""
    kept = rows.copy()
    kept.data = np.where(np.isnan(value[kept.indices]), kept.data, 0.0)
    kept.sum_duplicates()
    kept.eliminate_zeros()
    return kept


def constants(rows: sparse.csr_array, bias: Array, value: Array) -> tuple[Array, Array]:
    """Bounds on ``bias + rows @ value`` over the fixed columns; both are the bias where these contribute nothing."""
    known = np.where(np.isnan(value), 0.0, value)
    size = abs(rows) @ np.abs(known)
    total = bias + rows @ known
    terms = rows.shape[1] + 1
    error = gamma(terms) * (np.abs(bias) + size) + terms * TINY
    nonzero = sparse.csr_array((np.ones(rows.nnz), rows.indices, rows.indptr), shape=rows.shape)
    touched = nonzero @ (known != 0).astype(np.float64) > 0
    return np.where(touched, down(total - error), bias), np.where(touched, up(total + error), bias)
