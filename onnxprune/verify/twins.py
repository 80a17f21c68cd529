"""Nodes of the optimized model that do the same as a node of the original."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.meanings import SHAPES
from onnxprune.verify.network import Network, Node, digest
from onnxprune.verify.sides import Side
from onnxprune.verify.terms import Indices


def signature(node: Node, net: Network, names: Mapping[str, str] | None) -> tuple[object, ...]:
    """What two nodes agree in that are literally the same; ``names`` are those of the inputs in the other model."""
    inputs = []
    for name in (*node.inputs, *node.captured):
        value = net.constants.get(name)
        if value is not None:
            inputs.append(f"#{digest(value)}")
        else:
            inputs.append(name if names is None or not name else names[name])
    return (node.op, node.settings, tuple(inputs), tuple(bool(name) for name in node.outputs))


def twin_of(before: Side, after: Side, node: Node, tensor: str) -> str | None:
    """Output of the node of the optimized model that does to a tensor what a node of the original does."""
    for other in after.net.readers.get(tensor, []):
        same = other.op == node.op and other.inputs[0] == tensor
        if same and (other.settings == node.settings or node.op in SHAPES) and _alike(before, after, node, other):
            return other.outputs[0]
    return None


def _alike(before: Side, after: Side, node: Node, other: Node) -> bool:
    """Whether further inputs are equal constants; the slopes of PRelu are compared row by row."""
    if node.op in ("Reshape", "PRelu", "Resize", "Squeeze", "Unsqueeze"):
        return _sized(before, after, node, other)
    if len(node.inputs) != len(other.inputs):
        return False
    pairs = list(zip(node.inputs[1:], other.inputs[1:], strict=True))
    values = [(before.net.constants.get(a), after.net.constants.get(b)) for a, b in pairs]
    return all(
        (not a and not b) or (v is not None and w is not None and digest(v) == digest(w))
        for (a, b), (v, w) in zip(pairs, values, strict=True)
    )


def _sized(before: Side, after: Side, node: Node, other: Node) -> bool:
    if node.op == "PRelu":
        return True
    shapes = before.net.sample(node.outputs[0]), after.net.sample(other.outputs[0])
    return shapes[0] is not None and shapes[1] is not None and len(shapes[0]) == len(shapes[1])


def same_slopes(before: Side, after: Side, node: Node, image: str, channel: Indices) -> NDArray[np.bool_]:
    """Per row whether PRelu has the same slope in both models."""
    twin = next(r for r in after.net.readers[image] if r.op == "PRelu")
    mine, other = (net.constants.get(n.inputs[1]) for net, n in ((before.net, node), (after.net, twin)))
    if mine is None or other is None:
        return np.zeros(len(channel), dtype=bool)
    mine = np.broadcast_to(mine.reshape(-1), (len(channel),)) if mine.size in (1, len(channel)) else None
    width = int(channel.max(initial=0)) + 1
    other = other.reshape(-1) if other.size > 1 else np.repeat(other.reshape(-1), width)
    if mine is None or len(other) < width:
        return np.zeros(len(channel), dtype=bool)
    return np.asarray(mine == other[np.maximum(channel, 0)])


def same_layout(one: Network, other: Network, node: Node, twin: str) -> bool:
    """Whether two tensors have the same symbolic shape, one size at most being unknown."""
    shapes = [one.shape(node.outputs[0]), other.shape(twin)]
    if shapes[0] is None or shapes[1] is None or len(shapes[0]) != len(shapes[1]):
        return False
    fixed = [a == b if isinstance(a, int) or isinstance(b, int) else None for a, b in zip(*shapes, strict=True)]
    return False not in fixed and fixed.count(None) <= 1
