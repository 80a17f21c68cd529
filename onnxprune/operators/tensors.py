"""What is known of a node's tensors (bounds, ranks, sizes), and small steps that many operators share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.operators.base import Inputs, NodeView
from onnxprune.operators.channels import ChannelMap, Indices
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
