"""The vocabulary in which an operator says how indices of tensor axes hang together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Axis = tuple[str, int]
"""A tensor name and a non-negative axis."""


@dataclass(frozen=True)
class Link:
    """Index ``left_index[k]`` of one axis is kept or removed together with ``right_index[k]`` of the other."""

    left: Axis
    right: Axis
    left_index: Indices
    right_index: Indices


@dataclass(frozen=True)
class Resized:
    """What a removal did: for every changed axis its old size and the old indices that stay, in order."""

    kept: Mapping[Axis, Indices]

    def size(self, axis: Axis, old: int) -> int:
        """New size of an axis whose old size was ``old``."""
        return len(self.kept[axis]) if axis in self.kept else old


@dataclass
class ChannelMap:
    """Collects the statements of one node.

    Every axis of every tensor of the node that no statement mentions is locked afterwards: its indices stay.
    """

    sizes: Mapping[Axis, int]
    """Static sizes of the axes of the node's tensors; axes of unknown size are absent."""
    links: list[Link] = field(default_factory=list)
    locks: dict[Axis, str] = field(default_factory=dict)
    mentioned: set[Axis] = field(default_factory=set)
    reads: set[Axis] = field(default_factory=set)
    units: set[Axis] = field(default_factory=set)

    def same(self, left: Axis, right: Axis) -> None:
        """Index i of one axis belongs to index i of the other (nothing is said where a size is unknown)."""
        self.mention(left, right)
        if self._both_known(left, right):
            indices = np.arange(min(self.sizes[left], self.sizes[right]), dtype=np.int64)
            if self.sizes[left] != self.sizes[right]:
                self.lock(left, "sizes differ")
                self.lock(right, "sizes differ")
            self.links.append(Link(left, right, indices, indices))

    def link(self, left: Axis, left_index: Indices, right: Axis, right_index: Indices) -> None:
        """``left_index[k]`` belongs to ``right_index[k]``; an index may occur several times."""
        self.mention(left, right)
        if self._both_known(left, right):
            self.links.append(Link(left, right, np.asarray(left_index, np.int64), np.asarray(right_index, np.int64)))

    def _both_known(self, left: Axis, right: Axis) -> bool:
        """Indices cannot be matched with an axis of unknown size: then those of the other one stay."""
        for known, other in ((left, right), (right, left)):
            if known in self.sizes and other not in self.sizes:
                self.lock(known, "meets an axis of unknown size")
        return left in self.sizes and right in self.sizes

    def mention(self, *axes: Axis) -> None:
        """These axes are spoken for: do not lock them merely because nothing links them."""
        self.mentioned.update(axes)

    def lock(self, axis: Axis, reason: str) -> None:
        """No index of this axis may go, and why (a short phrase for the report)."""
        self.mentioned.add(axis)
        self.locks.setdefault(axis, reason)

    def read(self, axis: Axis) -> None:
        """The node sums over this input axis: an index may go once its contribution is a known constant."""
        self.mention(axis)
        self.reads.add(axis)

    def unit(self, axis: Axis) -> None:
        """The node computes each index of this output axis on its own: these are units, and may go."""
        self.mention(axis)
        self.units.add(axis)
