"""Operators that reorder, drop or add axes: Transpose, Squeeze, Unsqueeze."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.channels import ChannelMap, Resized
from onnxprune.operators.interval import Interval
from onnxprune.operators.movement import InOrder
from onnxprune.operators.static import input_sizes, slots, variables
from onnxprune.operators.tape import T, Tape
from onnxprune.operators.tensors import bounds, overall, set_ints


class Transpose(Operator):
    """Permutation of axes."""

    op_types = ("Transpose",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Bounds permuted; those without axes hold as they are."""
        x = bounds(inputs, 0)
        order = node.attr("perm", list(reversed(range(x.ndim))))
        return [x.map(lambda ends: ends.transpose(order)) if x.ndim else x]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Axes permuted."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        for new, old in enumerate(node.attr("perm", list(reversed(range(len(shape)))))):
            links.same((node.input(0), old), (node.output(), new))
        return True

    @staticmethod
    def _order(node: NodeView) -> list[int] | None:
        sizes = input_sizes(node, 0)
        if sizes is None or variables(node) != [0]:
            return None
        return [int(axis) % len(sizes) for axis in node.attr("perm", reversed(range(len(sizes))))]

    def affine(self, node: NodeView, tape: Tape[T], inputs: Sequence[T | None]) -> list[T] | None:
        order, x = self._order(node), inputs[0]
        return None if order is None or x is None else [tape.transpose(x, order)]

    def adjoint(self, node: NodeView, tape: Tape[T], coefficients: Sequence[T | None]) -> list[T | None] | None:
        order, c = self._order(node), coefficients[0]
        if order is None:
            return None
        return slots(node, {} if c is None else {0: tape.transpose(c, [int(axis) for axis in np.argsort(order)])})


def _link_around(links: ChannelMap, short: str, long: str, rank: int, absent: Sequence[int]) -> None:
    """The axes of ``long``, of this rank, are those of ``short`` in order, but for the ``absent`` ones."""
    for new, old in enumerate(axis for axis in range(rank) if axis not in absent):
        links.same((long, old), (short, new))
    for axis in absent:
        links.lock((long, axis), "has size 1")


class Squeeze(InOrder):
    """Axes of size 1 away."""

    op_types = ("Squeeze",)

    @staticmethod
    def _axes(node: NodeView, rank: int) -> list[int] | None:
        axes = node.ints("axes", 1)
        if axes is not None:
            return [axis % rank for axis in axes]
        shape = node.in_shape(0)
        if node.has_input(1) or shape is None or any(not isinstance(size, int) for size in shape):
            return None
        return [axis for axis, size in enumerate(shape) if size == 1]

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Bounds without the axes."""
        x = bounds(inputs, 0)
        axes = self._axes(node, x.ndim) if x.ndim else None
        if axes is None or any(x.shape[axis] != 1 for axis in axes):
            return [overall(x)]
        return [x.map(lambda ends: np.squeeze(ends, axis=tuple(axes)))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """The other axes pass."""
        shape = node.in_shape(0)
        axes = None if shape is None else self._axes(node, len(shape))
        if shape is None or axes is None:
            return False
        _link_around(links, node.output(), node.input(0), len(shape), axes)
        return True

    def resize(self, node: NodeView, sizes: Resized) -> None:
        """Name the axes, if the node does not."""
        # Without axes, a channel axis that shrank to one index would be squeezed away too.
        shape = node.in_shape(0)
        axes = None if shape is None else self._axes(node, len(shape))
        if axes is None or "axes" in node.node.attrs or node.has_input(1):
            return
        if node.opset < 13:
            node.node.attrs["axes"] = axes
        else:
            set_ints(node, "axes", 1, axes)


class Unsqueeze(InOrder):
    """New axes of size 1."""

    op_types = ("Unsqueeze",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Bounds with the new axes."""
        x, axes = bounds(inputs, 0), node.ints("axes", 1)
        if axes is None or x.ndim == 0:
            return [overall(x)]
        places = tuple(axis % (x.ndim + len(axes)) for axis in axes)
        return [x.map(lambda ends: np.expand_dims(ends, places))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """The old axes pass."""
        shape, axes = node.in_shape(0), node.ints("axes", 1)
        if shape is None or axes is None:
            return False
        rank = len(shape) + len(axes)
        _link_around(links, node.input(0), node.output(), rank, [axis % rank for axis in axes])
        return True


OPERATORS: tuple[type[Operator], ...] = (
    Transpose,
    Squeeze,
    Unsqueeze,
)
