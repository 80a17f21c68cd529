"""Magnitude pruning: the smallest weights go, with exact counts; ties go by index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.surgeon.selection.arrays import Floats, Mask, removal_count

MOST_BUCKETS = 1000
"""Buckets of randomised magnitude at most (Yu et al. 2022, section 4.3)."""


def without_smallest(scores: Floats, count: int) -> Mask:
    """A mask that removes the ``count`` smallest scores; of equal ones those with the lower index go first.

    Args:
        scores: Any shape.
        count: How many go.

    Returns:
        True where a score is kept, the shape of ``scores``.
    """
    flat = np.asarray(scores).reshape(-1)
    mask = np.ones(flat.size, dtype=np.bool_)
    if count >= flat.size:
        mask[:] = False
    elif count > 0:
        threshold = np.partition(flat, count - 1)[count - 1]
        mask[flat < threshold] = False
        ties = np.flatnonzero(flat == threshold)
        mask[ties[: count - int((~mask).sum())]] = False
    return mask.reshape(np.shape(scores))


def magnitude(weights: Sequence[Floats], sparsity: float) -> list[Mask]:
    """Global magnitude pruning: one threshold on ``|w|`` for all tensors.

    Args:
        weights: Tensors of any shapes.
        sparsity: Share of all their entries to remove, see :func:`removal_count`.

    Returns:
        A mask per tensor.

    Raises:
        InputError: If the sparsity is not from 0 to 1.
    """
    sizes = [np.size(w) for w in weights]
    scores = np.concatenate([np.abs(w).reshape(-1) for w in weights]) if sizes else np.zeros(0)
    mask = without_smallest(scores, removal_count(len(scores), sparsity))
    parts = np.split(mask, np.cumsum(sizes)[:-1]) if sizes else []
    return [part.reshape(np.shape(w)) for part, w in zip(parts, weights, strict=True)]


def magnitude_per_tensor(weights: Sequence[Floats], sparsity: float) -> list[Mask]:
    """Magnitude pruning with the same sparsity in every tensor.

    Args:
        weights: Tensors of any shapes.
        sparsity: Share of each tensor's entries to remove.

    Returns:
        A mask per tensor.

    Raises:
        InputError: If the sparsity is not from 0 to 1.
    """
    return [without_smallest(np.abs(w), removal_count(np.size(w), sparsity)) for w in weights]


def randomised_magnitude(weights: Floats, count: int, rng: np.random.Generator) -> Mask:
    """Magnitude pruning within random buckets (Yu et al. 2022): a start for local search that differs each time.

    The weights are shuffled into ``min(sqrt(N), 1000)`` buckets, and each bucket loses its share of the smallest.

    Args:
        weights: Shape (N,).
        count: How many go, over all buckets.
        rng: Where the shuffle comes from.

    Returns:
        Shape (N,), True where kept.
    """
    size = len(weights)
    mask = np.ones(size, dtype=np.bool_)
    if not size:
        return mask
    buckets = np.array_split(rng.permutation(size), max(1, min(int(np.sqrt(size)), MOST_BUCKETS)))
    ends = np.cumsum([len(bucket) for bucket in buckets]) * count // size  # shares that add up to the count
    for bucket, share in zip(buckets, np.diff(ends, prepend=0).tolist(), strict=True):
        mask[bucket] = without_smallest(np.abs(weights[bucket]), share)
    return mask
