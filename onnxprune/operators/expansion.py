"""Operators that repeat entries: Expand, Tile."""

from __future__ import annotations

from math import prod

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.channels import ChannelMap, Resized
from onnxprune.operators.interval import Interval
from onnxprune.operators.movement import Movement
from onnxprune.operators.tensors import ENTRY_LIMIT, bounds, lock_all, overall, set_ints


class Expand(Movement):
    """Broadcast to a shape."""

    op_types = ("Expand",)

    @staticmethod
    def _rank(node: NodeView, rank: int) -> int | None:
        length = node.in_shape(1)
        target = node.ints("shape", 1)
        if target is not None:
            return max(rank, len(target))
        return max(rank, length[0]) if length and isinstance(length[0], int) else None

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Bounds are uniform along axes that are repeated."""
        x = bounds(inputs, 0)
        rank = self._rank(node, x.ndim)
        return [overall(x) if rank is None or x.ndim == 0 else x.aligned(rank)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Axes that keep their size belong together."""
        shape, target = node.in_shape(0), node.ints("shape", 1)
        if shape is None or target is None:
            lock_all(node, links, "broadcast to a computed shape")
            return shape is not None
        x, out = node.input(0), node.output()
        rank = max(len(shape), len(target))
        for axis in range(rank):
            own, theirs = axis - rank + len(shape), axis - rank + len(target)
            size = shape[own] if own >= 0 else None
            if own >= 0 and (theirs < 0 or target[theirs] in {1, size}):
                links.same((x, own), (out, axis))
                continue
            links.lock((out, axis), "broadcast")
            if own >= 0:
                links.lock((x, own), "broadcast")
        return True

    def resize(self, node: NodeView, sizes: Resized) -> None:
        """New numbers for changed axes."""
        shape, target = node.in_shape(0), node.ints("shape", 1)
        if shape is None or target is None:
            return
        lead = max(len(shape), len(target)) - len(target)
        new = [sizes.size((node.output(), lead + k), entry) for k, entry in enumerate(target)]
        if new != target:
            set_ints(node, "shape", 1, new)


class Tile(Movement):
    """Repetition along axes."""

    op_types = ("Tile",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Repeated bounds, or one hull where the number of repeats is computed."""
        x, repeats = bounds(inputs, 0), node.ints("repeats", 1)
        if x.ndim == 0 or repeats is None or len(repeats) != x.ndim:
            return [overall(x)]
        times = [count if length > 1 else 1 for count, length in zip(repeats, x.shape, strict=True)]
        if 0 in times or x.lower.size * prod(times) > ENTRY_LIMIT:
            return [overall(x)]
        return [x.map(lambda ends: np.tile(ends, times))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Axes that are not repeated belong together."""
        shape, repeats = node.in_shape(0), node.ints("repeats", 1)
        if shape is None or repeats is None or len(repeats) != len(shape):
            return False
        for axis, count in enumerate(repeats):
            if count == 1:
                links.same((node.input(0), axis), (node.output(), axis))
            else:
                links.lock((node.input(0), axis), "repeated")
                links.lock((node.output(), axis), "repeated")
        return True


OPERATORS: tuple[type[Operator], ...] = (
    Expand,
    Tile,
)
