"""Operators that pick entries by their indices: Slice, Gather."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.channels import ChannelMap, Indices, Resized
from onnxprune.operators.interval import Interval
from onnxprune.operators.movement import Movement
from onnxprune.operators.tensors import bounds, lock_all, overall, set_ints, take


class Cut(NamedTuple):
    """One axis of a Slice, as written in the model."""

    start: int
    end: int
    step: int

    def positions(self, size: int) -> Indices:
        """The indices it selects from an axis, by ONNX's rules for negative and large ends."""
        if size == 0:
            return np.arange(0)
        start = self.start + size if self.start < 0 else self.start
        end = self.end + size if self.end < 0 else self.end
        if self.step > 0:
            return np.arange(min(max(start, 0), size), min(max(end, 0), size), self.step)
        return np.arange(min(max(start, 0), size - 1), min(max(end, -1), size), self.step)


def cuts(node: NodeView, rank: int) -> dict[int, Cut | None] | None:
    """The sliced axes of a Slice, with None for a cut computed at run time; None if the axes are computed."""
    given = [node.ints(name, k) for k, name in enumerate(("starts", "ends", "axes", "steps"), start=1)]
    starts, ends, axes, steps = given
    if axes is None:
        if node.has_input(3):
            return None
        axes = list(range(rank if starts is None else len(starts)))
    axes = [axis % rank for axis in axes]
    if starts is None or ends is None or (steps is None and node.has_input(4)):
        return dict.fromkeys(axes)
    steps = [1] * len(axes) if steps is None else steps
    return {axis: Cut(*cut) for axis, *cut in zip(axes, starts, ends, steps, strict=True)}


class Slice(Movement):
    """Slices with constant ends; others are hulled."""

    op_types = ("Slice",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """The selected bounds; a hull along computed cuts."""
        x = bounds(inputs, 0)
        if x.ndim == 0:
            return [x]
        sliced = cuts(node, x.ndim)
        for axis, cut in (dict.fromkeys(range(x.ndim)) if sliced is None else sliced).items():
            x = x.hull_over((axis,)) if cut is None else take(x, axis, cut.positions(x.shape[axis]))
        return [x]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Selected indices pass; the ones cut away are free to go."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        sliced = cuts(node, len(shape))
        if sliced is None:
            lock_all(node, links, "sliced along computed axes")
            return True
        x, out = node.input(0), node.output()
        for axis in range(len(shape)):
            cut, size = sliced.get(axis), links.sizes.get((x, axis))
            if axis not in sliced:
                links.same((x, axis), (out, axis))
            elif cut is None or size is None or cut.step != 1:
                links.lock((x, axis), "sliced")
                links.lock((out, axis), "sliced")
            else:
                index = cut.positions(size)
                links.link((x, axis), index, (out, axis), np.arange(len(index)))
        return True

    def resize(self, node: NodeView, sizes: Resized) -> None:
        """Count the indices left before and inside the cut."""
        shape = node.in_shape(0)
        sliced = None if shape is None else cuts(node, len(shape))
        starts, ends = node.ints("starts", 1), node.ints("ends", 2)
        if shape is None or sliced is None or starts is None or ends is None:
            return
        changed = False
        for k, (axis, cut) in enumerate(sliced.items()):
            kept, size = sizes.kept.get((node.input(0), axis)), shape[axis]
            if kept is None or cut is None or not isinstance(size, int):
                continue
            selected = np.isin(kept, cut.positions(size))
            starts[k] = int(np.argmax(selected))
            ends[k] = starts[k] + int(selected.sum())
            changed = True
        if changed:
            set_ints(node, "starts", 1, starts)
            set_ints(node, "ends", 2, ends)


class Gather(Movement):
    """Gather along one axis, with constant indices or a hull over the axis."""

    op_types = ("Gather",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """The gathered bounds; a hull for computed indices."""
        x = bounds(inputs, 0)
        if x.ndim == 0:
            return [x]
        axis = node.attr("axis", 0) % x.ndim
        index = node.constant(1)
        shape = node.in_shape(1) if index is None else index.shape
        if shape is None:
            return [overall(x)]
        x = x.hull_over((axis,)) if index is None else take(x, axis, index.reshape(-1) % x.shape[axis])
        lengths = [1] * len(shape)
        if index is not None and x.shape[axis] == index.size:
            lengths = list(index.shape)
        new_shape = (*x.shape[:axis], *lengths, *x.shape[axis + 1 :])
        return [x.map(lambda ends: ends.reshape(new_shape))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Gathered indices pass; the ones never gathered are free to go."""
        shape, index_shape = node.in_shape(0), node.in_shape(1)
        if shape is None or index_shape is None:
            return False
        x, out = node.input(0), node.output()
        picked, added = node.attr("axis", 0) % len(shape), len(index_shape) - 1
        for axis in range(len(shape)):
            if axis != picked:
                links.same((x, axis), (out, axis if axis < picked else axis + added))
        index, size = node.constant(1), links.sizes.get((x, picked))
        if index is not None and index.ndim == 1 and size is not None:
            links.link((x, picked), index % size, (out, picked), np.arange(len(index)))
            return True
        links.lock((x, picked), "picked by Gather")
        for k in range(len(index_shape)):
            if index is None:
                links.same((node.input(1), k), (out, picked + k))
            else:
                links.lock((out, picked + k), "picked by Gather")
        return True

    def resize(self, node: NodeView, sizes: Resized) -> None:
        """Renumber the indices."""
        shape, index = node.in_shape(0), node.constant(1)
        if shape is None or index is None or index.ndim != 1:
            return
        axis = node.attr("axis", 0) % len(shape)
        size, x, out = shape[axis], (node.input(0), axis), (node.output(), axis)
        if not isinstance(size, int) or not (x in sizes.kept or out in sizes.kept):
            return
        stay = sizes.kept.get(out, np.arange(len(index)))
        moved = np.searchsorted(sizes.kept.get(x, np.arange(size)), index[stay] % size)
        node.set_constant(1, moved.astype(index.dtype))


OPERATORS: tuple[type[Operator], ...] = (
    Slice,
    Gather,
)
