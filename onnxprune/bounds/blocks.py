"""A network over a box as layers of rectified affine maps: what a mixed-integer programme is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from onnxprune.operators.interval import Array


@dataclass(frozen=True)
class Block:
    """Units ``h = max(0, g)`` with ``g = weights @ columns + bias``, up to ``slack``.

    The columns are the free inputs of the network, then the outputs h of all earlier blocks, in order.

    Attributes:
        name: Label of the block, unique in its network.
        weights: Shape (units, columns before this block), float64.
        bias: Shape (units,).
        slack: Shape (units,); how far the true g may be from the row, because coefficients were rounded (>= 0).
        low: Shape (units,); proved lower bound on g over the domain.
        high: Shape (units,); proved upper bound on g.
        exact: False where nothing but ``low <= h <= high`` is known (outputs of other operators); the rows are empty.
    """

    name: str
    weights: sparse.csr_array
    bias: Array
    slack: Array
    low: Array
    high: Array
    exact: bool = True

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.bias)

    @property
    def open(self) -> NDArray[np.int64]:
        """Units whose bounds have both signs."""
        return np.flatnonzero((self.low < 0) & (self.high > 0))


@dataclass(frozen=True)
class Blocks:
    """A network: its free inputs and its blocks from front to back.

    Attributes:
        low: Shape (inputs,); lower ends of the box.
        high: Shape (inputs,); upper ends.
        blocks: From front to back.
        rows: Linear constraints of the domain, ``rows @ inputs <= limits``; shape (constraints, inputs).
        limits: Shape (constraints,).
    """

    low: Array
    high: Array
    blocks: tuple[Block, ...]
    rows: sparse.csr_array
    limits: Array
