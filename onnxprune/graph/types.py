"""Element types and symbolic shapes of every tensor, by ONNX shape inference without the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

import numpy as np
import onnx
from onnx import shape_inference

from onnxprune.operators import Shape, TensorType

SMALL = 1024
"""Initializers up to this many entries keep their values: they may be target shapes."""


def infer_types(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, TensorType]:
    """Types of all tensors of the main graph, for all sizes it admits or with the inputs at the given shapes.

    Large weights are replaced by inputs of the same type, so that models beyond the 2 GB limit work. What the
    file states about intermediate tensors is used only where inference finds nothing: such notes can be stale.
    """
    skeleton = _skeleton(model)
    for value in skeleton.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, (shapes or {}).get(value.name, ()), strict=False):
            dim.dim_value = size
    try:
        inferred = shape_inference.infer_shapes(skeleton, data_prop=True).graph
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        inferred = skeleton.graph
    types: dict[str, TensorType] = {}
    notes = [] if shapes else model.graph.value_info
    for value in [*notes, *inferred.value_info, *inferred.input, *inferred.output]:
        found = _type_of(value)
        known = types.get(value.name)
        if known is None or found.shape is not None:
            types[value.name] = (
                found if found.dtype is not None or known is None else TensorType(known.dtype, found.shape)
            )
    for tensor in model.graph.initializer:
        types[tensor.name] = TensorType(_dtype(tensor.data_type), tuple(tensor.dims))
    return types


def _skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    skeleton = onnx.ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    for entry in skeleton.opset_import:
        entry.domain = "" if entry.domain == "ai.onnx" else entry.domain
    skeleton.functions.extend(model.functions)
    graph, target = model.graph, skeleton.graph
    target.name = graph.name or "graph"
    target.node.extend(_in_order(graph.node))
    for node in target.node:
        node.domain = "" if node.domain == "ai.onnx" else node.domain
    for output in graph.output:
        # stated output shapes may be those of another input size: only the element type is taken
        value = target.output.add(name=output.name)
        value.type.CopyFrom(output.type)
        value.type.tensor_type.ClearField("shape")
    weights = {tensor.name for tensor in graph.initializer}
    target.input.extend(value for value in graph.input if value.name not in weights)
    for tensor in graph.initializer:
        if int(np.prod(tensor.dims)) <= SMALL:
            target.initializer.append(tensor)
        else:
            target.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return skeleton


def _in_order(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes in execution order: those of the file, or sorted where it has them otherwise."""
    producers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = [{producers[name] for name in node.input if name in producers} for node in nodes]
    if all(before < index for index, needed in enumerate(needs) for before in needed):
        return list(nodes)
    try:
        return [nodes[index] for index in TopologicalSorter(dict(enumerate(needs))).static_order()]
    except CycleError:
        return list(nodes)


def _dtype(data_type: int) -> np.dtype | None:
    try:
        return onnx.helper.tensor_dtype_to_np_dtype(data_type)
    except KeyError:
        return None


def _type_of(value: onnx.ValueInfoProto) -> TensorType:
    if not value.type.HasField("tensor_type"):
        return TensorType(None, None)
    tensor = value.type.tensor_type
    shape: Shape | None = None
    if tensor.HasField("shape"):
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else (dim.dim_param or None)
            for dim in tensor.shape.dim
        )
    return TensorType(_dtype(tensor.elem_type) if tensor.elem_type else None, shape)
