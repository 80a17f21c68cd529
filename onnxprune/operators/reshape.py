"""Reshape and Flatten.

A reshape is cut into independent blocks of axes that merge or split; each block has its own fate.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.operators.base import Inputs, NodeView, Operator, Shape, op_of
from onnxprune.operators.channels import ChannelMap, Resized
from onnxprune.operators.interval import Interval
from onnxprune.operators.movement import InOrder
from onnxprune.operators.tensors import ENTRY_LIMIT, bounds, lock_all, overall, set_ints

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


class Flatten(InOrder):
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


class Reshape(InOrder):
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
            copied = sizes.kept.get((node.input(0), axis)) if entry == 0 else None
            if entry == -1 or (kept is None and copied is None):
                continue
            before = shape[axis] if axis < len(shape) else None
            size = len(kept) if kept is not None else before
            if isinstance(size, int) and (copied is None or len(copied) != size):
                new[axis] = size
        if new != target:
            set_ints(node, "shape", 1, new)


OPERATORS: tuple[type[Operator], ...] = (
    Flatten,
    Reshape,
)
