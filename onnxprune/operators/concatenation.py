"""Concat, and Split, which undoes it."""

from __future__ import annotations

from functools import reduce
from math import prod

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.channels import ChannelMap, Resized
from onnxprune.operators.interval import Interval
from onnxprune.operators.movement import Movement
from onnxprune.operators.tensors import ENTRY_LIMIT, bounds, rank_of, set_ints, static_size, take


class Concat(Movement):
    """Concatenation; parts of unknown size are hulled, as nobody knows where the next part starts."""

    op_types = ("Concat",)
    sources = None

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


class Split(Movement):
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


OPERATORS: tuple[type[Operator], ...] = (
    Concat,
    Split,
)
