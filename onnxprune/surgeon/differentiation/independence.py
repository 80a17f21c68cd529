"""Whether a graph with an open batch size gives its samples what each would get by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.graph.graph import Graph
from onnxprune.runtime import Runner
from onnxprune.surgeon.differentiation.network import Network

Arrays = dict[str, NDArray[Any]]
TOLERANCE = 1e-3
"""Relative to the largest entry; samples that meet change far more."""


def check_independence(network: Network, taps: Sequence[str], forward: Callable[[Arrays], Arrays]) -> None:
    """Compare a batch of two random samples with the same samples one by one.

    A graph that ONNX Runtime does not run for a batch of two is taken for one sample at a time only, and passes.

    Args:
        network: The graph at one sample.
        taps: Tensors to compare.
        forward: Computes them sample by sample.

    Raises:
        InputError: They differ.
    """
    if not network.batched:
        return
    rng = np.random.default_rng(0)
    feeds = {name: _random(network, name, rng) for name in network.inputs}
    try:
        whole = Runner(_model(network.graph, taps), threads=1).run(feeds)
    except EnvironmentFailure:
        return
    for tap, each in forward(feeds).items():
        if not _equal(np.asarray(whole[taps.index(tap)]), each, network.shape(tap) or ()):
            raise InputError(
                f"Tensor '{tap}' mixes the samples of a batch: it differs when they are run one by one.",
                hint="Fix the batch size of the model at 1 if samples are to be run by themselves.",
            )


def _random(network: Network, name: str, rng: np.random.Generator) -> NDArray[Any]:
    shape, dtype = network.shape(name) or (), network.dtype(name)
    shape = (2, *shape[1:]) if name in network.batched else shape
    return (rng.normal(size=shape) if network.is_float(name) else rng.integers(0, 2, shape)).astype(dtype)


def _model(graph: Graph, taps: Sequence[str]) -> onnx.ModelProto:
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(c.values).reshape(np.shape(c.values)), name)
        for name, c in graph.constants().items()
    ]
    nodes = [OnnxExporter.export_node(node) for node in graph.nodes]
    outputs = [helper.make_empty_tensor_value_info(tap) for tap in taps]
    found = helper.make_graph(nodes, "batch", graph.inputs, outputs, constants)
    domains = {node.domain for node in nodes} - {"", "ai.onnx"}
    imports = [helper.make_opsetid("", graph.opset), *(helper.make_opsetid(domain, 1) for domain in sorted(domains))]
    return helper.make_model(found, opset_imports=imports, ir_version=8)


def _equal(whole: NDArray[Any], each: NDArray[Any], shape: Sequence[int]) -> bool:
    """Whether some axis of the whole runs over samples, and its halves are the samples."""
    atol = TOLERANCE * max(float(np.abs(each[np.isfinite(each)]).max(initial=0.0)), 1e-30)
    parts = [np.stack([whole, whole])] if whole.shape == tuple(shape) else []  # the same for all samples
    for axis, size in enumerate(shape):
        if whole.ndim == len(shape) and whole.shape[axis] == 2 * size and whole.size == each.size:
            parts.append(np.stack(np.split(whole, 2, axis=axis)))
    return any(np.allclose(part.reshape(each.shape), each, rtol=0, atol=atol, equal_nan=True) for part in parts)
