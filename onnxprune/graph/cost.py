"""Size and work of a model: nodes, parameters, multiply-adds, bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import onnx

from onnxprune.graph.types import infer_types
from onnxprune.operators import Shape
from onnxprune.protobuf import byte_size


@dataclass
class Cost:
    """What a model costs; ``latency_ms`` is None until measured."""

    nodes: int
    params: int
    macs: int
    bytes: int
    latency_ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def cost(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> Cost:
    """Cost of a model at the given input shapes.

    Parameters are entries of floating-point initializers and Constant nodes. Multiply-adds are those of Conv,
    ConvTranspose, Gemm and MatMul in the main graph; layers whose shapes stay unknown count as 0.
    """
    floats = (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    )
    nodes = [node for node in model.graph.node if node.op_type == "Constant"]
    constants = [a.t for node in nodes for a in node.attribute if a.HasField("t")]
    params = sum(prod(t.dims) for t in (*model.graph.initializer, *constants) if t.data_type in floats)
    return Cost(len(model.graph.node), params, macs(model, shapes), byte_size(model))


def macs(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-adds of the layers with weights at the given input shapes."""
    types = infer_types(model, shapes)
    found = {name: kind.shape for name, kind in types.items()}
    return sum(_node_macs(node, found) for node in model.graph.node)


def _node_macs(node: onnx.NodeProto, shapes: Mapping[str, Shape | None]) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
        return 0
    x, w, y = (_static(shapes.get(name)) for name in (node.input[0], node.input[1], node.output[0]))
    if x is None or w is None or y is None:
        return 0
    if node.op_type == "Conv":
        return prod(y) * prod(w[1:])
    if node.op_type == "ConvTranspose":
        return prod(x) * prod(w[1:])
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return prod(y) * (x[0] if transposed else x[1])
    return prod(y) * x[-1]


def _static(shape: Shape | None) -> tuple[int, ...] | None:
    sizes = tuple(d for d in shape or () if isinstance(d, int))
    return sizes if shape is not None and len(sizes) == len(shape) else None
