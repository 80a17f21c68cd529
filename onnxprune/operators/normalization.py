"""Operators that normalise over axes: Softmax and its kin, layer, instance, group and RMS norms, LRN.

In real arithmetic a standardised value of n entries is at most sqrt(n - 1) (Samuelson's inequality), and at
most the spread of the entries over sqrt(epsilon): bounds that hold whatever the layer in front does.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod, sqrt

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.channels import ChannelMap
from onnxprune.operators.interval import Array, Interval, add, multiply, up
from onnxprune.operators.reduction import mean_over
from onnxprune.operators.tensors import bounds, overall, rank_of, static_size


def _count(node: NodeView, x: Interval, axes: Iterable[int]) -> int | None:
    """Number of entries along axes of the first input, None if unknown."""
    sizes = [static_size(node, 0, axis, x) for axis in axes]
    known = [size for size in sizes if size is not None]
    return prod(known) if len(known) == len(sizes) else None


def _over_root(values: Array, epsilon: float) -> Array:
    """Upper bound of ``values / sqrt(epsilon)``, exact zeros kept."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        quotient = up(values / np.float64(sqrt(epsilon)) * (1.0 + 1e-15))
    return np.where(values == 0, 0.0, np.where(np.isnan(quotient), np.inf, quotient))


def _largest_root(count: int | None) -> float:
    """Upper bound of ``sqrt(count)``, infinite where the number is unknown."""
    if count is None:
        return np.inf
    return float(np.nextafter(sqrt(count), np.inf)) if count > 0 else 0.0


def _standardised(x: Interval, axes: tuple[int, ...], count: int | None, epsilon: float) -> Interval:
    """Bounds of ``(x - mean) / sqrt(variance + epsilon)`` over ``axes``, kept at length 1."""
    hull = x.hull_over(axes)
    with np.errstate(over="ignore", invalid="ignore"):
        spread = np.where(hull.lower == hull.upper, 0.0, up(hull.upper - hull.lower))
    spread = np.where(np.isnan(spread), np.inf, spread)
    limit = np.minimum(_over_root(spread, epsilon), _largest_root(None if count is None else count - 1))
    return Interval.of(-limit, limit)


def _per_channel(values: Interval, rank: int) -> Interval:
    """A vector over channels, along axis 1 of a tensor."""
    if values.ndim == 0:
        return values
    return values.map(lambda ends: ends.reshape(1, -1, *[1] * (rank - 2)))


def _link_normalised(node: NodeView, links: ChannelMap, rank: int, axes: Iterable[int]) -> None:
    """Normalised axes are locked, the others belong together."""
    locked = set(axes)
    for axis in range(rank):
        if axis in locked:
            links.lock((node.input(0), axis), "normalised over")
            links.lock((node.output(), axis), "normalised over")
        else:
            links.same((node.input(0), axis), (node.output(), axis))


class Softmax(Operator):
    """Softmax, LogSoftmax and Hardmax; before opset 13 over all axes from ``axis`` on."""

    op_types = ("Softmax", "LogSoftmax", "Hardmax")

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Shares of one, or their logarithms."""
        return [Interval.of(-np.inf, 0.0) if node.op == "LogSoftmax" else Interval.of(0.0, 1.0)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Other axes pass."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        axis = node.attr("axis", -1 if node.opset >= 13 else 1)
        first = axis + len(shape) if axis < 0 else axis
        _link_normalised(node, links, len(shape), range(first, len(shape) if node.opset < 13 else first + 1))
        return True


class LayerNormalization(Operator):
    """Standardised over the last axes, then scaled and shifted."""

    op_types = ("LayerNormalization",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        """Standardised bounds times the scale plus the shift; the mean, the inverse deviation."""
        x, epsilon = bounds(inputs, 0), node.attr("epsilon", 1e-5)
        rank = rank_of(node, 0, x)
        if rank is None or epsilon < 0:
            return None
        axes = tuple(range(node.attr("axis", -1) % rank, rank))
        normal = _standardised(x, axes, _count(node, x, axes), epsilon)
        shift = bounds(inputs, 2) if node.has_input(2) else Interval.point(0.0)
        y = add(multiply(normal, bounds(inputs, 1)), shift)
        mean = x if x.ndim == 0 else mean_over(x, axes)
        deviation = Interval.of(0.0, _over_root(np.ones(()), epsilon))
        return [y if y.ndim == 0 else y.aligned(rank), mean, deviation][: node.n_outputs]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Only the axes in front pass; statistics as further results lock everything."""
        shape = node.in_shape(0)
        if shape is None or any(node.output(k) for k in range(1, node.n_outputs)):
            return False
        _link_normalised(node, links, len(shape), range(node.attr("axis", -1) % len(shape), len(shape)))
        return True


class RMSNormalization(Operator):
    """Divided by the root of the mean square over the last axes, then scaled."""

    op_types = ("RMSNormalization",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        """At most sqrt(n), at most the entry over sqrt(epsilon); signs and zeros stay."""
        x, epsilon = bounds(inputs, 0), node.attr("epsilon", 1e-5)
        rank = rank_of(node, 0, x)
        if rank is None or epsilon < 0:
            return None
        root = _largest_root(_count(node, x, range(node.attr("axis", -1) % rank, rank)))
        below = np.minimum(_over_root(np.maximum(-x.lower, 0.0), epsilon), root)
        above = np.minimum(_over_root(np.maximum(x.upper, 0.0), epsilon), root)
        y = multiply(Interval.of(-below, above), bounds(inputs, 1))
        return [y if y.ndim == 0 else y.aligned(rank)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Only the axes in front pass."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        _link_normalised(node, links, len(shape), range(node.attr("axis", -1) % len(shape), len(shape)))
        return True


class InstanceNormalization(Operator):
    """Each channel standardised over space, then scaled and shifted."""

    op_types = ("InstanceNormalization",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        """Standardised bounds times the scale plus the shift, per channel."""
        x, epsilon = bounds(inputs, 0), node.attr("epsilon", 1e-5)
        rank = rank_of(node, 0, x)
        if rank is None or epsilon < 0:
            return None
        axes = tuple(range(2, rank))
        normal = _standardised(x, axes, _count(node, x, axes), epsilon)
        scale, shift = (_per_channel(bounds(inputs, k), rank) for k in (1, 2))
        return [add(multiply(normal, scale), shift)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Channels are independent of one another."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        _link_normalised(node, links, len(shape), range(2, len(shape)))
        for k in (1, 2):
            links.same((node.input(k), 0), (node.output(), 1))
        return True


class GroupNormalization(Operator):
    """Groups of channels standardised, then scaled and shifted (per group before opset 21)."""

    op_types = ("GroupNormalization",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        """Standardised bounds times the scale plus the shift."""
        x, epsilon = bounds(inputs, 0), node.attr("epsilon", 1e-5)
        rank = rank_of(node, 0, x)
        if rank is None or epsilon < 0:
            return None
        total, groups = _count(node, x, range(1, rank)), int(node.attr("num_groups"))
        normal = _standardised(x, tuple(range(1, rank)), None if total is None else total // groups, epsilon)
        scale, shift = (self._factor(node, x, bounds(inputs, k), rank) for k in (1, 2))
        return [add(multiply(normal, scale), shift)]

    @staticmethod
    def _factor(node: NodeView, x: Interval, values: Interval, rank: int) -> Interval:
        channels = _count(node, x, [1])
        if node.opset >= 21 or values.ndim == 0:
            return _per_channel(values, rank)
        if channels is None:
            return overall(values)
        if values.shape[0] > 1:
            values = values.map(lambda ends: np.repeat(ends, channels // values.shape[0]))
        return _per_channel(values, rank)

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Channels mix."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        _link_normalised(node, links, len(shape), range(1, len(shape)))
        return True


class LRN(Operator):
    """Divided by a power of at least one of the squares in neighbouring channels."""

    op_types = ("LRN",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        """Towards zero, if the divisor is at least 1."""
        if node.attr("bias", 1.0) < 1 or node.attr("alpha", 1e-4) < 0 or node.attr("beta", 0.75) < 0:
            return None
        return [bounds(inputs, 0).include(0.0)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Neighbouring channels mix."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        _link_normalised(node, links, len(shape), [1])
        return True


class LpNormalization(Operator):
    """Divided by the norm along an axis."""

    op_types = ("LpNormalization",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """At most 1; signs and zeros stay."""
        x = bounds(inputs, 0)
        return [Interval.of(np.where(x.lower < 0, -1.0, 0.0), np.where(x.upper > 0, 1.0, 0.0))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Other axes pass."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        _link_normalised(node, links, len(shape), [node.attr("axis", -1) % len(shape)])
        return True


OPERATORS: tuple[type[Operator], ...] = (
    Softmax,
    LayerNormalization,
    RMSNormalization,
    InstanceNormalization,
    GroupNormalization,
    LRN,
    LpNormalization,
)
