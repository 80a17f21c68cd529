"""Constant target shapes for Reshape nodes whose target is computed from sizes of tensors."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.graph.graph import Graph
from onnxprune.operators import Dim, op_of

PASSED_ON = ("Unsqueeze", "Squeeze", "Identity", "Cast")


def constant_target(graph: Graph, node: gs.Node) -> NDArray[np.int64] | None:
    """The target of a Reshape as a constant valid for every size the model admits, or None.

    An entry equal to the input's size at the same place becomes 0 ("as it is"). A single remaining entry becomes
    -1, unless there is such a 0: an empty batch would no longer be accepted.
    """
    shape = graph.view(node).in_shape(0)
    entries = _entries(graph, node.inputs[1])
    if entries is None or int(node.attrs.get("allowzero", 0)):
        return None
    target: list[int] = []
    open_entries = 0
    for place, entry in enumerate(entries):
        same = shape is not None and place < len(shape) and isinstance(entry, str) and shape[place] == entry
        if isinstance(entry, int):
            target.append(entry)
        elif same:
            target.append(0)
        else:
            target.append(-1)
            open_entries += 1
    if target.count(-1) > 1 or (open_entries and 0 in target):
        return None
    return np.array(target, dtype=np.int64)


def _entries(graph: Graph, tensor: gs.Tensor, depth: int = 0) -> list[Dim] | None:
    """Entries of a small whole-number tensor: numbers, symbols of sizes, or None where unknown."""
    if isinstance(tensor, gs.Constant):
        values = np.asarray(tensor.values)
        return [int(v) for v in values.reshape(-1)] if values.ndim <= 1 else None
    known = graph.types.get(tensor.name)
    if len(tensor.inputs) != 1 or depth > 16 or known is None or known.shape is None or len(known.shape) > 1:
        return None
    node = tensor.inputs[0]
    view = graph.view(node)
    if op_of(node) == "Shape":
        shape = view.in_shape(0)
        end = node.attrs.get("end")
        return (
            None if shape is None else list(shape[int(node.attrs.get("start", 0)) : None if end is None else int(end)])
        )
    if op_of(node) in PASSED_ON:
        return _entries(graph, node.inputs[0], depth + 1)
    if op_of(node) == "Concat":
        parts = [_entries(graph, t, depth + 1) for t in node.inputs]
        return None if any(p is None for p in parts) else [e for p in parts if p is not None for e in p]
    if op_of(node) in ("Gather", "Slice"):
        return _picked(graph, node, depth)
    kind = graph.types.get(tensor.name)
    if kind is not None and kind.shape is not None and all(isinstance(d, int) for d in kind.shape):
        return [None] * int(np.prod([d for d in kind.shape if isinstance(d, int)]))
    return None


def _picked(graph: Graph, node: gs.Node, depth: int) -> list[Dim] | None:
    source = _entries(graph, node.inputs[0], depth + 1)
    view = graph.view(node)
    if source is None:
        return None
    if op_of(node) == "Gather":
        indices = view.constant(1)
        return None if indices is None else [source[int(i)] for i in np.asarray(indices).reshape(-1)]
    starts, ends = view.ints("starts", 1), view.ints("ends", 2)
    steps = view.ints("steps", 4) if view.has_input(4) else [1]
    if not starts or not ends or not steps:
        return None
    return source[starts[0] : ends[0] : steps[0]]
