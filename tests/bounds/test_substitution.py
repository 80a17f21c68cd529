"""Writing active units out changes no pre-activation by more than the slack that is stated."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from onnxprune.bounds.blocks import Block, Blocks
from onnxprune.bounds.substitution import without_active


def network(seed: int, widths: tuple[int, ...] = (3, 6, 5, 4)) -> Blocks:
    """Dense layers over the box [0, 1], with interval bounds and biases that make many units active."""
    rng = np.random.default_rng(seed)
    low, high = np.zeros(widths[0]), np.ones(widths[0])
    blocks, columns = [], widths[0]
    for size in widths[1:]:
        weights, bias = rng.normal(size=(size, len(low))), rng.uniform(0, 3, size)
        up, down = np.maximum(weights, 0), np.minimum(weights, 0)
        most, least = up @ high + down @ low + bias + 1e-9, up @ low + down @ high + bias - 1e-9
        full = np.zeros((size, columns))
        full[:, columns - len(low) :] = weights
        blocks.append(Block(f"g{columns}", sparse.csr_array(full), bias, np.zeros(size), least, most))
        low, high, columns = np.maximum(least, 0), np.maximum(most, 0), columns + size
    none = sparse.csr_array((0, widths[0]))
    return Blocks(np.zeros(widths[0]), np.ones(widths[0]), tuple(blocks), none, np.zeros(0))


def exact(blocks: Blocks, point: NDArray[np.float64]) -> list[list[Fraction]]:
    """Pre-activations in rational arithmetic."""
    columns = [Fraction(float(v)) for v in point]
    found = []
    for block in blocks.blocks:
        rows = block.weights.toarray()
        values = [
            sum((Fraction(float(w)) * c for w, c in zip(row, columns, strict=False)), Fraction(float(b)))
            for row, b in zip(rows, block.bias, strict=True)
        ]
        found.append(values)
        columns = columns + [max(v, Fraction(0)) for v in values]
    return found


@pytest.mark.parametrize("seed", range(30))
def test_pre_activations_stay_within_the_slack(seed: int) -> None:
    before = network(seed)
    wanted = np.array([0, 2])
    after = without_active(before, wanted)
    for point in np.random.default_rng(seed).random((5, 3)):
        truth, found = exact(before, point), exact(after, point)
        for old, new, block in zip(truth[:-1], found[:-1], after.blocks[:-1], strict=True):
            for a, b, slack in zip(old, new, block.slack, strict=True):
                assert abs(a - b) <= Fraction(float(slack))
        for unit in wanted:
            assert abs(truth[-1][unit] - found[-1][unit]) <= Fraction(float(after.blocks[-1].slack[unit]))


def test_only_what_becomes_shorter_is_written_out() -> None:
    before = network(1, (2, 40, 3))
    after = without_active(before, np.array([1]))
    assert after.blocks[-1].weights.nnz <= 2 + (before.blocks[0].low < 0).sum()
    wide = network(1, (40, 2, 30))
    assert without_active(wide, np.arange(30)).blocks[-1].weights.nnz == wide.blocks[-1].weights.nnz


def test_rows_nobody_asks_about_are_emptied() -> None:
    after = without_active(network(3), np.array([2]))
    assert np.flatnonzero(np.diff(after.blocks[-1].weights.indptr)).tolist() == [2]
