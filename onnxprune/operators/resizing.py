"""Operators that change the spatial resolution: Resize, Upsample, DepthToSpace, SpaceToDepth."""

from __future__ import annotations

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator, Shape
from onnxprune.operators.channels import ChannelMap, Resized
from onnxprune.operators.interval import Interval
from onnxprune.operators.movement import Movement
from onnxprune.operators.tensors import bounds, overall, set_ints


def _unchanged_axes(node: NodeView, shape: Shape, *, at_run_time: bool) -> set[int]:
    """Axes a Resize leaves as they are; ``at_run_time``: also by a computed but known size."""
    if node.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        return set()
    axes = [axis % len(shape) for axis in node.attr("axes", range(len(shape)))]
    same = set(range(len(shape))) - set(axes)
    scales, sizes = _scales(node), _target_sizes(node)
    if scales is not None:
        return same | {axis for axis, scale in zip(axes, scales, strict=True) if scale == 1}
    stretches = node.attr("keep_aspect_ratio_policy", "stretch") == "stretch"
    if sizes is not None and stretches:
        return same | {axis for axis, size in zip(axes, sizes, strict=True) if shape[axis] == size}
    out = node.out_shape()
    if out is not None and (sizes is not None or (at_run_time and node.has_input(3))):
        return same | {axis for axis in axes if isinstance(shape[axis], int) and shape[axis] == out[axis]}
    return same


def _scales(node: NodeView) -> list[float] | None:
    """Constant factors per axis, None if sizes are given or the factors are computed."""
    given = node.attr("scales")
    if given is None:
        given = node.constant(1 if node.op == "Upsample" or node.opset < 11 else 2)
    return None if given is None or len(given) == 0 else [float(v) for v in given]


def _target_sizes(node: NodeView) -> list[int] | None:
    """Constant sizes per axis, None if factors are given or the sizes are computed."""
    given = None if node.op == "Upsample" else node.constant(3)
    return None if given is None or len(given) == 0 else [int(v) for v in given]


class Resize(Movement):
    """Resampling: nearest and linear stay within the values; cubic overshoots."""

    op_types = ("Resize", "Upsample")

    def moves(self, node: NodeView) -> bool:
        """Nearest neighbours, not outside a crop."""
        crops = node.attr("coordinate_transformation_mode") == "tf_crop_and_resize"
        return node.attr("mode", "nearest") == "nearest" and not crops

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        """Hull over the resampled axes, with the value outside a crop."""
        if node.attr("mode", "nearest") not in {"nearest", "linear", "bilinear"}:
            return None
        x = bounds(inputs, 0)
        if x.ndim:
            shape = node.in_shape(0) or (None,) * x.ndim
            same = _unchanged_axes(node, shape, at_run_time=True)
            x = x.hull_over(tuple(axis for axis in range(x.ndim) if axis not in same))
        if node.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
            x = x.include(node.attr("extrapolation_value", 0.0))
        return [x]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Axes with factor 1 pass."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        same = _unchanged_axes(node, shape, at_run_time=False)
        for axis in range(len(shape)):
            if axis in same:
                links.same((node.input(0), axis), (node.output(), axis))
            else:
                links.lock((node.input(0), axis), "resampled")
                links.lock((node.output(), axis), "resampled")
        return True

    def resize(self, node: NodeView, sizes: Resized) -> None:
        """New numbers among the target sizes."""
        shape, target = node.in_shape(0), _target_sizes(node)
        if shape is None or target is None:
            return
        axes = [axis % len(shape) for axis in node.attr("axes", range(len(shape)))]
        new = [sizes.size((node.output(), axis), size) for axis, size in zip(axes, target, strict=True)]
        if new != target:
            set_ints(node, "sizes", 3, new)


class DepthToSpace(Movement):
    """Channels to blocks of positions."""

    op_types = ("DepthToSpace",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Hull of the channels that meet in one, over all positions."""
        x = bounds(inputs, 0)
        if x.ndim != 4 or x.shape[1] == 1:
            return [x.hull_over((2, 3)) if x.ndim == 4 else overall(x)]
        x = x.hull_over((2, 3))
        cells = node.attr("blocksize") ** 2
        depth_first = node.attr("mode", "DCR") == "DCR"
        split = (cells, x.shape[1] // cells) if depth_first else (x.shape[1] // cells, cells)
        blocks = x.map(lambda ends: ends.reshape(x.shape[0], *split, 1, 1))
        cell_axis = 1 if depth_first else 2
        return [Interval.of(blocks.lower.min(axis=cell_axis), blocks.upper.max(axis=cell_axis))]


class SpaceToDepth(Movement):
    """Blocks of positions to channels."""

    op_types = ("SpaceToDepth",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """The channels' bounds, repeated for each place in a block."""
        x = bounds(inputs, 0)
        if x.ndim != 4:
            return [overall(x)]
        cells = node.attr("blocksize") ** 2 if x.shape[1] > 1 else 1
        return [x.hull_over((2, 3)).map(lambda ends: np.tile(ends, (1, cells, 1, 1)))]


OPERATORS: tuple[type[Operator], ...] = (
    Resize,
    DepthToSpace,
    SpaceToDepth,
)
