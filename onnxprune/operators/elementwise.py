"""What all operators that act entry by entry share: their base classes and the rule of broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from onnxprune.operators.base import UNKNOWN, Dim, Inputs, NodeView, Operator, Shape
from onnxprune.operators.channels import Axis, ChannelMap
from onnxprune.operators.interval import Interval


def given(inputs: Inputs, index: int) -> Interval:
    """Bounds of an input that must be there; nothing is excluded where they are missing."""
    bounds = inputs[index] if index < len(inputs) else None
    return Interval.everything() if bounds is None else bounds


def operand_shape(node: NodeView, index: int) -> Shape | None:
    """Symbolic shape of an input, read off the values where it is an initializer."""
    values = node.constant(index)
    return node.in_shape(index) if values is None else tuple(values.shape)


def element_type(node: NodeView) -> np.dtype[Any] | None:
    """Element type of an output that has the type of the first input."""
    known = node.types.get(node.output(), UNKNOWN).dtype
    return node.in_type(0).dtype if known is None else known


def unary_channels(node: NodeView, links: ChannelMap) -> bool:
    """Index i of every axis of the first input belongs to index i of that axis of every output."""
    shape = operand_shape(node, 0)
    shape = node.out_shape() if shape is None else shape
    if shape is None:
        return False
    outputs = [str(tensor.name) for tensor in node.node.outputs if tensor.name]
    for name in outputs:
        for axis in range(len(shape)):
            links.same((node.input(0), axis), (name, axis))
    return True


def broadcast_channels(node: NodeView, links: ChannelMap, operands: Sequence[int]) -> bool:
    """The rule of ONNX broadcasting (shapes aligned right) for these inputs and the first output."""
    target = node.out_shape()
    if target is None:
        return False
    shapes = [operand_shape(node, index) for index in operands]
    if any(shape is None or len(shape) > len(target) for shape in shapes):
        return False
    for index, shape in zip(operands, shapes, strict=True):
        for axis, size in enumerate(shape or ()):
            place = len(target) - len(shape or ()) + axis
            _broadcast_axis(links, (node.input(index), axis), size, (node.output(), place), target[place])
    return True


def _broadcast_axis(links: ChannelMap, operand: Axis, size: Dim, result: Axis, target: Dim) -> None:
    size, target = links.sizes.get(operand, size), links.sizes.get(result, target)
    if isinstance(size, int) and size == target:
        links.same(operand, result)
    elif size == 1:
        links.lock(operand, "broadcast")
    elif isinstance(size, str) and size == target:
        links.mention(operand, result)
    else:
        links.lock(operand, "size unknown")
        links.lock(result, "size unknown")


class Elementwise(Operator):
    """An operator whose every output entry depends on one entry of each input.

    Attributes:
        homogeneous: f(s x) = s f(x) for every s > 0 (all data inputs scaled together).
    """

    homogeneous: ClassVar[bool] = False

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """The closed interval on which the operator hands its first input on unchanged, or None."""
        return None


class Unary(Elementwise):
    """One data input."""

    def image(self, node: NodeView, x: Interval) -> Interval | None:
        """Bounds of the output, None when nothing is known (the default)."""
        return None

    def interval(self, node: NodeView, inputs: Inputs) -> Sequence[Interval] | None:
        """Bounds of the one output."""
        result = self.image(node, given(inputs, 0))
        return None if result is None else [result]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Every axis index for index."""
        return unary_channels(node, links)


class Broadcasting(Elementwise):
    """Several data inputs, broadcast against one another."""

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Bounds of the output from those of the operands; by default nothing is known."""
        return Interval.everything()

    def supported(self, node: NodeView) -> bool:
        """Before opset 7 a broadcast operand was placed by an attribute ``axis``: opaque."""
        return node.opset >= 7 or not node.attr("broadcast", 0)

    def interval(self, node: NodeView, inputs: Inputs) -> Sequence[Interval] | None:
        """Bounds of the one output, at its rank."""
        if not self.supported(node):
            return None
        parts = [given(inputs, index) for index in range(node.n_inputs)]
        result = self.combine(node, parts)
        return [_at_rank(node, parts, result)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Axes aligned right."""
        return self.supported(node) and broadcast_channels(node, links, range(node.n_inputs))


def _at_rank(node: NodeView, parts: list[Interval], result: Interval) -> Interval:
    """Bounds without axes stand for any rank: where they met others, the tensor's own rank decides."""
    if result.ndim == 0:
        return result
    shapes = [node.out_shape()]
    if shapes[0] is None:
        shapes = [operand_shape(node, index) for index in range(node.n_inputs)]
    if all(shape is not None for shape in shapes):
        return result.aligned(max(result.ndim, *(len(shape or ()) for shape in shapes)))
    if all(part.ndim for part in parts):
        return result
    return Interval.of(result.lower.min(), result.upper.max())
