"""The two models side by side: what is known of each, what is named in the other, and what became of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.affine import Affine, channel_bounds
from onnxprune.verify.compare_rows import SUBNORMAL, UNBOUNDED
from onnxprune.verify.forward import Given
from onnxprune.verify.network import Network, Node
from onnxprune.verify.numbers import Interval
from onnxprune.verify.terms import Indices

Floats = NDArray[np.float64]
TOUCHES = 2.0**-30
"""A bound that crosses a threshold by less than this share of what it bounds still counts; the crossing is carried."""


@dataclass(frozen=True)
class Anchor:
    """A tensor of the optimized model in whose terms a tensor of the original is to be written.

    Attributes:
        tensor: Its name.
        rows: Per row of the original the row it is a multiple of, -1 for none; None for all rows in order.
        factors: Per row; None for 1.
    """

    tensor: str
    rows: Indices | None = None
    factors: Floats | None = None


@dataclass
class Side:
    """One of the two models.

    Attributes:
        net: The model.
        bounds: Bounds on its tensors over the domain.
    """

    net: Network
    bounds: Mapping[str, Interval]
    exact: bool
    implied: dict[str, Interval] = field(default_factory=dict)
    """Further bounds, from what tensors are in the other model."""

    def __post_init__(self) -> None:
        """Prepare the rules for affine nodes."""
        self.affine = Affine(self.net, self.bounds, self.exact)

    def given(self, node: Node) -> Given:
        """What the rules see of a node."""
        return Given(node, self.net, self.bounds, self.exact)

    def learn(self, tensor: str, found: Interval) -> None:
        """Note further bounds on a tensor."""
        self.implied[tensor] = found.meet(self.implied[tensor]) if tensor in self.implied else found

    def known(self, tensor: str) -> Interval:
        """Bounds on a tensor, or its values where it is a constant."""
        if tensor in self.net.constants:
            return Interval.point(self.net.constants[tensor], exact=self.exact)
        return self.bounds[tensor]

    def rows(self, tensor: str, axis: int, count: int) -> Interval:
        """Bounds per channel."""
        found = self.plain(tensor, axis, count)
        if tensor in self.implied:
            found = found.meet(channel_bounds(self.implied[tensor], axis, count))
        return found

    def plain(self, tensor: str, axis: int, count: int) -> Interval:
        """Bounds per channel from this model alone."""
        return channel_bounds(self.known(tensor), axis, count)

    def reach(self, tensor: str, axis: int, count: int) -> Floats:
        """How large entries of a channel can be."""
        low, high = self.rows(tensor, axis, count).floats()
        return np.maximum(np.abs(low), np.abs(high))


@dataclass
class Walk:
    """One activation that was passed, with what became of its rows.

    Attributes:
        source: Its input in the original.
        result: Its output.
        axis: Axis of the rows.
        kept: Rows that the optimized model has as well, alone or as a multiple of another one.
        handed: Rows that the activation hands on unchanged, written in terms of what is in front of them.
        gone: The others: known by bounds alone.
        parallel: How many of the kept rows are multiples of a row that other rows are multiples of, too.
    """

    source: str
    result: str
    axis: int
    kept: Indices
    handed: Indices
    gone: Indices
    parallel: int = 0


def touch(low: Floats, high: Floats) -> Floats:
    """How far bounds may cross a threshold, see :data:`TOUCHES`."""
    size = np.maximum(np.abs(low), np.abs(high))
    return TOUCHES * np.where(size < UNBOUNDED, size, 1.0) + SUBNORMAL


def constant(bounds: Interval) -> NDArray[np.bool_]:
    """Rows that bounds leave (nearly) no choice."""
    low, high = bounds.floats()
    return np.asarray(high - low <= touch(low, high))


def scaled_error(factor: Floats, error: Floats) -> Floats:
    """Errors behind a factor; none where either is 0, even if the other is infinite."""
    with np.errstate(invalid="ignore"):
        return np.where((factor == 0) | (error == 0), 0.0, factor * error * (1 + 1e-9))
