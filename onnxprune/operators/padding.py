"""Padding at both ends of the axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.channels import ChannelMap, Resized
from onnxprune.operators.interval import Interval
from onnxprune.operators.movement import Movement
from onnxprune.operators.tensors import ENTRY_LIMIT, bounds, lock_all, overall, rank_of, set_ints


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


class Pad(Movement):
    """Padding: with a value, or with entries of the tensor itself."""

    op_types = ("Pad",)
    sources = (0, 2)

    def filling(self, node: NodeView) -> float:
        """The attribute of older opsets."""
        return float(node.attr("value", 0.0)) if node.opset < 11 else 0.0

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


OPERATORS: tuple[type[Operator], ...] = (Pad,)
