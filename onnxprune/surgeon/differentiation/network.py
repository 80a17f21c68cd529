"""A graph as it is differentiated: at one sample, some initializers vary, everything that does not is a constant."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnxprune.graph.evaluate import evaluate
from onnxprune.graph.graph import Graph
from onnxprune.graph.types import infer_types
from onnxprune.operators import NodeView, TensorType, op_of
from onnxprune.operators.base import UNKNOWN
from onnxprune.operators.static import FLOATS, static
from onnxprune.operators.tape import Sizes

RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomUniform"})
"""Operators that are no functions."""


class View(NodeView):
    """A node whose constants are known by name; initializers that vary are none."""

    def __init__(self, base: NodeView, known: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(base.node, base.types, base.opset)
        self._known = known

    def constant(self, index: int) -> NDArray[Any] | None:
        """Values of an input that does not vary, or None."""
        return self._known.get(self.input(index)) if self.has_input(index) else None

    def is_constant(self, index: int) -> bool:
        """Whether an input does not vary."""
        return self.constant(index) is not None


class Network:
    """The nodes that depend on inputs or on varying initializers, for a batch of one sample.

    Args:
        graph: The graph; not changed.
        weights: Initializers that vary, by their names in the file.
    """

    def __init__(self, graph: Graph, weights: Set[str]) -> None:
        self.graph = graph
        self.inputs: tuple[str, ...] = tuple(value.name for value in graph.inputs)
        shapes = {name: kind.shape for name, kind in graph.types.items() if name in self.inputs}
        self.batched: frozenset[str] = frozenset(
            name for name, shape in shapes.items() if shape and not isinstance(shape[0], int)
        )
        """Inputs with an open batch size."""
        self._types = graph.types_at(dict.fromkeys(self.batched, (1,)))
        self.weights: dict[str, str] = {}
        """Names in the file of the varying initializers, by their names in the graph."""
        self.known: dict[str, NDArray[Any]] = {}
        """Constants by name."""
        for name, constant in graph.constants().items():
            if graph.stored_name(name) in weights:
                self.weights[name] = graph.stored_name(name)
            else:
                self.known[name] = np.asarray(constant.values)
        self.nodes: list[View] = []
        """What varies, in order."""
        for node in graph.nodes:
            view = View(NodeView(node, self._types, graph.opset), self.known)
            self.complete(view)
            if not self._folded(view):
                self.nodes.append(view)

    def _folded(self, view: View) -> bool:
        """Whether the node's outputs are constants, which are noted."""
        if op_of(view.node) == "Shape":
            sizes = self.shape(view.input(0))
            if sizes is not None:
                span = slice(int(view.attr("start", 0)), view.attr("end"))
                self.known[view.output()] = np.array(sizes[span], np.int64)
                return True
        given = [index for index in range(view.n_inputs) if view.has_input(index)]
        if any(view.constant(index) is None for index in given) or view.op in RANDOM or view.n_outputs != 1:
            return False
        inputs = [gs.Constant(t.name, view.constant(k)) if t.name else t for k, t in enumerate(view.node.inputs)]
        lone = gs.Node(view.op, view.node.name, view.node.attrs, inputs, [gs.Variable(view.output())], view.node.domain)
        values = evaluate(lone, view.opset)
        if values is not None:
            self.known[view.output()] = values
        return values is not None

    def shape(self, name: str) -> Sizes | None:
        """Shape of a tensor at one sample, None where a size is open."""
        values = self.known.get(name)
        return static(self._types.get(name, UNKNOWN).shape) if values is None else values.shape

    def dtype(self, name: str) -> np.dtype[Any] | None:
        """Element type of a tensor."""
        return self._types.get(name, UNKNOWN).dtype

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floating-point numbers."""
        dtype = self.dtype(name)
        return dtype is not None and dtype.name in FLOATS

    def note(self, name: str, shape: Sizes) -> None:
        """The shape of a float tensor of which shape inference knows nothing."""
        self._types[name] = TensorType(np.dtype(np.float32), shape)

    def complete(self, node: View) -> None:
        """Infer the types of a node's outputs, where inference gave up on something in front of it."""
        unknown = [k for k in range(node.n_outputs) if node.output(k) and self.shape(node.output(k)) is None]
        if not unknown:
            return
        proto = OnnxExporter.export_node(node.node)
        inputs, constants = [], []
        for slot in range(node.n_inputs):
            values, name = node.constant(slot), node.input(slot)
            if values is not None:
                constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))
            elif node.has_input(slot) and (dtype := self.dtype(name)) is not None:
                kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
                inputs.append(onnx.helper.make_tensor_value_info(name, kind, self.shape(name)))
        outputs = [onnx.helper.make_empty_tensor_value_info(node.output(k)) for k in unknown]
        graph = onnx.helper.make_graph([proto], "node", inputs, outputs, constants)
        imports = [onnx.helper.make_opsetid("", node.opset)]
        found = infer_types(onnx.helper.make_model(graph, opset_imports=imports, ir_version=8))
        self._types |= {node.output(k): found[node.output(k)] for k in unknown if node.output(k) in found}

    def varies_with_samples(self, name: str) -> bool:
        """Whether a graph input is given for each sample: all are, unless only others have an open batch size."""
        return name in self.batched or not self.batched
