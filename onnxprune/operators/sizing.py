"""Operators whose result size is a number somewhere: Reshape, Flatten, Expand, Tile, Pad, Shape, constants.

A reshape is cut into independent blocks of axes that merge or split; each block has its own fate.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.operators.base import Inputs, NodeView, Operator, Shape, op_of
from onnxprune.operators.channels import ChannelMap, Resized
from onnxprune.operators.interval import Interval
from onnxprune.operators.shape import ENTRY_LIMIT, bounds, cuts, lock_all, overall, rank_of, set_ints

Sizes = list[int | str]
"""Sizes of axes; an unknown size has a name, and equal names are equal sizes."""


class Block(NamedTuple):
    """Input axes and output axes that hold the same entries, axes of size 1 left aside."""

    inside: tuple[int, ...]
    outside: tuple[int, ...]


def reshape_blocks(before: Sizes, after: Sizes) -> list[Block]:
    """Cut a reshape wherever the products of the sizes on both sides are known to be equal."""
    inside = [axis for axis, size in enumerate(before) if size != 1]
    outside = [axis for axis, size in enumerate(after) if size != 1]
    old, new = [before[axis] for axis in inside], [after[axis] for axis in outside]
    left = _equal_products(old, new)
    right = [(len(old) - i, len(new) - j) for i, j in reversed(_equal_products(old[::-1], new[::-1]))]
    found = [(0, 0)]
    for i, j in [*left, *right, (len(old), len(new))]:
        if i >= found[-1][0] and j >= found[-1][1] and (i, j) != found[-1]:
            found.append((i, j))
    return [Block(tuple(inside[i:k]), tuple(outside[j:m])) for (i, j), (k, m) in pairwise(found)]


def _equal_products(old: Sizes, new: Sizes) -> list[tuple[int, int]]:
    """Numbers of leading axes with equal products."""
    places = {product: j for j, product in enumerate(_products(new), start=1)}
    return [(i, places[product]) for i, product in enumerate(_products(old), start=1) if product in places]


def _products(sizes: Sizes) -> list[tuple[int, tuple[str, ...]]]:
    numbers = np.cumprod([1] + [size if isinstance(size, int) else 1 for size in sizes], dtype=object)
    names = [size if isinstance(size, str) else "" for size in sizes]
    return [(int(numbers[k]), tuple(sorted(filter(None, names[:k])))) for k in range(1, len(sizes) + 1)]


def _static(sizes: Sizes, axes: Sequence[int]) -> list[int] | None:
    """Sizes of some axes if all are numbers."""
    numbers = [size for axis in axes if isinstance(size := sizes[axis], int)]
    return numbers if len(numbers) == len(axes) else None


def _filled(sizes: Sizes, axes: Sequence[int], total: int) -> list[int] | None:
    """Sizes of some axes with a known product; one unknown size follows from the others."""
    numbers = [size if isinstance(size := sizes[axis], int) else -1 for axis in axes]
    if numbers.count(-1) > 1:
        return None
    rest = -prod(numbers) if -1 in numbers else prod(numbers)
    return [total // rest if size == -1 else size for size in numbers]


def reshaped(x: Interval, before: Sizes, after: Sizes, blocks: Sequence[Block]) -> Interval:
    """Bounds after a reshape: uniform blocks stay so, static ones are written out, others are hulled."""
    if 0 in before or 0 in after or len(before) != x.ndim:
        return overall(x)
    middle, result = [1] * x.ndim, [1] * len(after)
    for block in blocks:
        lengths = [x.shape[axis] for axis in block.inside]
        if prod(lengths) == 1:
            continue
        single = len(block.inside) == len(block.outside) == 1
        old = lengths if single else _static(before, block.inside)
        new = old if single or old is None else _filled(after, block.outside, prod(old))
        if old is None or new is None:
            x = x.hull_over(block.inside)
            continue
        for axis, size in zip(block.inside, old, strict=True):
            middle[axis] = size
        for axis, size in zip(block.outside, new, strict=True):
            result[axis] = size
    if prod(middle) > ENTRY_LIMIT or prod(middle) != prod(result):
        return overall(x)
    return x.map(lambda ends: np.broadcast_to(ends, middle).reshape(result))


def link_blocks(node: NodeView, links: ChannelMap, before: Sizes, rank: int, blocks: Sequence[Block]) -> None:
    """One axis to one axis: the same. Merged axes: the first carries along. Everything else is locked."""
    x, out = node.input(0), node.output()
    for inside, outside in blocks:
        sizes = _static(before, inside)
        if len(inside) == len(outside) == 1:
            links.same((x, inside[0]), (out, outside[0]))
        elif sizes is not None and len(outside) == 1 < len(inside):
            inner = prod(sizes[1:])
            index = np.arange(prod(sizes))
            links.link((x, inside[0]), index // inner, (out, outside[0]), index)
        reason = "split by Reshape" if len(inside) == 1 else "merged by Reshape"
        for axis in [(x, axis) for axis in inside] + [(out, axis) for axis in outside]:
            if axis not in links.mentioned:
                links.lock(axis, reason)
    for axis in [(x, axis) for axis in range(len(before))] + [(out, axis) for axis in range(rank)]:
        if axis not in links.mentioned:
            links.lock(axis, "has size 1")


def _named(shape: Shape | None, prefix: str, x: Interval | None = None) -> Sizes:
    """Sizes with a name for each unknown one; the bounds may tell more than the type."""
    if shape is None:
        shape = (None,) * (x.ndim if x is not None else 0)
    lengths = x.shape if x is not None and x.ndim == len(shape) else (1,) * len(shape)
    return [
        length if length > 1 else f"{prefix}{axis}" if size is None else size
        for axis, (size, length) in enumerate(zip(shape, lengths, strict=True))
    ]


class Flatten(Operator):
    """To rank 2."""

    op_types = ("Flatten",)

    @staticmethod
    def _plan(node: NodeView, before: Sizes) -> tuple[Sizes, list[Block]]:
        cut = node.attr("axis", 1)
        cut = cut + len(before) if cut < 0 else cut
        sides = range(cut), range(cut, len(before))
        numbers = [_static(before, side) for side in sides]
        after: Sizes = ["?" if side is None else prod(side) for side in numbers]
        blocks = [Block(tuple(axis for axis in side if before[axis] != 1), (k,)) for k, side in enumerate(sides)]
        return after, [block for block in blocks if block.inside]

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Merged axes are written out where static, hulled elsewhere."""
        x = bounds(inputs, 0)
        if x.ndim == 0:
            return [x]
        before = _named(node.in_shape(0), "?", x)
        return [reshaped(x, before, *self._plan(node, before))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """A channel carries its positions along."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        before = _named(shape, "?")
        link_blocks(node, links, before, 2, self._plan(node, before)[1])
        return True


def _target(node: NodeView) -> list[int | None] | None:
    """Entries of a Reshape's target shape, None for a computed entry or a target of unknown length.

    Exporters write ``x.view(n, -1)`` as a Concat of a computed size with constants.
    """
    entries = node.ints("shape", 1)
    if entries is not None:
        return list(entries)
    makers = node.node.inputs[1].inputs if node.has_input(1) else []
    if len(makers) != 1 or op_of(makers[0]) != "Concat":
        return None
    found: list[int | None] = []
    for part in makers[0].inputs:
        known = node.types.get(str(part.name))
        if isinstance(part, gs.Constant):
            found += [int(v) for v in np.asarray(part.values).reshape(-1)]
        elif known is not None and known.shape is not None and isinstance(known.shape[0], int):
            found += [None] * known.shape[0]
        else:
            return None
    return found


class Reshape(Operator):
    """Reshape to a constant target; to a computed one as far as the shapes are known."""

    op_types = ("Reshape",)

    @staticmethod
    def _after(node: NodeView, before: Sizes) -> Sizes | None:
        target, shape = _target(node), node.out_shape()
        if target is None:
            return None if shape is None else _named(shape, "!")
        after = _named((None,) * len(target) if shape is None or len(shape) != len(target) else shape, "!")
        for axis, entry in enumerate(target):
            if entry == 0 and not node.attr("allowzero", 0):
                after[axis] = before[axis]
            elif entry is not None and entry >= 0:
                after[axis] = entry
        return after

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Block by block: uniform bounds stay uniform, static ones are written out."""
        x = bounds(inputs, 0)
        before = _named(node.in_shape(0), "?", x)
        after = self._after(node, before) if x.ndim else None
        if after is None:
            return [overall(x)]
        return [reshaped(x, before, after, reshape_blocks(before, after))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Block by block; with a computed target only axes whose entry adapts by itself (-1, or 0)."""
        shape, target = node.in_shape(0), _target(node)
        if shape is None:
            return False
        before = _named(shape, "?")
        after = self._after(node, before)
        if after is None or target is None:
            lock_all(node, links, "Reshape to a computed shape")
            return True
        blocks = reshape_blocks(before, after)
        if node.ints("shape", 1) is None:
            for inside, outside in blocks:
                own = [(axis, target[axis]) for axis in outside]
                if all(entry == -1 or (entry == 0 and inside == (axis,)) for axis, entry in own):
                    continue
                for axis in [(node.input(0), axis) for axis in inside] + [(node.output(), k) for k in outside]:
                    links.lock(axis, "Reshape to a computed shape")
        link_blocks(node, links, before, len(after), blocks)
        return True

    def resize(self, node: NodeView, sizes: Resized) -> None:
        """New numbers for changed axes; -1 stays, and 0 where it still copies the right size."""
        shape, target = node.in_shape(0), node.ints("shape", 1)
        if shape is None or target is None:
            return
        new = list(target)
        for axis, entry in enumerate(target):
            kept = sizes.kept.get((node.output(), axis))
            if kept is None or entry == -1:
                continue
            copied = sizes.kept.get((node.input(0), axis)) if entry == 0 else None
            if copied is None or len(copied) != len(kept):
                new[axis] = len(kept)
        if new != target:
            set_ints(node, "shape", 1, new)


class Expand(Operator):
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


class Tile(Operator):
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


def _pads(node: NodeView, rank: int) -> list[tuple[int, int]] | None:
    """Padding before and after each axis, None if computed at run time."""
    flat, axes = node.ints("pads", 1), node.ints("axes", 3)
    if flat is None or (axes is None and node.has_input(3)):
        return None
    pairs = [(0, 0)] * rank
    half = len(flat) // 2
    for axis, before, after in zip(axes or range(half), flat[:half], flat[half:], strict=True):
        pairs[axis % rank] = (before, after)
    return pairs


class Pad(Operator):
    """Padding: with a value, or with entries of the tensor itself."""

    op_types = ("Pad",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval]:
        """Written-out axes are padded, others take in the value; a tensor's own entries are in its hull."""
        x = bounds(inputs, 0)
        rank = rank_of(node, 0, x)
        pads = None if rank is None else _pads(node, rank)
        fills = node.attr("mode", "constant") == "constant"
        value = overall(bounds(inputs, 2)) if node.has_input(2) else Interval.point(node.attr("value", 0.0))
        if pads is None:
            x = overall(x)
            return [x.hull(value) if fills else x]
        for axis, (before, after) in enumerate(pads):
            if before == after == 0:
                continue
            exact = fills and min(before, after) >= 0 and x.ndim > 0 and x.shape[axis] > 1
            larger = x.lower.size // (x.shape[axis] if x.ndim else 1) * (before + after) + x.lower.size
            if exact and larger <= ENTRY_LIMIT:
                x = _padded(x, axis, (before, after), value)
                continue
            x = x.hull_over((axis,))
            if fills and max(before, after) > 0:
                x = x.hull(value)
        return [x]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Indices of the tensor pass; the padding in front and behind is free to go."""
        shape = node.in_shape(0)
        if shape is None:
            return False
        pads = _pads(node, len(shape))
        if pads is None:
            lock_all(node, links, "padded by a computed amount")
            return True
        x, out = node.input(0), node.output()
        for axis, pair in enumerate(pads):
            size = links.sizes.get((x, axis))
            if pair == (0, 0):
                links.same((x, axis), (out, axis))
            elif size is None or min(pair) < 0 or node.attr("mode", "constant") != "constant":
                links.lock((x, axis), "padded")
                links.lock((out, axis), "padded")
            else:
                links.link((x, axis), np.arange(size), (out, axis), np.arange(size) + pair[0])
        return True

    def resize(self, node: NodeView, sizes: Resized) -> None:
        """Count the padding that is left in front and behind."""
        shape = node.in_shape(0)
        pads = None if shape is None else _pads(node, len(shape))
        if shape is None or pads is None:
            return
        changed = False
        for axis, (before, after) in enumerate(pads):
            kept, size = sizes.kept.get((node.output(), axis)), shape[axis]
            if kept is not None and isinstance(size, int) and (before, after) != (0, 0):
                pads[axis] = (int((kept < before).sum()), int((kept >= before + size).sum()))
                changed = True
        if changed:
            _write_pads(node, pads)


def _write_pads(node: NodeView, pads: Sequence[tuple[int, int]]) -> None:
    axes = node.constant(3) if node.has_input(3) else None
    if axes is not None:
        pads = [pads[int(axis) % len(pads)] for axis in axes.reshape(-1)]
    set_ints(node, "pads", 1, [pair[0] for pair in pads] + [pair[1] for pair in pads])


def _padded(x: Interval, axis: int, pair: tuple[int, int], value: Interval) -> Interval:
    widths = [(0, 0)] * x.ndim
    widths[axis] = pair
    return Interval.of(
        np.pad(x.lower, widths, constant_values=float(value.lower)),
        np.pad(x.upper, widths, constant_values=float(value.upper)),
    )


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
        sizes = None if shape is None else _static(list(_named(shape, "?")), range(len(shape)))
        return [Interval.of(0.0, np.inf) if sizes is None else Interval.point(prod(sizes))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Every index counts."""
        lock_all(node, links, "its size is read by Size")
        return node.in_shape(0) is not None


def _exact(values: Any) -> Interval | None:
    """The values as a point, None if float64 cannot hold them or there are none."""
    array = np.asarray(values)
    if array.dtype.kind in "OSUMmc" or not 0 < array.size <= ENTRY_LIMIT:
        return None
    doubles = array.astype(np.float64)
    if array.dtype.kind in "iu" and np.abs(doubles).max() >= 2.0**53:
        return None
    return Interval.point(doubles)


class Constant(Operator):
    """A constant written as a node."""

    op_types = ("Constant",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        """The values themselves."""
        for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
            value = node.attr(name)
            if value is not None:
                found = _exact(getattr(value, "values", value))
                return None if found is None else [found]
        return None


class ConstantOfShape(Operator):
    """One value everywhere."""

    op_types = ("ConstantOfShape",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        """The value, 0 by default."""
        value = node.attr("value")
        found = _exact(0.0 if value is None else value.values)
        return None if found is None else [overall(found)]


OPERATORS: tuple[type[Operator], ...] = (
    Flatten,
    Reshape,
    Expand,
    Tile,
    Pad,
    ShapeOf,
    SizeOf,
    Constant,
    ConstantOfShape,
)
