"""Where the entries of a node's outputs come from: the node is run on numbered entries, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxprune.operators.base import NodeView
from onnxprune.operators.tape import Sizes

Index = NDArray[np.int64]
DIGIT = 4096
"""Base in which numbers beyond the whole numbers of float32 are sent through the node, in two parts."""


def entry_maps(node: NodeView, sources: Sequence[int], shapes: Sequence[Sizes]) -> tuple[Index | None, ...] | None:
    """For each output, the number of the source entry at each place.

    Args:
        node: The node; all inputs but the sources are constant.
        sources: Input slots whose entries move.
        shapes: Their shapes.

    Returns:
        Numbers count from 1 through all sources in order, 0 is a constant of the node; None for an omitted
        output, and None at all where ONNX Runtime does not run the node.
    """
    model = _model(node, sources, shapes)
    found = None if model is None else _numbered(model.SerializeToString(deterministic=True), tuple(shapes))
    if found is None:
        return None
    given = iter(found)
    return tuple(next(given) if node.output(k) else None for k in range(node.n_outputs))


def _model(node: NodeView, sources: Sequence[int], shapes: Sequence[Sizes]) -> onnx.ModelProto | None:
    from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter  # noqa: PLC0415 # slow, and rarely needed

    proto = OnnxExporter.export_node(node.node)
    proto.domain = ""
    weights = []
    for slot in range(node.n_inputs):
        if not node.has_input(slot):
            continue
        proto.input[slot] = f"input_{slot}"
        if slot in sources:
            continue
        values = node.constant(slot)
        if values is None:
            return None
        weights.append(numpy_helper.from_array(np.asarray(values), f"input_{slot}"))
    for k in range(node.n_outputs):
        proto.output[k] = f"output_{k}" if node.output(k) else ""
    for attribute in proto.attribute:
        if attribute.name == "value" and attribute.type == onnx.AttributeProto.FLOAT:
            attribute.f = 0.0
    inputs = [
        helper.make_tensor_value_info(f"input_{slot}", TensorProto.FLOAT, shape)
        for slot, shape in zip(sources, shapes, strict=True)
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in proto.output if name]
    graph = helper.make_graph([proto], "entries", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", node.opset)], ir_version=8)


@lru_cache(maxsize=256)
def _numbered(model: bytes, shapes: tuple[Sizes, ...]) -> tuple[Index, ...] | None:
    from onnxprune.errors import EnvironmentFailure  # noqa: PLC0415
    from onnxprune.runtime import Runner  # noqa: PLC0415 # quick start

    proto = onnx.load_from_string(model)
    counts = [prod(shape) for shape in shapes]
    starts = np.cumsum([1, *counts])
    numbers = [np.arange(start, start + n).reshape(s) for start, n, s in zip(starts[:-1], counts, shapes, strict=True)]
    digits = [1] if starts[-1] <= DIGIT**2 else [1, DIGIT]
    results = []
    try:
        runner = Runner(proto, threads=1)
        for digit in digits:
            parts = [number // digit if digit == digits[-1] else number % DIGIT for number in numbers]
            feeds = {v.name: np.asarray(p, np.float32) for v, p in zip(proto.graph.input, parts, strict=True)}
            results.append([np.rint(np.asarray(r)).astype(np.int64) * digit for r in runner.run(feeds)])
    except EnvironmentFailure:
        return None
    return tuple(sum(parts[1:], parts[0]) for parts in zip(*results, strict=True))
