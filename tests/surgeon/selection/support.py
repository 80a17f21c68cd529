"""Random problems, and their answers by enumeration."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from hypothesis import strategies as st

from onnxprune.surgeon.selection.arrays import Array, Mask, damped

RIDGE = 1e-4

seeds = st.integers(0, 2**32 - 1)


def moments(rng: np.random.Generator, size: int) -> Array:
    """Second moments of random inputs: few samples, dependent inputs, some dead ones, very different scales."""
    samples = int(rng.integers(1, 3 * size + 2))
    inputs = rng.normal(size=(samples, size)) @ np.where(
        rng.random((size, size)) < 0.5, 0, rng.normal(size=(size, size))
    )
    inputs *= np.exp(rng.normal(size=size))
    inputs[:, rng.random(size) < 0.15] = 0.0
    return np.asarray(inputs.T @ inputs / samples)


def subsets(size: int, count: int) -> Iterator[Mask]:
    """Masks that remove ``count``: True where kept."""
    for chosen in combinations(range(size), count):
        mask = np.ones(size, dtype=np.bool_)
        mask[list(chosen)] = False
        yield mask


def cost(matrix: Array, weights: Array, mask: Mask, ridge: float = RIDGE) -> float:
    """The refit cost of one row by its definition as a minimum: a dense solve over the kept weights."""
    system = damped(matrix, ridge)
    kept = np.flatnonzero(mask)
    change = np.where(mask, 0.0, -weights)
    if len(kept):
        change[kept] = np.linalg.solve(system[np.ix_(kept, kept)], -(system @ change)[kept])
    return float(change @ system @ change) / 2
