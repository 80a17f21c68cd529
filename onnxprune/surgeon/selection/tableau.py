"""The refit cost of a removed set, and of every set near it: one symmetric matrix that follows each exchange.

For kept weights Q and removed weights P, the tableau is what Gauss-Jordan elimination of H on Q leaves,

    A = [[-S, B], [B', N]],  S = (H_QQ)^-1,  B = S H_QP,  N = H_PP - H_PQ B,

beside ``x_Q = w_Q + B w_P``, the refitted weights, and ``x_P = N w_P``. Moving any set K to the other side changes the
refit cost by ``-1/2 x_K' (A_KK)^-1 x_K`` and A by a matrix of rank |K| (a principal pivot; Tucker 1960, the sweep
operator of regression). For K = {i, j} that is the exchange formula of the better Combinatorial Brain Surgeon.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.blas import dgemm

from onnxprune.surgeon.selection.arrays import Array, Index, Mask, inverse

FRESH = 64
"""Moves after which rounding errors are cleared away by a new factorisation."""


class Tableau:
    """One removed set, for one row or for several that share it.

    Args:
        moments: Shape (d, d), positive definite.
        weights: Shape (rows, d).
        mask: Shape (d,), True where kept.

    Attributes:
        matrix: Shape (d, d), A above.
        values: Shape (d, rows), x above.
        kept: Shape (d,), the current mask.
        cost: The refit cost, summed over the rows.
    """

    def __init__(self, moments: Array, weights: Array, mask: Mask, inverted: Array | None = None) -> None:
        self.moments, self.weights = moments, weights
        self._inverse = inverted
        self.kept: Mask = mask.copy()
        self.moves = 0
        self._factorise()

    def _factorise(self) -> None:
        """A and x for the current mask from scratch, by way of the smaller side."""
        kept, removed = np.flatnonzero(self.kept), np.flatnonzero(~self.kept)
        self.matrix = np.empty(self.moments.shape, order="F")
        if len(kept) <= len(removed) or self._inverse is None:
            small = inverse(self.moments[np.ix_(kept, kept)])
            across = self.moments[np.ix_(kept, removed)]
            slope = small @ across
            rest = self.moments[np.ix_(removed, removed)] - across.T @ slope
        else:
            rest = inverse(self._inverse[np.ix_(removed, removed)])
            across = self._inverse[np.ix_(kept, removed)]
            slope = -across @ rest
            small = self._inverse[np.ix_(kept, kept)] + slope @ across.T
        self.matrix[np.ix_(kept, kept)] = -(small + small.T) / 2
        self.matrix[np.ix_(removed, removed)] = (rest + rest.T) / 2
        self.matrix[np.ix_(kept, removed)] = slope
        self.matrix[np.ix_(removed, kept)] = slope.T
        gone = self.weights[:, removed]
        self.values = np.empty((len(self.kept), len(self.weights)))
        self.values[removed] = rest @ gone.T
        self.values[kept] = self.weights[:, kept].T + slope @ gone.T
        self.cost = float((gone.T * self.values[removed]).sum()) / 2
        self.moves = 0

    @property
    def diagonal(self) -> Array:
        """``S_jj`` of kept and ``N_ii`` of removed weights, shape (d,)."""
        return np.asarray(np.abs(np.diag(self.matrix)))

    def single_changes(self) -> Array:
        """By how much the cost changes when one weight alone changes sides, shape (d,): a loss if kept now."""
        sizes = (self.values**2).sum(axis=1) / (2 * self.diagonal)
        return np.asarray(np.where(self.kept, sizes, -sizes))

    def change(self, index: Index) -> float:
        """By how much the cost changes when some weights change sides."""
        values = self.values[index]
        return -float((values * np.linalg.solve(self.matrix[np.ix_(index, index)], values)).sum()) / 2

    def exchange_changes(self, removed: Index, kept: Index) -> Array:
        """By how much the cost changes when a removed weight is exchanged with a kept one.

        ``(N_ii v_j^2 - 2 B_ji q_i v_j - S_jj q_i^2) / (2 (N_ii S_jj + B_ji^2))``, with q and v the values of both.

        Args:
            removed: Shape (p,), weights i to put back.
            kept: Shape (q,), weights j to remove.

        Returns:
            Shape (p, q).
        """
        diagonal, values = self.diagonal, self.values
        outer, inner = diagonal[removed][:, None], diagonal[kept][None, :]
        across = self.matrix[np.ix_(removed, kept)]
        sizes = (values**2).sum(axis=1)
        changes = outer * sizes[kept] - inner * sizes[removed][:, None]
        changes -= 2 * across * (values[removed] @ values[kept].T)
        changes /= 2 * (outer * inner + across**2)
        return np.asarray(changes, dtype=np.float64)

    def released(self, places: Index) -> tuple[Array, Array, Array]:
        """Sets of weights as they would be if all of each set were kept, nothing else moving.

        Removing a subset R of a set then costs ``1/2 v_R' (S_RR)^-1 v_R`` more.

        Args:
            places: Shape (sets, size), with equally many removed weights in each set.

        Returns:
            S, shape (sets, size, size); v of the first row, shape (sets, size); what keeping all of a set saves now,
            shape (sets,).
        """
        local = self.matrix[places[:, :, None], places[:, None, :]]
        values = self.values[places, 0]
        each = np.arange(len(places))[:, None]
        gone = np.nonzero(~self.kept[places])[1].reshape(len(places), -1)
        columns = local[each[:, :, None], np.arange(places.shape[1])[None, :, None], gone[:, None, :]]
        pivot = np.linalg.inv(columns[each, gone])
        scaled = columns @ pivot
        solved = (pivot @ values[each, gone][:, :, None])[:, :, 0]
        saved = np.einsum("gi,gi->g", values[each, gone], solved) / 2
        whole = local - scaled @ columns.transpose(0, 2, 1)
        whole[each, :, gone] = scaled.transpose(0, 2, 1)
        whole[each, gone, :] = scaled.transpose(0, 2, 1)
        whole[each[:, :, None], gone[:, :, None], gone[:, None, :]] = -pivot
        values = values - (columns @ solved[:, :, None])[:, :, 0]
        values[each, gone] = solved
        return -whole, values, saved

    def move(self, index: Index) -> None:
        """Let some weights change sides.

        Args:
            index: Shape (k,), the weights, each once.
        """
        signs = np.where(self.kept[index], -1.0, 1.0)
        self.kept[index] ^= True
        self.moves += 1
        if self.moves >= FRESH:
            self._factorise()
            return
        columns = self.matrix[:, index]
        pivot = np.linalg.inv(columns[index])
        scaled = columns @ pivot
        values = self.values[index]
        solved = pivot @ values
        self.cost -= float((values * solved).sum()) / 2
        self.values -= columns @ solved
        self.values[index] = signs[:, None] * solved
        self.matrix = dgemm(-1.0, scaled, columns, 1.0, self.matrix, trans_b=True, overwrite_c=True)
        self.matrix[:, index] = scaled * signs
        self.matrix[index, :] = (scaled * signs).T
        self.matrix[np.ix_(index, index)] = -signs[:, None] * pivot * signs
