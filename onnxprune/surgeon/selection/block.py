"""CBS-S on a few weights, everything else fixed: a quadratic over binaries with a fixed sum, and its local search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.surgeon.selection.arrays import Array, Floats, Index, Mask


@dataclass(frozen=True)
class Block:
    """``min 1/2 y'Ay + c'y`` over binary y with ``sum y = count``; ``y_k = 1`` removes weight k of the block.

    Attributes:
        quadratic: Shape (b, b), A, symmetric: ``A_km = w_k H_km w_m``.
        linear: Shape (b,), c: what removing k costs together with the removed weights outside.
        count: How many of the block are removed.
    """

    quadratic: Array
    linear: Array
    count: int

    @property
    def size(self) -> int:
        """Weights in the block."""
        return len(self.linear)

    @property
    def scale(self) -> float:
        """The largest coefficient; gaps and tolerances are meant relative to it."""
        own = np.abs(self.linear + np.diag(self.quadratic) / 2)
        return max(float(np.abs(self.quadratic).max(initial=0.0)), float(own.max(initial=0.0)))

    def value(self, chosen: Mask) -> float:
        """The objective where ``chosen`` (shape (b,)) is removed."""
        return float(self.quadratic[np.ix_(chosen, chosen)].sum() / 2 + self.linear[chosen].sum())


@dataclass(frozen=True)
class BlockResult:
    """What is known about the best choice in a block.

    Attributes:
        chosen: Shape (b,), True where removed: the best that was found.
        value: Objective of ``chosen``.
        bound: No choice has a lower objective.
        local: Objective of the choice that local search had arrived at before.
        nodes: Nodes of the search tree, where known.
        seconds: Wall time.
    """

    chosen: Mask
    value: float
    bound: float
    local: float
    nodes: int
    seconds: float

    @property
    def gap(self) -> float:
        """How much lower the objective could be at most."""
        return max(0.0, self.value - self.bound)


def block_of(weights: Floats, moments: Floats, mask: Mask, index: Index) -> Block:
    """The block of some weights of a row.

    Args:
        weights: Shape (d,).
        moments: Shape (d, d), H.
        mask: Shape (d,), True where kept: the current choice, which outside of the block stays.
        index: Shape (b,), the weights of the block.
    """
    w = np.asarray(weights, dtype=np.float64)
    outside = np.where(mask, 0.0, w)
    outside[index] = 0.0
    inside = w[index]
    quadratic = inside[:, None] * np.asarray(moments, dtype=np.float64)[np.ix_(index, index)] * inside
    return Block(quadratic, inside * (moments[index] @ outside), int((~mask[index]).sum()))


def interacting(weights: Floats, moments: Floats, seed: int, size: int, among: Mask | None = None) -> Index:
    """The weights that interact most with one of them by ``|w_k H_km w_m|``, itself first.

    Args:
        weights: Shape (d,).
        moments: Shape (d, d).
        seed: The one.
        size: How many, at most as many as there are.
        among: Shape (d,), True for those that may be chosen.
    """
    strength = np.abs(np.asarray(weights, dtype=np.float64) * weights[seed] * moments[seed])
    strength = np.where(np.ones(len(strength), dtype=np.bool_) if among is None else among, strength, -1.0)
    strength[seed] = np.inf
    order = np.argsort(-strength, kind="stable")[:size]
    return order[strength[order] >= 0]


def improve_block(block: Block, start: Mask) -> Mask:
    """The best exchange of a removed and a kept weight, over and over until none gains.

    Args:
        block: The block.
        start: Shape (b,), True where removed; any number.

    Returns:
        Shape (b,), True where removed, with the block's count.
    """
    chosen = start.copy()
    _meet_count(block, chosen)
    tolerance = 1e-12 * max(block.scale, np.finfo(np.float64).tiny)
    own = np.diag(block.quadratic) / 2
    while True:
        slope = block.quadratic @ chosen + block.linear
        inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)
        if not len(inside) or not len(outside):
            return chosen
        changes = (own - slope)[inside][:, None] + (own + slope)[outside] - block.quadratic[np.ix_(inside, outside)]
        place = np.unravel_index(int(changes.argmin()), changes.shape)
        if changes[place] >= -tolerance:
            return chosen
        chosen[inside[place[0]]], chosen[outside[place[1]]] = False, True


def _meet_count(block: Block, chosen: Mask) -> None:
    """Add or take out weights, each time the best, until the number is right; in place."""
    own = np.diag(block.quadratic) / 2
    while (missing := block.count - int(chosen.sum())) != 0:
        slope = block.quadratic @ chosen + block.linear
        scores = np.where(chosen, np.inf, own + slope) if missing > 0 else np.where(chosen, own - slope, np.inf)
        place = int(scores.argmin())
        chosen[place] ^= True
