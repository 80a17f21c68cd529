"""The empirical Fisher matrix of per-sample gradients, never written out: ``H = G'G / n + ridge I``."""

from __future__ import annotations

import numpy as np

from onnxprune.surgeon.selection.arrays import Array, Floats, Index, Mask, positive_solve

_CHUNK = 1 << 24
"""Entries of the gradients that are copied or squared at a time."""


class Fisher:
    """Products with the empirical Fisher matrix.

    Args:
        gradients: Shape (n, N); gradient of each sample's loss with respect to the N weights, float32 or float64.
        ridge: Added to the diagonal.
    """

    def __init__(self, gradients: Floats, ridge: float) -> None:
        self.gradients = gradients
        self.ridge = ridge
        self.samples, self.size = gradients.shape

    def through(self, change: Array) -> Array:
        """``G change``, the change of each sample's loss to first order; shape (n,), or (n, k) for k changes."""
        return np.asarray(self.gradients @ change.astype(self.gradients.dtype), dtype=np.float64)

    def back(self, values: Array) -> Array:
        """``G' values / n``, shape (N,)."""
        told = values.astype(self.gradients.dtype) @ self.gradients
        return np.asarray(told / self.samples, dtype=np.float64)

    def times(self, change: Array) -> Array:
        """``H change``, shape (N,)."""
        return np.asarray(self.back(self.through(change)) + self.ridge * change)

    def cost(self, change: Array) -> float:
        """``change' H change / 2``."""
        image = self.through(change)
        return float(image @ image / self.samples + self.ridge * (change @ change)) / 2

    def diagonal(self) -> Array:
        """The diagonal of H, shape (N,)."""
        total = np.zeros(self.size)
        step = max(1, _CHUNK // max(self.size, 1))
        for first in range(0, self.samples, step):
            part = self.gradients[first : first + step]
            total += np.einsum("ij,ij->j", part, part)
        return np.asarray(total / self.samples + self.ridge)

    def columns(self, index: Index) -> Array:
        """``G[:, index]`` in float64, shape (n, len(index))."""
        return np.asarray(np.take(self.gradients, index, axis=1), dtype=np.float64)

    def correction(self, weights: Array, mask: Mask) -> Array:
        """The best change of the kept weights once the others are 0: ``(H_QQ)^-1 H_QP w_P``.

        Solved over the kept weights, or, where there are fewer samples, over the samples by the Woodbury identity:
        ``(G_Q'G_Q / n + ridge I)^-1 G_Q' = G_Q' (G_Q G_Q' / n + ridge I)^-1``.

        Args:
            weights: Shape (N,).
            mask: Shape (N,), True where kept.

        Returns:
            Shape (N,): the change on the kept weights, 0 elsewhere.
        """
        gap = self.through(np.where(mask, 0.0, weights))
        kept = np.flatnonzero(mask)
        change = np.zeros(self.size)
        if len(kept) <= self.samples:
            basis = self.columns(kept)
            gram = basis.T @ basis / self.samples
            gram[np.diag_indices(len(kept))] += self.ridge
            change[kept] = positive_solve(gram, basis.T @ gap / self.samples)
        else:
            gram = self._sample_gram(kept)
            gram[np.diag_indices(self.samples)] += self.ridge
            change[kept] = self.back(positive_solve(gram, gap))[kept]
        return change

    def _sample_gram(self, kept: Index) -> Array:
        """``G_Q G_Q' / n`` in pieces, shape (n, n)."""
        gram = np.zeros((self.samples, self.samples))
        step = max(1, _CHUNK // max(self.samples, 1))
        for first in range(0, len(kept), step):
            part = np.take(self.gradients, kept[first : first + step], axis=1)
            gram += part @ part.T
        return np.asarray(gram / self.samples)
