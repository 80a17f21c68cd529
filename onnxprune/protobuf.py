"""Sizes of models beyond what protobuf can serialize in one piece."""

from __future__ import annotations

import onnx

LIMIT = 2**31 - 2**20
"""Largest model kept in one piece; protobuf refuses 2 GiB, a little room is left for the wrapping."""


def byte_size(model: onnx.ModelProto) -> int:
    """Serialized size of a model, all its weights included; of one beyond the limit, up to a few bytes."""
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if weights < LIMIT // 2:
        return int(model.ByteSize())
    graph = model.graph
    parts = (graph.node, graph.initializer, graph.input, graph.output, graph.value_info, model.functions)
    return sum(int(part.ByteSize()) for field in parts for part in field)
