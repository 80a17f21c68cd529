"""How far a small change of some tensors can move the outputs of a graph: Lipschitz constants, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.bounds.interval import Bounds
from onnxprune.graph.graph import Graph
from onnxprune.operators.linear import linear_layer

SLACK = 1 + 1e-9
"""Covers the rounding of the few float64 operations per node."""

UNIT = (
    "Abs Add AveragePool Clip Concat Expand Flatten Gather GlobalAveragePool GlobalMaxPool Identity Max "
    "MaxPool Mean Min Neg Pad ReduceMax ReduceMean ReduceMin Relu Reshape Slice Softmax Softplus Softsign "
    "Split Squeeze Sub Sum Tanh Tile Transpose Unsqueeze"
).split()

LIPSCHITZ = {
    **dict.fromkeys(UNIT, 1.0),
    "Sigmoid": 0.25,
    "Erf": 1.13,
    "Gelu": 1.13,
    "HardSwish": 1.5,
    "Mish": 1.1,
}
"""Largest change of an entry per unit of change of one operand, in the maximum norm."""

SUMS = ("Add", "Sub", "Sum")


def carry(graph: Graph, seeds: Mapping[str, float], bounds: Bounds) -> float:
    """Largest change of any output entry, see :func:`changes`."""
    change = changes(graph, seeds, bounds)
    return max((change.get(name, 0.0) for name in graph.output_names), default=0.0)


def changes(graph: Graph, seeds: Mapping[str, float], bounds: Bounds) -> dict[str, float]:
    """Largest change of the entries of every tensor when those of ``seeds`` change by at most the given amounts.

    Args:
        graph: The graph.
        seeds: Bound on the change of every entry, by tensor name.
        bounds: Bounds on the tensors (products need them).

    Returns:
        Proved bounds in real arithmetic, ``inf`` behind an operator without a known constant; tensors that do
        not change are left out.
    """
    change = {name: amount for name, amount in seeds.items() if amount > 0}
    for node in graph.nodes:
        incoming = [change.get(t.name, 0.0) for t in node.inputs]
        moved = _moved(graph, node, incoming, bounds) if any(incoming) else 0.0
        if any(isinstance(value, gs.Graph) for value in node.attrs.values()) and graph.captured & change.keys():
            moved = math.inf
        for tensor in node.outputs:
            total = (moved + seeds.get(tensor.name, 0.0)) * SLACK
            if total > 0:
                change[tensor.name] = total
    return change


def _moved(graph: Graph, node: gs.Node, incoming: list[float], bounds: Bounds) -> float:
    if (node.domain or "") not in ("", "ai.onnx"):
        return math.inf
    layer = linear_layer(graph.view(node))
    if layer is not None:
        if any(incoming[1:]):
            return math.inf
        return float(np.abs(layer.weights).sum(axis=(1, 2)).max()) * incoming[0]
    if node.op in LIPSCHITZ:
        total = sum(incoming) if node.op in SUMS else max(incoming)
        return LIPSCHITZ[node.op] * total
    if node.op in ("LeakyRelu", "Elu"):
        return max(1.0, abs(float(node.attrs.get("alpha", 1.0)))) * incoming[0]
    if node.op == "Selu":
        alpha, gain = float(node.attrs.get("alpha", 1.6733)), float(node.attrs.get("gamma", 1.0508))
        return abs(gain) * max(1.0, abs(alpha)) * incoming[0]
    if node.op in ("Resize", "Upsample") and str(node.attrs.get("mode", "nearest")) in ("nearest", "linear"):
        return incoming[0]
    if node.op == "Mul" and len(incoming) == 2:
        a, b = (_magnitude(t, bounds) for t in node.inputs)
        return _product(a, incoming[1]) + _product(b, incoming[0]) + incoming[0] * incoming[1]
    if node.op == "Div" and isinstance(node.inputs[1], gs.Constant) and np.asarray(node.inputs[1].values).all():
        return incoming[0] / float(np.abs(np.asarray(node.inputs[1].values, dtype=np.float64)).min())
    return math.inf


def _magnitude(tensor: gs.Tensor, bounds: Bounds) -> float:
    if isinstance(tensor, gs.Constant):
        return float(np.abs(np.asarray(tensor.values, dtype=np.float64)).max(initial=0.0))
    return float(bounds[tensor.name].magnitude().max())


def _product(size: float, change: float) -> float:
    return size * change if change else 0.0
