"""Which weights can be pruned, which other parameters may follow them, and what each weight costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.bounds.static import StaticGraph
from onnxprune.errors import InputError
from onnxprune.graph.graph import Graph, label
from onnxprune.operators import op_of
from onnxprune.operators.linear import KERNELS, LinearLayer, linear_layer
from onnxprune.surgeon.calibration import Calibration

FOLLOWERS = {
    "Conv": (2,),
    "ConvTranspose": (2,),
    "Gemm": (2,),
    "Add": (0, 1),
    "Mul": (0, 1),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
}
"""Constant inputs that are fitted again after weights went: biases and scales."""


@dataclass(frozen=True)
class Target:
    """A layer whose weights can be pruned.

    Attributes:
        layer: The node's name in reports.
        name: Name of the weight tensor.
        normal: The layer's normal form.
        uses: Multiply-adds of one weight per sample.
    """

    layer: str
    name: str
    normal: LinearLayer
    uses: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight tensor as it is stored."""
        return tuple(np.asarray(self.normal.node.inputs[1].values).shape)

    @property
    def size(self) -> int:
        """Number of weights."""
        return int(np.prod(self.shape))

    @property
    def in_axis(self) -> int:
        """Axis of the weight tensor that runs over input channels (of one group)."""
        if self.normal.node.op in KERNELS:
            return 0 if self.normal.node.op == "ConvTranspose" else 1
        return 1 - self.normal.weight_out if len(self.shape) == 2 else 0

    def normal_of(self, stored: NDArray[Any]) -> NDArray[Any]:
        """An array shaped as the weights, as a matrix of a row per unit: inputs of one group, taps innermost."""
        layer = self.normal
        if layer.node.op == "ConvTranspose":
            ins, outs = stored.shape[0] // layer.groups, stored.shape[1]
            apart = stored.reshape(layer.groups, ins, outs, -1)
            return apart.swapaxes(1, 2).reshape(layer.n_out, -1)
        return (stored if layer.weight_out == 0 else stored.T).reshape(layer.n_out, -1)

    def stored_of(self, normal: NDArray[Any]) -> NDArray[Any]:
        """The inverse of :meth:`normal_of`."""
        layer, shape = self.normal, self.shape
        if layer.node.op == "ConvTranspose":
            ins, outs = shape[0] // layer.groups, shape[1]
            return normal.reshape(layer.groups, outs, ins, -1).swapaxes(1, 2).reshape(shape)
        return normal.reshape(shape) if layer.weight_out == 0 else np.ascontiguousarray(normal.T).reshape(shape)


@dataclass(frozen=True)
class Parameters:
    """What a surgeon may change in a model.

    Attributes:
        targets: Layers with weights to prune.
        followers: Names of biases and scales that are fitted again.
        taps: Tensors that should stay as they were (what the layers read, and the outputs), with their entries
            per sample.
        outputs: Those of them that stand for the outputs (what enters a final Softmax or Sigmoid).
        refused: Layers that stay as they are, and why.
    """

    targets: tuple[Target, ...]
    followers: tuple[str, ...]
    taps: dict[str, int]
    outputs: tuple[str, ...]
    refused: dict[str, str]

    @property
    def total(self) -> int:
        """Number of weights that can be pruned."""
        return sum(target.size for target in self.targets)


def working_model(model: onnx.ModelProto, data: Calibration) -> onnx.ModelProto:
    """The model for samples of the calibration data's shape: every size but the batch is fixed."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    stored = {tensor.name for tensor in fixed.graph.initializer}
    for value in fixed.graph.input:
        if value.name in stored:
            continue
        dims = value.type.tensor_type.shape.dim
        sizes = data.inputs[value.name].shape[1:]
        if len(dims) != len(sizes) + 1:
            del dims[:]
            dims.add()
            for _ in sizes:
                dims.add()
        if dims[0].dim_value != 1:
            dims[0].dim_param = "batch"
        for dim, size in zip(dims[1:], sizes, strict=True):
            dim.dim_value = size
    del fixed.graph.value_info[:]
    return fixed


def parameters(graph: Graph, keep: Sequence[str]) -> Parameters:
    """Find the weights that can be pruned.

    Args:
        graph: The tidied graph of :func:`working_model`.
        keep: Names of layers that stay as they are.

    Raises:
        InputError: ``keep`` names no layer.
    """
    static = StaticGraph(graph)
    targets, refused = [], {}
    shared = _shared(graph)
    for node in graph.nodes:
        layer = linear_layer(graph.view(node))
        if layer is None:
            continue
        name, size = label(node), static.size(node.outputs[0].name)
        if name in keep:
            refused[name] = "asked to stay"
        elif node.inputs[1].name in shared:
            refused[name] = "its weights are shared with another layer"
        elif size is None:
            refused[name] = "the size of its output is not known"
        else:
            targets.append(Target(name, node.inputs[1].name, layer, size // layer.n_out))
    unknown = sorted(set(keep) - refused.keys())
    if unknown:
        raise InputError(
            f"--keep names no layer with weights: {', '.join(unknown)}.",
            hint=f"Layers: {', '.join(t.layer for t in targets[:8])}, ...",
        )
    pruned = {target.name for target in targets}
    outputs = _outputs(graph)
    read = [t.normal.reads[0] for t in targets if t.normal.reads[0] not in static.inputs]
    taps = {name: static.size(name) or 0 for name in (*read, *outputs)}
    return Parameters(tuple(targets), _followers(graph, pruned), taps, outputs, refused)


def _shared(graph: Graph) -> set[str]:
    """Constants that hold the very array of another one."""
    by_array: dict[int, list[str]] = {}
    for name, constant in graph.constants().items():
        by_array.setdefault(id(constant.values), []).append(name)
    return {name for names in by_array.values() if len(names) > 1 for name in names}


def _followers(graph: Graph, pruned: set[str]) -> tuple[str, ...]:
    found = []
    for node in graph.nodes:
        for slot in FOLLOWERS.get(op_of(node), ()):
            tensor = node.inputs[slot] if slot < len(node.inputs) else None
            if not isinstance(tensor, gs.Constant) or tensor.name in pruned:
                continue
            values = np.asarray(tensor.values)
            if values.dtype.kind == "f" and values.size > 1:
                found.append(tensor.name)
    return tuple(dict.fromkeys(found))


def _outputs(graph: Graph) -> tuple[str, ...]:
    """The floating-point outputs; what enters a final Softmax or Sigmoid in its place: it says more."""
    producers = {tensor.name: node for node in graph.nodes for tensor in node.outputs}
    found = []
    for name in graph.output_names:
        node = producers.get(name)
        kind = graph.types.get(name)
        if node is None or kind is None or kind.dtype is None or kind.dtype.kind != "f":
            continue
        final = op_of(node) in ("Softmax", "LogSoftmax", "Sigmoid")
        found.append(str(node.inputs[0].name) if final else name)
    return tuple(dict.fromkeys(found))
