"""Products of small dense arrays for the inner loops: as loops where they are compiled, by numpy elsewhere."""

from __future__ import annotations

import numpy as np

from onnxprune.operators.interval import Array
from onnxprune.regions.compiled import COMPILED, compiled, compiled_sums


@compiled
def _assign_fast(target: Array, source: Array) -> None:
    for j in range(len(target)):
        target[j] = source[j]


def _assign_plain(target: Array, source: Array) -> None:
    target[:] = source


@compiled
def _combine_fast(direction: Array, columns: Array, out: Array) -> None:
    for j in range(len(out)):
        out[j] = 0.0
    for i in range(len(direction)):
        factor = direction[i]
        for j in range(len(out)):
            out[j] += factor * columns[i, j]


def _combine_plain(direction: Array, columns: Array, out: Array) -> None:
    np.dot(direction, columns, out=out)


@compiled_sums
def _project_fast(columns: Array, values: Array, out: Array) -> None:
    for i in range(len(out)):
        found = 0.0
        for j in range(len(values)):
            found += columns[i, j] * values[j]
        out[i] = found


def _project_plain(columns: Array, values: Array, out: Array) -> None:
    np.dot(columns, values, out=out)


@compiled_sums
def _total_fast(values: Array) -> float:
    total = 0.0
    for j in range(len(values)):
        total += abs(values[j])
    return total


def _total_plain(values: Array) -> float:
    return float(np.abs(values).sum())


assign = _assign_fast if COMPILED else _assign_plain
"""``target[:] = source``"""
combine = _combine_fast if COMPILED else _combine_plain
"""``out[:] = direction @ columns``"""
project = _project_fast if COMPILED else _project_plain
"""``out[:] = columns @ values``"""
total = _total_fast if COMPILED else _total_plain
"""Sum of absolute values."""
