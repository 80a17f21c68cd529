"""A layer with constant weights, the activation behind it, and the layers that alone read it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.bounds import Bounds
from onnxprune.graph.graph import Graph
from onnxprune.operators import Interval, activation, op_of, operator_for, smooth_activation
from onnxprune.operators.elementwise import Elementwise
from onnxprune.operators.interval import Array
from onnxprune.operators.linear import LinearLayer, linear_layer

PRECISE = 1e-5
"""Largest deviation accepted, output by output, as a share of what the rewritten units can contribute to it."""
LAYERS = ("Gemm", "MatMul", "Conv")
ACTIVATIONS = frozenset(
    op for family in (activation, smooth_activation) for cls in family.OPERATORS for op in cls.op_types
)


@dataclass(frozen=True)
class Chain:
    """A layer (without groups, its bias constant), its activation, and all that reads it: such layers, too."""

    layer: LinearLayer
    activation: gs.Node | None
    straight: tuple[float, float]
    """Where the activation is the identity."""
    readers: tuple[LinearLayer, ...]

    def active(self, bounds: Bounds) -> NDArray[np.bool_]:
        """Which units the activation hands on unchanged wherever the bounds hold."""
        low, high = bounds.channel(*self.layer.writes, self.layer.n_out)
        return np.asarray((low >= self.straight[0]) & (high <= self.straight[1]))


def find_chain(graph: Graph, node: gs.Node) -> Chain | None:
    """The chain that starts at a node; None where anything else reads what lies between."""
    layer = _plain(graph, node)
    if layer is None:
        return None
    tensor, behind = layer.node.outputs[0], None
    straight = _identity_range(graph, tensor)
    if straight is not None:
        if not _private(graph, tensor):
            return None
        behind = tensor.outputs[0]
        tensor = behind.outputs[0]
    readers = [_plain(graph, reader) for reader in tensor.outputs]
    good = [reader for reader in readers if reader is not None and _reads_units(reader, layer, tensor)]
    if not good or len(good) < len(readers) or not _private(graph, tensor):
        return None
    return Chain(layer, behind, straight or (-np.inf, np.inf), tuple(good))


def _plain(graph: Graph, node: gs.Node) -> LinearLayer | None:
    if op_of(node) not in LAYERS:
        return None
    layer = linear_layer(graph.view(node))
    return layer if layer is not None and layer.groups == 1 and layer.bias is not None else None


def _reads_units(reader: LinearLayer, layer: LinearLayer, tensor: gs.Tensor) -> bool:
    once = reader.node.inputs[0] is tensor and sum(t is tensor for t in reader.node.inputs) == 1
    return once and reader.in_axis == layer.out_axis and reader.n_in == layer.n_out


def _private(graph: Graph, tensor: gs.Tensor) -> bool:
    return tensor.name not in graph.output_names and tensor.name not in graph.captured


def _identity_range(graph: Graph, tensor: gs.Tensor) -> tuple[float, float] | None:
    """Where the activation that alone reads a tensor is the identity; None where there is none."""
    node = tensor.outputs[0] if len(tensor.outputs) == 1 else None
    if node is None or node.inputs[0] is not tensor or len([t for t in node.outputs if t.name]) != 1:
        return None
    operator = operator_for(str(node.op), node.domain)
    if op_of(node) not in ACTIVATIONS or not isinstance(operator, Elementwise):
        return None
    return operator.identity_on(graph.view(node))


def input_box(bounds: Bounds, layer: LinearLayer) -> Interval:
    """Bounds of what a layer multiplies by its weights, one per input channel and tap; padding counts."""
    low, high = bounds.channel(*layer.reads, layer.n_in)
    if not layer.uniform:
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    taps = int(layer.weights.shape[2])
    return Interval.of(np.repeat(low, taps), np.repeat(high, taps))


def stored(values: Array, layer: LinearLayer) -> Array:
    """Weights as the layer will have them after rounding to its element type."""
    return (values / _alpha(layer)).astype(weight_type(layer)).astype(np.float64) * _alpha(layer)


def weight_type(layer: LinearLayer) -> np.dtype[np.float32]:
    """Element type of a layer's weights."""
    return np.asarray(layer.node.inputs[1].values).dtype


def write(graph: Graph, layer: LinearLayer, axis: int | None, places: NDArray[np.int64], values: Array) -> None:
    """Overwrite some indices of an axis of a weight tensor; ``values`` has that axis first."""
    weights = graph.own(layer.node, 1)
    raw = np.array(weights.values)
    wide = np.moveaxis(raw, axis or 0, 0)
    wide[places] = (values / _alpha(layer)).reshape(len(places), *wide.shape[1:]).astype(raw.dtype)
    graph.set_values(weights, raw)


def replace_weights(graph: Graph, layer: LinearLayer, values: Array) -> None:
    """Give a layer other weights, shape (out, in, ...): Gemm and MatMul in the orientation they had."""
    weights = graph.own(layer.node, 1)
    dtype = weight_type(layer)
    raw = (values / _alpha(layer)).astype(dtype)
    graph.set_values(weights, raw if layer.weight_out == 0 else np.ascontiguousarray(raw.T))


def _alpha(layer: LinearLayer) -> float:
    return float(layer.node.attrs.get("alpha", 1.0)) if op_of(layer.node) == "Gemm" else 1.0


def has_bias(layer: LinearLayer) -> bool:
    """Whether a layer has a bias of its own (one that is an input of its node)."""
    return len(layer.node.inputs) > 2 and bool(layer.node.inputs[2].name)
