"""Magnitude masks: exact counts, ties by index, global and per tensor, random buckets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import InputError
from onnxprune.surgeon.selection import (
    magnitude,
    magnitude_per_tensor,
    randomised_magnitude,
    removal_count,
    without_smallest,
)
from onnxprune.surgeon.selection.arrays import Floats
from tests.surgeon.selection.support import seeds


@pytest.mark.parametrize(
    ("size", "sparsity", "kept"),
    [(32360, 0.9, 3236), (32360, 0.98, 647), (10, 0.3, 7), (3, 0.5, 1), (7, 0.0, 7), (7, 1.0, 0), (0, 0.5, 0)],
)
def test_what_is_kept_is_rounded_down(size: int, sparsity: float, kept: int) -> None:
    assert size - removal_count(size, sparsity) == kept


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan")])
def test_an_impossible_sparsity_is_explained(sparsity: float) -> None:
    with pytest.raises(InputError, match="number from 0 to 1"):
        magnitude([np.ones(3)], sparsity)


def test_ties_go_by_index() -> None:
    assert without_smallest(np.array([1.0, 1.0, 0.0, 1.0]), 2).tolist() == [False, True, False, True]


def test_one_threshold_for_all_tensors() -> None:
    masks = magnitude([np.array([[1.0, -5.0], [3.0, 4.0]]), np.array([-2.0, 0.5])], 0.5)
    assert masks[0].tolist() == [[False, True], [True, True]]
    assert masks[1].tolist() == [False, False]
    assert [mask.tolist() for mask in magnitude_per_tensor([np.array([3.0, -1.0]), np.array([9.0, 8.0])], 0.5)] == [
        [True, False],
        [True, False],
    ]


@given(seeds, st.integers(0, 40), st.floats(0, 1))
def test_no_kept_weight_is_smaller_than_a_removed_one(seed: int, size: int, sparsity: float) -> None:
    rng = np.random.default_rng(seed)
    weights: list[Floats] = [rng.integers(-4, 5, size=size).astype(np.float32), rng.normal(size=(2, 3))]
    masks = magnitude(weights, sparsity)
    scores = np.abs(np.concatenate([w.reshape(-1) for w in weights]))
    mask = np.concatenate([m.reshape(-1) for m in masks])
    assert (~mask).sum() == removal_count(size + 6, sparsity)
    if mask.any() and not mask.all():
        assert scores[mask].min() >= scores[~mask].max()


@given(seeds, st.integers(1, 300), st.floats(0, 1))
def test_random_buckets_keep_the_count_and_the_largest_of_each(seed: int, size: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    weights, count = rng.normal(size=size), int(share * size)
    mask = randomised_magnitude(weights, count, np.random.default_rng(seed))
    assert (~mask).sum() == count
    again = randomised_magnitude(weights, count, np.random.default_rng(seed))
    assert (mask == again).all()
    buckets = np.array_split(np.random.default_rng(seed).permutation(size), max(1, int(np.sqrt(size))))
    for bucket in buckets:
        kept, gone = np.abs(weights[bucket[mask[bucket]]]), np.abs(weights[bucket[~mask[bucket]]])
        if len(kept) and len(gone):
            assert kept.min() >= gone.max()
