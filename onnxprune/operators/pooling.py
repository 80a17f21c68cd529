"""Pooling over spatial neighbourhoods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.averages import AxisSum, WindowMean
from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.candidates import axis_choices, window_choices
from onnxprune.operators.channels import ChannelMap
from onnxprune.operators.interval import Array, Interval, down, up
from onnxprune.operators.reduction import mean_over, sum_over
from onnxprune.operators.relaxation import Choices
from onnxprune.operators.static import input_sizes, is_float, output_sizes, variables
from onnxprune.operators.tape import Sizes, Window
from onnxprune.operators.tensors import ENTRY_LIMIT, bounds, static_size

Taps = NDArray[np.int64]


@dataclass(frozen=True)
class PooledAxis:
    """A pooling window along one spatial axis.

    Attributes:
        index: The axis.
        size: Its size, None if unknown.
        outputs: Number of windows, None if unknown.
        kernel: Taps of a window.
        stride: Step between windows.
        dilation: Step between taps.
        before: Padding in front.
        after: Padding behind.
        ceil: Whether a last, incomplete window counts.
    """

    index: int
    size: int | None
    outputs: int | None
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    ceil: bool

    @property
    def padded(self) -> bool:
        """Whether a window may see padding."""
        return self.before > 0 or self.after > 0

    @property
    def sees_input(self) -> bool:
        """Whether every window, wherever it lies, has a tap on the input."""
        overhang = self.after + (self.stride - 1 if self.ceil else 0)
        if self.before == overhang == 0:
            return True
        gaps = self.dilation > 1 and (self.size is None or self.size < self.dilation)
        return max(self.before, overhang) < extent(self.kernel, self.dilation) and not gaps

    @property
    def windows(self) -> int:
        """Number of windows in ONNX Runtime: none starts behind the tensor."""
        reach = (self.size or 0) + self.before
        room = reach + self.after - extent(self.kernel, self.dilation)
        count = (-(-room // self.stride) if self.ceil else room // self.stride) + 1
        return count - 1 if self.ceil and (count - 1) * self.stride >= reach else count

    def divisors(self, *, counts: bool) -> Array:
        """Taps that count for the mean in each window: on the input, or on the stated padding too."""
        starts = np.arange(self.outputs or 0) * self.stride - self.before
        taps = starts[:, None] + np.arange(self.kernel) * self.dilation
        size = self.size or 0
        first, last = (-self.before, size + self.after) if counts else (0, size)
        counted: Array = ((taps >= first) & (taps < last)).sum(axis=1).astype(np.float64)
        return counted

    def taps(self, x: Interval) -> Taps | None:
        """Input position of each tap, shape (outputs, kernel); None if unknown or too many."""
        others = x.lower.size // x.shape[self.index]
        if self.outputs is None or others * self.outputs * self.kernel > ENTRY_LIMIT:
            return None
        starts = np.arange(self.outputs) * self.stride - self.before
        return starts[:, None] + np.arange(self.kernel) * self.dilation


def extent(kernel: int, dilation: int) -> int:
    """Length of a window."""
    return (kernel - 1) * dilation + 1


def _same_padding(node: NodeView, size: int | None, stride: int, length: int) -> tuple[int, int]:
    """Padding that keeps the size (over the stride); at an unknown size the largest that may occur."""
    total = length - 1 if size is None else max((-(-size // stride) - 1) * stride + length - size, 0)
    small, large = total // 2, (total + 1) // 2
    return (small, large) if node.attr("auto_pad") == "SAME_UPPER" else (large, small)


def _pooled_axes(node: NodeView, x: Interval) -> list[PooledAxis]:
    """The windows of a pooling node along its spatial axes."""
    kernel, out = node.attr("kernel_shape"), node.out_shape()
    count = len(kernel)
    strides, dilations = node.attr("strides", [1] * count), node.attr("dilations", [1] * count)
    pads, auto = node.attr("pads", [0] * (2 * count)), node.attr("auto_pad", "NOTSET")
    result = []
    for k in range(count):
        size = static_size(node, 0, k + 2, x)
        before, after = pads[k], pads[count + k]
        if auto in {"SAME_UPPER", "SAME_LOWER"}:
            before, after = _same_padding(node, size, strides[k], extent(kernel[k], dilations[k]))
        elif auto == "VALID":
            before = after = 0
        outputs = None if out is None else out[k + 2]
        if auto in {"SAME_UPPER", "SAME_LOWER"} and (dilations[k] > 1 or kernel[k] < strides[k]):
            outputs = None  # runtimes disagree on where the windows start
        result.append(
            PooledAxis(
                index=k + 2,
                size=size,
                outputs=outputs if isinstance(outputs, int) else None,
                kernel=kernel[k],
                stride=strides[k],
                dilation=dilations[k],
                before=before,
                after=after,
                ceil=bool(node.attr("ceil_mode", 0)),
            )
        )
    return result


def _tapped(x: Interval, axis: int, taps: Taps, lower: float, upper: float) -> Interval:
    """Bounds of every tap, on a new axis after ``axis``; padding has the given ends."""
    size = x.shape[axis]
    valid = ((taps >= 0) & (taps < size)).reshape(*taps.shape, *[1] * (x.ndim - axis - 1))
    index = np.clip(taps, 0, size - 1)
    low, high = (np.take(ends, index, axis=axis) for ends in (x.lower, x.upper))
    return Interval.of(np.where(valid, low, lower), np.where(valid, high, upper))


class _Pool(Operator):
    """What all pooling operators share: batch and channels pass, space is locked."""

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Channels pass; indices into the flattened tensor would change with them."""
        shape = node.in_shape(0)
        if shape is None or (node.n_outputs > 1 and node.output(1)):
            return False
        for axis in range(len(shape)):
            if axis < 2:
                links.same((node.input(0), axis), (node.output(), axis))
            else:
                links.lock((node.input(0), axis), "pooled")
                links.lock((node.output(), axis), "pooled")
        return True


def _static_axes(node: NodeView) -> list[PooledAxis] | None:
    """The windows of a pooling node whose sizes are all known.

    None where the stated sizes are not those of ONNX Runtime (windows that start behind the tensor count in some
    versions of ONNX and not in others), or where the padding is not clear.
    """
    inside, outside = input_sizes(node, 0), output_sizes(node)
    kernel = node.attr("kernel_shape")
    if inside is None or outside is None or kernel is None or variables(node) != [0] or not is_float(node):
        return None
    if not len(inside) == len(outside) == len(kernel) + 2:
        return None
    axes = _pooled_axes(node, Interval.everything())
    return axes if all(axis.outputs == axis.windows for axis in axes) else None


class MaxPool(_Pool):
    """Largest entry of each window; padding never wins."""

    op_types = ("MaxPool",)

    def choices(self, node: NodeView) -> Choices | None:
        """The entries of each window."""
        axes, inside, outside = _static_axes(node), input_sizes(node, 0), output_sizes(node)
        if axes is None or inside is None or outside is None:
            return None
        columns = zip(*((axis.kernel, axis.stride, axis.dilation, axis.before) for axis in axes), strict=True)
        return window_choices(inside, outside, *columns)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Largest ends per window, or the hull where positions are not known."""
        x = bounds(inputs, 0)
        pooled = _pooled_axes(node, x)
        if not all(axis.sees_input for axis in pooled):
            x = x.hull_over(tuple(axis.index for axis in pooled))
            x = Interval.of(-np.inf, x.upper)
        for axis in pooled:
            if x.ndim == 0 or x.shape[axis.index] == 1:
                continue
            taps = axis.taps(x)
            if taps is None:
                x = x.hull_over((axis.index,))
            else:
                seen, after = _tapped(x, axis.index, taps, -np.inf, -np.inf), axis.index + 1
                x = Interval.of(seen.lower.max(axis=after), seen.upper.max(axis=after))
        return [x, Interval.everything()][: node.n_outputs]


class AveragePool(WindowMean, _Pool):
    """Mean of each window; padding counts as zero, or not at all."""

    op_types = ("AveragePool",)

    def windows(self, node: NodeView) -> tuple[Sizes, Window, Sizes, Sizes, Array] | None:
        """Ones as kernel; divisors are products of those along each axis."""
        axes, inside, outside = _static_axes(node), input_sizes(node, 0), output_sizes(node)
        if axes is None or inside is None or outside is None:
            return None
        counts = bool(node.attr("count_include_pad", 0))
        divisors = np.ones(())
        for axis in axes:
            divisors = divisors[..., None] * axis.divisors(counts=counts)
        if not (divisors > 0).all():
            return None
        kernel, strides, dilations, before = zip(
            *((axis.kernel, axis.stride, axis.dilation, axis.before) for axis in axes), strict=True
        )
        return kernel, Window(strides, dilations, before), inside[2:], outside[2:], divisors

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Mean of the ends per window, or the hull; with zero where padding may count."""
        x = bounds(inputs, 0)
        counts = bool(node.attr("count_include_pad", 0))
        for axis in _pooled_axes(node, x):
            # What a window beyond the padding is divided by differs between versions.
            unclear = axis.ceil or not axis.sees_input
            taps = axis.taps(x) if x.ndim and x.shape[axis.index] > 1 and not unclear else None
            if taps is not None:
                x = _window_mean(x, axis.index, taps, counts)
                continue
            x = x.hull_over((axis.index,))
            if unclear or (counts and axis.padded):
                x = x.include(0.0)
        return [x]


def _window_mean(x: Interval, axis: int, taps: Taps, counts: bool) -> Interval:
    """Mean over the taps, padding counted as zero or not at all; never outside the hull of what counts."""
    valid = ((taps >= 0) & (taps < x.shape[axis])).sum(axis=1).reshape(-1, *[1] * (x.ndim - axis))
    divisor = taps.shape[1] if counts else valid
    zeros = _tapped(x, axis, taps, 0.0, 0.0)
    total = sum_over(zeros, (axis + 1,))
    mean = Interval.of(down(total.lower / divisor), up(total.upper / divisor))
    seen = zeros if counts else _tapped(x, axis, taps, np.inf, -np.inf)
    result = mean.meet(seen.hull_over((axis + 1,)))
    return result.map(lambda ends: ends.squeeze(axis + 1))


class GlobalPool(AxisSum, _Pool):
    """Mean or largest entry of each channel."""

    op_types = ("GlobalAveragePool", "GlobalMaxPool")

    def summed(self, node: NodeView, rank: int) -> tuple[tuple[int, ...], bool] | None:
        """All spatial axes."""
        return (tuple(range(2, rank)), True) if node.op == "GlobalAveragePool" else None

    def choices(self, node: NodeView) -> Choices | None:
        """All positions."""
        shape = node.in_shape(0)
        if shape is None or node.op != "GlobalMaxPool":
            return None
        return axis_choices(node, tuple(range(2, len(shape))), largest=True)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Reduce the ends over space."""
        x = bounds(inputs, 0)
        spatial = tuple(range(2, x.ndim))
        if not spatial:
            return [x]
        if node.op == "GlobalAveragePool":
            return [mean_over(x, spatial)]
        return [x.map(lambda ends: ends.max(axis=spatial, keepdims=True))]


class LpPool(_Pool):
    """Norm of each window: no bounds, but channels pass."""

    op_types = ("LpPool", "GlobalLpPool")


OPERATORS: tuple[type[Operator], ...] = (
    MaxPool,
    AveragePool,
    GlobalPool,
    LpPool,
)
