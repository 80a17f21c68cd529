"""Element types and shapes of all tensors, by ONNX's shape inference without the large weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import shape_inference

Dim = int | str | None
SMALL = 1024
"""Initializers up to this many entries keep their values: they may be target shapes."""


@dataclass(frozen=True)
class Kind:
    """Element type and shape; None for what is not known."""

    dtype: np.dtype[Any] | None
    shape: tuple[Dim, ...] | None


def infer_kinds(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[Any]] | None = None,
    known: Mapping[str, Kind] | None = None,
) -> dict[str, Kind]:
    """Types of all tensors of the main graph, valid for every size that the model's inputs admit.

    Shapes that the file states for intermediate tensors and outputs are not believed.

    Args:
        model: The model.
        nodes: Its nodes in execution order.
        constants: Values of tensors that are computed from constants alone; their nodes are left out.
        known: Types that were found otherwise.
    """
    bare = onnx.ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    bare.functions.extend(model.functions)
    graph, target = model.graph, bare.graph
    target.name = graph.name or "graph"
    values = constants or {}
    target.node.extend(node for node in nodes if not node.output or node.output[0] not in values)
    weights = {tensor.name for tensor in graph.initializer}
    target.input.extend(value for value in graph.input if value.name not in weights)
    for value in graph.output:
        output = target.output.add(name=value.name)
        output.type.CopyFrom(value.type)
        output.type.tensor_type.ClearField("shape")
    stored = [*graph.initializer]
    stored += [onnx.numpy_helper.from_array(v, n) for n, v in values.items() if n not in weights and v.size <= SMALL]
    for tensor in stored:
        if int(np.prod(tensor.dims)) <= SMALL:
            target.initializer.append(tensor)
        else:
            target.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    for name, kind in (known or {}).items():
        if kind.dtype is not None:
            code = onnx.helper.np_dtype_to_tensor_dtype(kind.dtype)
            target.value_info.append(onnx.helper.make_tensor_value_info(name, code, kind.shape))
    try:
        found = shape_inference.infer_shapes(bare, data_prop=True).graph
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        found = target
    return {value.name: _kind(value) for value in [*found.value_info, *found.input, *found.output]}


def _kind(value: onnx.ValueInfoProto) -> Kind:
    if not value.type.HasField("tensor_type"):
        return Kind(None, None)
    tensor = value.type.tensor_type
    shape: tuple[Dim, ...] | None = None
    if tensor.HasField("shape"):
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else (dim.dim_param or None)
            for dim in tensor.shape.dim
        )
    try:
        return Kind(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape)
    except KeyError:
        return Kind(None, shape)
