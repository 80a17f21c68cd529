"""The sizes of a tensor as values: Shape, Size."""

from __future__ import annotations

from math import prod

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator, op_of
from onnxprune.operators.channels import ChannelMap
from onnxprune.operators.indexing import cuts
from onnxprune.operators.interval import Interval
from onnxprune.operators.tensors import lock_all


class ShapeOf(Operator):
    """The sizes of a tensor: an index of an axis whose size somebody reads must stay."""

    op_types = ("Shape",)

    @staticmethod
    def _axes(node: NodeView, rank: int) -> range:
        start, end, _ = slice(node.attr("start", 0), node.attr("end"), 1).indices(rank)
        return range(start, end)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Known sizes exactly, others non-negative."""
        shape = node.in_shape(0)
        if shape is None:
            return [Interval.of(0.0, np.inf)]
        sizes = [shape[axis] for axis in self._axes(node, len(shape))]
        if not sizes:
            return [Interval.of(0.0, np.inf)]
        lower = [size if isinstance(size, int) else 0 for size in sizes]
        upper = [size if isinstance(size, int) else np.inf for size in sizes]
        return [Interval.of(lower, upper)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Lock the axes that a consumer reads; without a consumer the output may be one of the graph."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        axes = self._axes(node, len(shape))
        readers = list(node.node.outputs[0].outputs)
        read = [_picked(NodeView(reader, node.types, node.opset), len(axes)) for reader in readers]
        for axis in range(len(shape)):
            inside = axis in axes and (not readers or any(axis - axes[0] in picked for picked in read))
            if inside:
                links.lock((node.input(0), axis), "its size is read by Shape")
            else:
                links.mention((node.input(0), axis))
        return True


def _picked(reader: NodeView, length: int) -> set[int]:
    """Which entries of a vector of sizes a node may read."""
    everything = set(range(length))
    if not everything:
        return everything
    if op_of(reader.node) == "Gather" and not reader.is_constant(0):
        index = reader.constant(1)
        return everything if index is None else {int(v) % length for v in index.reshape(-1)}
    if op_of(reader.node) == "Slice":
        cut = (cuts(reader, 1) or {}).get(0)
        return everything if cut is None else set(cut.positions(length).tolist())
    return everything


class SizeOf(Operator):
    """The number of entries of a tensor."""

    op_types = ("Size",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """The number where it is known, else non-negative."""
        shape = node.in_shape(0)
        sizes = [size for size in shape or () if isinstance(size, int)]
        known = shape is not None and len(sizes) == len(shape)
        return [Interval.point(prod(sizes)) if known else Interval.of(0.0, np.inf)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Every index counts."""
        lock_all(node, links, "its size is read by Size")
        return node.in_shape(0) is not None


OPERATORS: tuple[type[Operator], ...] = (
    ShapeOf,
    SizeOf,
)
