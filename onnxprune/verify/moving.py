"""Rows behind a node that moves whole channels: transposing, flattening, reshaping."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.verify.affine import channel_bounds
from onnxprune.verify.forms import Form
from onnxprune.verify.network import Network, Node
from onnxprune.verify.terms import Indices, Term

if TYPE_CHECKING:
    from onnxprune.verify.sides import Side


def moved_rows(
    before: Side, after: Side, node: Node, twin: str | None, form: Form, image: str, atoms: set[str]
) -> Form | None:
    """What becomes of rows; those that are not rows of ``image`` are known by bounds from then on.

    Args:
        before: The original.
        after: The optimized model.
        node: The node of the original.
        twin: Output of the node of the optimized model that does the same to ``image``.
        form: The input of the node.
        image: A tensor of the optimized model.
        atoms: Receives ``twin``.
    """
    assert form.axis is not None
    layout = _layout(before.net, node, form.axis, form.rows)
    if layout is None:
        return None
    axis, front, back = layout
    count = form.rows * front * back
    found = channel_bounds(before.bounds[node.outputs[0]], axis, count)
    low, high = found.floats()
    size, zero = np.maximum(np.abs(low), np.abs(high)), np.zeros(count)
    bare = Form(axis, {}, found, size, zero, zero)
    if twin is None:
        return bare
    width = after.net.size(image, form.axis)
    other = None if width is None else _other_layout(before.net, after.net, node, twin, axis, width * front * back)
    if width is None or not other:
        return bare
    channel, factors = form.matched(image)
    old = _spread(np.arange(form.rows), form.rows, front, back)
    new = _spread(channel, width, front, back)
    new[channel[old // back % form.rows] < 0] = -1
    paired = np.flatnonzero(new >= 0)
    place = old // back % form.rows
    atoms.add(twin)
    picked = Term.pick(paired, new[paired], factors[place[paired]], width * front * back)
    rest = bare.without(new >= 0, found.like(zero, zero))
    errors = [np.where(new >= 0, part[place], 0.0) for part in (form.deviation, form.rounding)]
    return Form(axis, {(twin, None): picked}, rest.shift, rest.size, errors[0], errors[1])


def _spread(channels: Indices, width: int, front: int, back: int) -> Indices:
    """Indices of merged axes: ``front`` blocks of ``width`` channels of ``back`` entries."""
    blocks = np.arange(front)[:, None, None] * width + channels[None, :, None]
    return np.asarray((blocks * back + np.arange(back)).reshape(-1), dtype=np.int64)


def _layout(net: Network, node: Node, axis: int, count: int) -> tuple[int, int, int] | None:
    """The axis that rows run along behind a node, and how many entries are in front of and behind each in it."""
    shape, result = net.sample(node.inputs[0]), net.sample(node.outputs[0])
    if shape is None or result is None or shape[axis] != count:
        return None
    if node.op == "Transpose":
        order = [int(a) for a in node.get("perm", list(range(len(shape)))[::-1])]
        return order.index(axis), 1, 1
    if prod(shape) != prod(result):
        return None
    before, behind = prod(shape[:axis]), prod(shape[axis + 1 :])
    for k, size in sorted(enumerate(result), key=lambda place: place[0] != axis):  # a single row may fit anywhere
        ahead = prod(result[:k])
        if before % ahead or size % (before // ahead * count):
            continue
        front = before // ahead
        back = size // (front * count)
        if behind % back == 0 and prod(result[k + 1 :]) == behind // back:
            return k, front, back
    return None


def _other_layout(one: Network, other: Network, node: Node, twin: str, axis: int, count: int) -> bool:
    """Whether the optimized model's node has the same layout for its number of channels."""
    first, second = one.sample(node.outputs[0]), other.sample(twin)
    if first is None or second is None or len(first) != len(second):
        return False
    return all(b == (count if a == axis else s) for a, (s, b) in enumerate(zip(first, second, strict=True)))
