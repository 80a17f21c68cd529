"""Size and work of a model file, counted in the same way whichever tool wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

Feeds = Mapping[str, NDArray[Any]]

FLOATS = {
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
}
LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul"}


@dataclass(frozen=True)
class Size:
    """Nodes (Constant nodes aside), entries of floating-point constants, multiply-adds, bytes on disk."""

    nodes: int
    params: int
    macs: int | None
    bytes: int


def size(path: Path, feeds: Feeds | None) -> Size:
    """Size of a model file; multiply-adds are those of one run on ``feeds`` (None without them)."""
    model = onnx.load(path)
    external = {
        entry.value
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = [path, *(path.parent / name for name in external)]
    work = None if feeds is None else macs(model, feeds)
    return Size(count_nodes(model), count_params(model), work, sum(file.stat().st_size for file in files))


def graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and every graph nested in its nodes."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def count_nodes(model: onnx.ModelProto) -> int:
    """Nodes of all graphs but Constant nodes: these are weights that some tools keep elsewhere."""
    return sum(node.op_type != "Constant" for graph in graphs(model) for node in graph.node)


def count_params(model: onnx.ModelProto) -> int:
    """Entries of floating-point initializers and Constant nodes of all graphs."""
    total = 0
    for graph in graphs(model):
        total += sum(prod(t.dims) for t in graph.initializer if t.data_type in FLOATS)
        total += sum(prod(t.values.dims) for t in graph.sparse_initializer if t.values.data_type in FLOATS)
        total += sum(_constant_entries(node) for node in graph.node if node.op_type == "Constant")
    return total


def _constant_entries(node: onnx.NodeProto) -> int:
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.t.data_type in FLOATS:
            return prod(attribute.t.dims)
        if attribute.name == "value_float":
            return 1
        if attribute.name == "value_floats":
            return len(attribute.floats)
    return 0


def macs(model: onnx.ModelProto, feeds: Feeds) -> int | None:
    """Multiply-adds of Conv, ConvTranspose, Gemm and MatMul in the main graph; None when it does not run.

    The sizes are those ONNX Runtime sees: Shape nodes on the layers' inputs and outputs become outputs of a
    copy, so that dynamic shapes need no inference.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    layers = [node for node in probe.graph.node if node.op_type in LAYERS]
    values = sorted({name for node in layers for name in (*node.input[:2], node.output[0])})
    del probe.graph.output[:]
    for index, name in enumerate(values):
        output = f"onnxprune.peers.shape.{index}"
        probe.graph.node.append(onnx.helper.make_node("Shape", [name], [output]))
        probe.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.INT64, None))
    if not values:
        return 0
    try:
        session = open_session(probe.SerializeToString(), optimize=False)
        sizes = session.run(None, feeds_for(session, feeds))
    except Exception:  # onnxruntime raises its own family of plain exceptions
        return None
    shapes = {name: [int(d) for d in dims] for name, dims in zip(values, sizes, strict=True)}
    return sum(_layer_macs(node, shapes) for node in layers)


def _layer_macs(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int:
    x, w, y = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "ConvTranspose":
        return prod(x) * prod(w[1:])
    if "Conv" in node.op_type:
        return prod(y) * prod(w[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(y) * x[-2 if transposed else -1]


def open_session(model: Path | bytes, *, optimize: bool, threads: int = 1) -> Any:
    """A session on the CPU, with ONNX Runtime's graph optimizations on (latency) or off (values)."""
    options = ort.SessionOptions()
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def feeds_for(session: Any, feeds: Feeds) -> dict[str, NDArray[Any]]:
    """The feeds a session asks for; a tool may have dropped an input nothing reads."""
    wanted = {value.name for value in session.get_inputs()}
    return {name: np.asarray(value) for name, value in feeds.items() if name in wanted}


def metadata_kept(original: onnx.ModelProto, result: onnx.ModelProto) -> bool | None:
    """Whether everything a user wrote beside the graph is still there; None when there was nothing.

    Looked at: metadata_props and doc_string of model and graph, the model's domain and version.
    """
    before, after = _metadata(original), _metadata(result)
    return all(after.get(key) == value for key, value in before.items()) if before else None


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    found = {
        "doc_string": model.doc_string,
        "graph.doc_string": model.graph.doc_string,
        "domain": model.domain,
        "model_version": str(model.model_version or ""),
    }
    found |= {f"metadata_props.{p.key}": p.value for p in model.metadata_props}
    found |= {f"graph.metadata_props.{p.key}": p.value for p in model.graph.metadata_props}
    return {key: value for key, value in found.items() if value}
