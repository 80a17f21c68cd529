"""Straight lines around an activation: what linear bounds and mixed-integer programmes know about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.interval import Array


@dataclass(frozen=True)
class Line:
    """``slope * x + offset``, entry by entry; holds on the whole interval it was made for, in real arithmetic."""

    slope: Array
    offset: Array


@dataclass(frozen=True)
class Relaxation:
    """Lines below and above an activation on an interval.

    Every convex combination of the lower lines is a lower line again, and so for the upper ones: that is the
    freedom an optimisation of slopes has. The first of each is the one to take unasked.
    """

    lower: tuple[Line, ...]
    upper: tuple[Line, ...]


@dataclass(frozen=True)
class Pieces:
    """A piecewise-linear activation: ``slope * x + offset + sum_k bend[k] * max(0, x - knot[k])``, exactly.

    All arrays broadcast against the tensor; ``knots`` and ``bends`` have one array per knot.
    """

    slope: Array
    offset: Array
    knots: tuple[Array, ...]
    bends: tuple[Array, ...]


@dataclass(frozen=True)
class Choices:
    """An operator that picks the largest (or smallest) of several entries.

    Attributes:
        indices: Shape (outputs, candidates): places in the concatenation of the node's flattened operands,
            constant ones included, -1 for none; every output has at least one candidate.
        largest: Whether the largest is picked.
    """

    indices: NDArray[np.int64]
    largest: bool
