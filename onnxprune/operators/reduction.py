"""Operators that reduce axes: ReduceMean, ReduceMax, ReduceMin, ReduceSum and others, ArgMax, ArgMin."""

from __future__ import annotations

from math import prod

import numpy as np

from onnxprune.operators.averages import AxisSum, RunningSum
from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.candidates import axis_choices
from onnxprune.operators.channels import ChannelMap
from onnxprune.operators.interval import TINY, Array, Interval, down, gamma, multiply, up
from onnxprune.operators.relaxation import Choices
from onnxprune.operators.tensors import bounds, rank_of, static_size

Axes = tuple[int, ...]


def _sum(values: Array, axes: Axes, toward: float) -> Array:
    """Sum of one end, rounded towards minus or plus infinity; a sum of zeros is exact."""
    terms = prod(values.shape[axis] for axis in axes)
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum(axis=axes, keepdims=True)
        size = np.abs(values).sum(axis=axes, keepdims=True)
        error = np.where(size > 0, gamma(terms) * size + TINY, 0.0)
        wide = total - error if toward < 0 else total + error
    # Both infinities in one sum, or an overflow on the wrong side, say nothing.
    open_end = np.isnan(wide) | (wide == -toward)
    return np.where(open_end, toward, wide)


def sum_over(x: Interval, axes: Axes) -> Interval:
    """Sum over axes along which the bounds are written out."""
    return Interval.of(_sum(x.lower, axes, -np.inf), _sum(x.upper, axes, np.inf))


def mean_over(x: Interval, axes: Axes) -> Interval:
    """Mean over axes: exact where the bounds are uniform, else rounded outward within the hull."""
    full = tuple(axis for axis in axes if x.ndim and x.shape[axis] > 1)
    if not full:
        return x
    count = prod(x.shape[axis] for axis in full)
    total = sum_over(x, full)
    with np.errstate(over="ignore", under="ignore"):
        mean = Interval.of(down(total.lower / count), up(total.upper / count))
    return mean.meet(x.hull_over(full))


def _repeated(x: Interval, count: int | None) -> Interval:
    """Sum of ``count`` entries, each within ``x``; None = any number, none at all included."""
    if count is not None:
        return multiply(x, Interval.point(count))
    return Interval.of(np.where(x.lower < 0, -np.inf, 0.0), np.where(x.upper > 0, np.inf, 0.0))


def reduced_axes(node: NodeView, rank: int) -> Axes | None:
    """The axes a Reduce operator reduces, None if computed at run time."""
    axes = node.ints("axes", 1)
    if axes is None and node.has_input(1):
        return None
    if not axes:
        return () if node.attr("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axis % max(rank, 1) for axis in axes))


def dropped(node: NodeView, x: Interval, axes: Axes) -> Interval:
    """Without the reduced axes, unless the node keeps them."""
    if x.ndim == 0 or node.attr("keepdims", 1):
        return x
    return x.map(lambda ends: np.squeeze(ends, axis=axes))


def link_reduced(node: NodeView, links: ChannelMap, rank: int, axes: Axes, reason: str) -> None:
    """Reduced axes are locked, the others belong together."""
    x, position = node.input(0), 0
    keeps = bool(node.attr("keepdims", 1))
    for axis in range(rank):
        if axis in axes:
            links.lock((x, axis), reason)
            if keeps:
                links.lock((node.output(), position), reason)
        else:
            links.same((x, axis), (node.output(), position))
        position += keeps or axis not in axes


class _Reduce(Operator):
    """What all reductions share; the rule for the values is in :meth:`values`."""

    def values(self, node: NodeView, x: Interval, axes: Axes) -> Interval | None:
        """Bounds with the reduced axes kept at length 1 (``x`` without axes: valid for every entry)."""
        return None

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        """Reduce the bounds, then drop the axes."""
        x = bounds(inputs, 0)
        rank = rank_of(node, 0, x)
        axes = None if rank is None else reduced_axes(node, rank)
        if rank is None or axes is None:
            return None
        result = self.values(node, x, axes)
        return None if result is None else [dropped(node, result, axes)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Reduced axes stay as they are."""
        shape = node.in_shape(0)
        axes = None if shape is None else reduced_axes(node, len(shape))
        if shape is None or axes is None:
            return False
        link_reduced(node, links, len(shape), axes, "reduced over")
        return True


class _AxisSum(AxisSum, _Reduce):
    """Sums and means are affine."""

    def summed(self, node: NodeView, rank: int) -> tuple[Axes, bool] | None:
        """The reduced axes."""
        axes = reduced_axes(node, rank)
        return None if axes is None else (axes, node.op == "ReduceMean")


class ReduceMean(_AxisSum):
    """Mean: inside the hull at every size."""

    op_types = ("ReduceMean",)

    def values(self, node: NodeView, x: Interval, axes: Axes) -> Interval:
        """Mean of the ends; means of integers are rounded, so only the hull holds."""
        dtype = node.in_type(0).dtype
        return x.hull_over(axes) if dtype is not None and dtype.kind in "iu" else mean_over(x, axes)


class ReduceExtreme(_Reduce):
    """Largest or smallest entry."""

    op_types = ("ReduceMax", "ReduceMin")

    def choices(self, node: NodeView) -> Choices | None:
        """All entries along the reduced axes."""
        shape = node.in_shape(0)
        axes = None if shape is None else reduced_axes(node, len(shape))
        return None if axes is None else axis_choices(node, axes, largest=node.op == "ReduceMax")

    def values(self, node: NodeView, x: Interval, axes: Axes) -> Interval:
        """The extreme of each end."""
        if x.ndim == 0 or not axes:
            return x
        extreme = np.max if node.op == "ReduceMax" else np.min
        return x.map(lambda ends: extreme(ends, axis=axes, keepdims=True))


class ReduceSum(_AxisSum):
    """Sum: bounded where the number of terms is known, or where terms have one sign."""

    op_types = ("ReduceSum",)

    def values(self, node: NodeView, x: Interval, axes: Axes) -> Interval:
        """Written-out axes are added, uniform ones multiplied."""
        full = tuple(axis for axis in axes if x.ndim and x.shape[axis] > 1)
        sizes = [static_size(node, 0, axis, x) for axis in axes if axis not in full]
        known = [size for size in sizes if size is not None]
        total = sum_over(x, full) if full else x
        return _repeated(total, prod(known) if len(known) == len(sizes) else None)


class ReduceNorm(_Reduce):
    """Norms: not negative."""

    op_types = ("ReduceL1", "ReduceL2", "ReduceSumSquare")

    def values(self, node: NodeView, x: Interval, axes: Axes) -> Interval | None:
        """Zero to infinity; without axes some versions return the input."""
        return Interval.of(0.0, np.inf) if axes else None


class ReduceOther(_Reduce):
    """Reductions without bounds."""

    op_types = ("ReduceProd", "ReduceLogSum", "ReduceLogSumExp")


class CumSum(RunningSum):
    """Running sums."""

    op_types = ("CumSum",)

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """The summed axis is locked, the others belong together."""
        shape, axes = node.in_shape(0), node.constant(1)
        if shape is None or axes is None:
            return False
        summed = int(axes.reshape(-1)[0]) % len(shape)
        link_reduced(node, links, len(shape), (summed,), "summed up along it")
        return True


class ArgExtreme(Operator):
    """Position of an extreme entry."""

    op_types = ("ArgMax", "ArgMin")

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """From 0 to the last index."""
        x = bounds(inputs, 0)
        rank = rank_of(node, 0, x)
        size = None if not rank else static_size(node, 0, node.attr("axis", 0) % rank, x)
        return [Interval.of(0.0, np.inf if size is None else max(size - 1.0, 0.0))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """The positions along the axis are numbers somebody reads."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        axis = node.attr("axis", 0) % len(shape)
        link_reduced(node, links, len(shape), (axis,), "its positions are the result")
        return True


OPERATORS: tuple[type[Operator], ...] = (
    ReduceMean,
    ReduceExtreme,
    ReduceSum,
    ReduceNorm,
    ReduceOther,
    CumSum,
    ArgExtreme,
)
