"""Operators that move entries: Concat, Split, Slice, Gather, Transpose, Squeeze, Unsqueeze.

Those whose result size is a number somewhere (Reshape, Pad ...) are in :mod:`onnxprune.operators.sizing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.channels import ChannelMap, Indices, Resized
from onnxprune.operators.interval import Interval

ENTRY_LIMIT = 50_000_000
"""Bounds with more entries than this are replaced by a hull."""


def bounds(inputs: Inputs, index: int) -> Interval:
    """Bounds of an input; everything where it is omitted or has no entries."""
    x = inputs[index] if index < len(inputs) else None
    return Interval.everything() if x is None or x.lower.size == 0 else x


def rank_of(node: NodeView, index: int, x: Interval) -> int | None:
    """Rank of an input tensor, from its bounds or its type."""
    shape = node.in_shape(index)
    if x.ndim or shape is None:
        return x.ndim or None
    return len(shape)


def static_size(node: NodeView, index: int, axis: int, x: Interval) -> int | None:
    """Size of an input axis where it is the same in every run: from its bounds or its type."""
    if x.ndim and x.shape[axis] > 1:
        return x.shape[axis]
    shape = node.in_shape(index)
    size = None if shape is None else shape[axis]
    return size if isinstance(size, int) else None


def overall(x: Interval) -> Interval:
    """One interval for all entries, without axes."""
    return Interval.of(x.lower.min(), x.upper.max())


def take(x: Interval, axis: int, index: Indices) -> Interval:
    """Bounds at ``index`` along an axis; as they are where they are uniform along it."""
    if x.ndim == 0 or x.shape[axis] == 1:
        return x
    too_large = x.lower.size // x.shape[axis] * len(index) > ENTRY_LIMIT
    if too_large or len(index) == 0 or index.min() < 0 or index.max() >= x.shape[axis]:
        return x.hull_over((axis,))
    return x.map(lambda ends: np.take(ends, index, axis=axis))


def lock_all(node: NodeView, links: ChannelMap, reason: str) -> None:
    """Lock every axis of the first input and of every output."""
    shapes = [(node.input(0), node.in_shape(0))]
    shapes += [(node.output(k), node.out_shape(k)) for k in range(node.n_outputs)]
    for name, shape in shapes:
        for axis in range(len(shape or ())):
            links.lock((name, axis), reason)


def set_ints(node: NodeView, name: str, index: int, values: Sequence[int]) -> None:
    """Write back what ``NodeView.ints`` reads: to the attribute if there is one, else to the input."""
    if name in node.node.attrs:
        node.node.attrs[name] = [int(v) for v in values]
        return
    old = node.constant(index)
    while node.n_inputs <= index:
        node.node.inputs.append(gs.Variable.empty())
    node.set_constant(index, np.array(values, dtype=np.int64 if old is None else old.dtype))


class Concat(Operator):
    """Concatenation; parts of unknown size are hulled, as nobody knows where the next part starts."""

    op_types = ("Concat",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Side by side; one hull where the size of a part is unknown."""
        parts = [bounds(inputs, k) for k in range(node.n_inputs)]
        rank = max(rank_of(node, k, x) or 0 for k, x in enumerate(parts))
        if rank == 0:
            return [reduce(Interval.hull, parts)]
        axis = node.attr("axis", 1) % rank
        parts = [x.aligned(rank) for x in parts]
        sizes = [static_size(node, k, axis, x) for k, x in enumerate(parts)]
        parts = [x for x, size in zip(parts, sizes, strict=True) if size != 0] or parts
        known = [size for size in sizes if size]
        others = np.broadcast_shapes(*(x.hull_over((axis,)).shape for x in parts))
        if len(known) < len(parts) or prod(others) * sum(known) > ENTRY_LIMIT:
            return [reduce(Interval.hull, (x.hull_over((axis,)) for x in parts))]
        shapes = [(*others[:axis], size, *others[axis + 1 :]) for size in known]
        ends = [
            np.concatenate([np.broadcast_to(a, s) for a, s in zip(side, shapes, strict=True)], axis=axis)
            for side in ([x.lower for x in parts], [x.upper for x in parts])
        ]
        return [Interval.of(*ends)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Indices move by the sizes of the parts in front."""
        shapes = [node.in_shape(k) for k in range(node.n_inputs)]
        if any(shape is None for shape in shapes):
            return False
        rank = len(shapes[0] or ())
        joined = node.attr("axis", 1) % rank
        out = node.output()
        for axis in range(rank):
            if axis != joined:
                for k in range(node.n_inputs):
                    links.same((node.input(k), axis), (out, axis))
        sizes = [links.sizes.get((node.input(k), joined)) for k in range(node.n_inputs)]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            for name in [*(node.input(k) for k in range(node.n_inputs)), out]:
                links.lock((name, joined), "joined with a part of unknown size")
            return True
        offset = 0
        for k, size in enumerate(known):
            index = np.arange(size, dtype=np.int64)
            links.link((node.input(k), joined), index, (out, joined), offset + index)
            offset += size
        return True


def _split_sizes(node: NodeView, size: int | None) -> list[int] | None:
    """Size of every part, None if unknown."""
    explicit = node.ints("split", 1)
    if explicit is not None or node.has_input(1) or size is None:
        return explicit
    count = node.attr("num_outputs", node.n_outputs)
    chunk = -(-size // count)
    return [max(0, min(chunk, size - k * chunk)) for k in range(count)]


class Split(Operator):
    """Split into parts given by attribute, constant input, or equal parts."""

    op_types = ("Split",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """The stretch of each part; a hull where sizes are unknown."""
        x = bounds(inputs, 0)
        if x.ndim == 0:
            return [x] * node.n_outputs
        axis = node.attr("axis", 0) % x.ndim
        sizes = _split_sizes(node, static_size(node, 0, axis, x))
        if sizes is None:
            return [x.hull_over((axis,))] * node.n_outputs
        starts = np.cumsum([0, *sizes])
        return [take(x, axis, np.arange(starts[k], starts[k + 1])) for k in range(node.n_outputs)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Indices move by the sizes of the parts in front."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        x, cut = node.input(0), node.attr("axis", 0) % len(shape)
        outs = {k: node.output(k) for k in range(node.n_outputs) if node.output(k)}
        for axis in range(len(shape)):
            if axis != cut:
                for name in outs.values():
                    links.same((x, axis), (name, axis))
        size = links.sizes.get((x, cut))
        parts = _split_sizes(node, size)
        if size is None or parts is None:
            for name in (x, *outs.values()):
                links.lock((name, cut), "split into parts of unknown size")
            return True
        links.mention((x, cut))
        starts = np.cumsum([0, *parts])
        for k, name in outs.items():
            links.link((x, cut), np.arange(starts[k], starts[k + 1]), (name, cut), np.arange(parts[k]))
        return True

    def resize(self, node: NodeView, sizes: Resized) -> None:
        """Count what is left of each part."""
        shape = node.in_shape(0)
        if shape is None:
            return
        axis = node.attr("axis", 0) % len(shape)
        kept = sizes.kept.get((node.input(0), axis))
        size = shape[axis]
        old_parts = _split_sizes(node, size if isinstance(size, int) else None)
        if kept is None or old_parts is None:
            return
        edges = np.searchsorted(kept, np.cumsum([0, *old_parts]))
        parts = [int(n) for n in np.diff(edges)]
        implicit = "split" not in node.node.attrs and not node.has_input(1)
        uneven = len(set(parts)) > 1 and node.opset < 18
        if implicit and not uneven and parts == _split_sizes(node, len(kept)):
            return
        node.node.attrs.pop("num_outputs", None)
        if node.opset < 13:
            node.node.attrs["split"] = parts
        else:
            set_ints(node, "split", 1, parts)


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


class Slice(Operator):
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


class Gather(Operator):
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


def _link_around(links: ChannelMap, short: str, long: str, rank: int, absent: Sequence[int]) -> None:
    """The axes of ``long``, of this rank, are those of ``short`` in order, but for the ``absent`` ones."""
    for new, old in enumerate(axis for axis in range(rank) if axis not in absent):
        links.same((long, old), (short, new))
    for axis in absent:
        links.lock((long, axis), "has size 1")


class Squeeze(Operator):
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


class Unsqueeze(Operator):
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


OPERATORS: tuple[type[Operator], ...] = (Concat, Split, Slice, Gather, Transpose, Squeeze, Unsqueeze)
