"""Nodes that act entry by entry, written as text."""

from __future__ import annotations

import math
from decimal import Decimal
from functools import cache

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnxprune.operators import activation, arithmetic, cast, comparison, functions, identity, smooth_activation
from onnxprune.operators.base import NodeView, Operator, TensorType
from onnxprune.operators.interval import Interval

INF = math.inf

ELEMENTWISE: dict[str, Operator] = {
    op: cls()
    for family in (arithmetic, cast, comparison, functions, identity)
    for cls in family.OPERATORS
    for op in cls.op_types
}

ACTIVATIONS: dict[str, Operator] = {
    op: cls() for family in (activation, smooth_activation) for cls in family.OPERATORS for op in cls.op_types
}

CLASSES = ELEMENTWISE | ACTIVATIONS

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534")
box = Interval.of


@cache
def model(body: str, inputs: str, opset: int, constants: str) -> onnx.ModelProto:
    """One node with inferred types and the output y."""
    header = f'<ir_version: 10, opset_import: ["": {opset}]>'
    proto = onnx.parser.parse_model(f"{header} g ({inputs}) => (float y) <{constants}> {{ {body} }}")
    proto.graph.output[0].ClearField("type")
    return onnx.shape_inference.infer_shapes(proto)


def tensor_type(tensor: gs.Tensor) -> TensorType:
    known = tensor.dtype
    dtype = onnx.helper.tensor_dtype_to_np_dtype(known) if isinstance(known, int) else known and np.dtype(known)
    return TensorType(dtype, None if tensor.shape is None else tuple(tensor.shape))


@cache
def view(body: str, inputs: str = "double[N] x", opset: int = 24, constants: str = "") -> NodeView:
    graph = gs.import_onnx(model(body, inputs, opset, constants))
    types = {name: tensor_type(tensor) for name, tensor in graph.tensors().items()}
    return NodeView(graph.nodes[0], types, opset)


def bounds(node: NodeView, *inputs: Interval | None) -> Interval:
    results = CLASSES[node.op].interval(node, inputs)
    assert results is not None
    return results[0]


def ends(interval: Interval) -> tuple[float, float]:
    assert interval.ndim == 0
    return float(interval.lower), float(interval.upper)
