"""The graph that passes rewrite: onnx-graphsurgeon's linked nodes, with everything it would lose kept beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.logger import G_LOGGER

from onnxprune.errors import InputError
from onnxprune.graph.files import standard_opset
from onnxprune.graph.types import infer_types
from onnxprune.graph.writing import NodeOrigin, captured_names, copy_fields, digest, node_proto, tensor_proto
from onnxprune.operators import NodeView, TensorType

G_LOGGER.severity = G_LOGGER.CRITICAL  # its warnings are about what the envelope below takes care of


class Graph:
    """A mutable copy of a model's main graph.

    Unchanged nodes, weights and notes are written back from the original protobuf, so that doc strings,
    metadata, exotic attributes and element types survive. The model passed in is never changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._envelope = model
        try:
            self.surgeon: gs.Graph = gs.import_onnx(model)
        except Exception as error:  # graphsurgeon raises what its parsers happen to raise
            raise InputError(f"The graph cannot be read: {error}", hint="Check it with onnx.checker.") from error
        self.opset: int = standard_opset(model) or 0
        self._origin = {
            id(node): NodeOrigin(node, proto) for node, proto in zip(self.nodes, model.graph.node, strict=True)
        }
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._changed: set[str] = set()
        self._sort()
        self._name_nodes()
        self._loaded = {name: id(constant) for name, constant in self.constants().items()}
        self._family: dict[str, str] = {}
        self._split_shared()
        self.plain_inputs = False
        """Set to drop initializers from the list of graph inputs."""
        self._shapes: dict[str, dict[int, int]] = {}

    @property
    def nodes(self) -> list[gs.Node]:
        """Nodes of the main graph."""
        return self.surgeon.nodes  # type: ignore[no-any-return]

    @property
    def output_names(self) -> list[str]:
        """Names of the graph outputs."""
        return [value.name for value in self._envelope.graph.output]

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """Graph inputs a caller has to feed (initializers left out)."""
        return [value for value in self._envelope.graph.input if value.name not in self._weights]

    @cached_property
    def sparse(self) -> frozenset[str]:
        """Names of initializers that are stored sparse."""
        return frozenset(tensor.values.name for tensor in self._envelope.graph.sparse_initializer)

    @cached_property
    def captured(self) -> frozenset[str]:
        """Names that the bodies of If, Loop and Scan may read from this graph."""
        return frozenset(captured_names(self._envelope.graph.node))

    @cached_property
    def types(self) -> dict[str, TensorType]:
        """Types of all tensors as they were when the graph was made (before any rewrite)."""
        return self.types_at({})

    def types_at(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, TensorType]:
        """As :attr:`types`, with inputs at the given shapes."""
        types = infer_types(self._envelope, shapes)
        return types | {copy: types[name] for copy, name in self._family.items() if name in types}

    def view(self, node: gs.Node) -> NodeView:
        """Read access to a node."""
        return NodeView(node, self.types, self.opset, self.sparse)

    def _sort(self) -> None:
        """ONNX wants nodes in execution order; some files are not, and ONNX Runtime accepts them."""
        known = {t.name for node in self.nodes for t in node.inputs if not t.inputs}
        for node in self.nodes:
            if any(t.name and t.name not in known for t in node.inputs):
                self.surgeon.toposort()
                return
            known.update(t.name for t in node.outputs)

    def _name_nodes(self) -> None:
        """Give every node a name of its own for reports; names in the file stay as they are."""
        taken: set[str] = set()
        for node in self.nodes:
            wish = str(node.name or (node.outputs[0].name if node.outputs else node.op))
            name, number = wish, 0
            while name in taken:
                number += 1
                name = f"{wish}_{number}"
            taken.add(name)
            node.name = name

    def constants(self) -> dict[str, gs.Constant]:
        """Initializers in use, by name."""
        return {tensor.name: tensor for node in self.nodes for tensor in node.inputs if isinstance(tensor, gs.Constant)}

    def stored_name(self, constant: str) -> str:
        """Name of an initializer in the file; copies that readers of a shared one got have names of their own."""
        return self._family.get(constant, constant)

    def _split_shared(self) -> None:
        """Give every reader of a shared initializer a constant of its own (of the same array).

        Claims belong to nodes, so one reader may lose channels that another one keeps. What ends equal is
        shared again when the model is written.
        """
        seen = set(self.captured) | set(self.output_names)
        for node in self.nodes:
            for index, tensor in enumerate(node.inputs):
                if not isinstance(tensor, gs.Constant) or tensor.name in self.sparse:
                    continue
                if tensor.name not in seen:
                    seen.add(tensor.name)
                    continue
                copy = gs.Constant(self.fresh(f"{tensor.name}_{len(self._family)}"), tensor.values)
                self._family[copy.name] = tensor.name
                node.inputs[index] = copy

    def _distinct_names(self) -> None:
        """Rename constants that replaced another one whose name is still in use."""
        owners = dict.fromkeys((t.name for node in self.nodes for t in node.outputs), 0)
        owners |= {value.name: 0 for value in self.inputs}
        for name in self.captured | set(self.output_names):
            if name in self._weights:
                owners[name] = self._loaded.get(name, 0)
        for node in self.nodes:
            for tensor in node.inputs:
                if isinstance(tensor, gs.Constant) and owners.setdefault(tensor.name, id(tensor)) != id(tensor):
                    tensor.name = self.fresh(tensor.name)
                    owners[tensor.name] = id(tensor)

    def share_equal(self) -> int:
        """Let initializers with equal values become one; how many are no longer needed."""
        first: dict[bytes, str] = {}
        saved: set[str] = set()
        for name, constant in self.constants().items():
            source = self._family.get(name, name)
            if source in self.sparse:
                continue
            shared = first.setdefault(digest(constant.values), source)
            if shared != source:
                self._family[name] = shared
                saved.add(source)
        return len(saved - self.captured - set(self.output_names))

    def _share_again(self) -> None:
        """Let copies of a shared initializer with equal values be one initializer once more."""
        constants = self.constants()
        families: dict[str, list[gs.Constant]] = {}
        for copy, name in self._family.items():
            if copy in constants:
                families.setdefault(name, []).append(constants[copy])
        for name, copies in families.items():
            first = constants.get(name)
            values = onnx.numpy_helper.to_array(self._weights[name]) if first is None else first.values
            distinct = {digest(values): name}
            for constant in copies:
                constant.name = distinct.setdefault(digest(constant.values), constant.name)

    def set_values(self, constant: gs.Constant, values: NDArray[Any]) -> None:
        """Give an initializer new values (seen by all its readers)."""
        constant.values = np.array(values)
        self._changed.add(constant.name)

    def own(self, node: gs.Node, index: int) -> gs.Constant:
        """The constant input of a node, cloned first if another node reads it too."""
        constant = node.inputs[index]
        if len(constant.outputs) > 1:
            constant = gs.Constant(self.fresh(f"{constant.name}_{label(node)}"), np.array(constant.values))
            node.inputs[index] = constant
        return constant

    def fresh(self, wish: str) -> str:
        """A tensor name nobody uses yet."""
        used = self._names
        name, number = wish, 0
        while name in used:
            number += 1
            name = f"{wish}_{number}"
        used.add(name)
        return name

    @cached_property
    def _names(self) -> set[str]:
        graph = self._envelope.graph
        names = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
        names |= {name for node in graph.node for name in (*node.input, *node.output)}
        return names | set(self.captured)

    def resized(self, tensor: str, axis: int, size: int) -> None:
        """Note a new size of an intermediate tensor for what the file states about shapes."""
        self._shapes.setdefault(tensor, {})[axis] = size

    def retype(self, tensor: str) -> None:
        """Drop what the file states about an intermediate tensor."""
        self._shapes[tensor] = {}

    def remove_unreachable(self) -> bool:
        """Drop nodes whose outputs nobody uses; True if there were any."""
        needed = set(self.output_names) | self.captured
        keep: list[gs.Node] = []
        for node in reversed(self.nodes):
            if any(t.name in needed for t in node.outputs if t.name):
                keep.append(node)
                needed.update(t.name for t in node.inputs if t.name)
        if len(keep) == len(self.nodes):
            return False
        kept = {id(node) for node in keep}
        for node in list(self.nodes):
            if id(node) not in kept:
                self.detach(node)
        return True

    def detach(self, node: gs.Node) -> None:
        """Take a node out of the graph."""
        node.inputs.clear()
        node.outputs.clear()
        for position, other in enumerate(self.nodes):
            if other is node:
                del self.nodes[position]
                return

    def insert_after(self, anchor: gs.Node, node: gs.Node) -> None:
        """Place a new node right behind another one."""
        position = next(i for i, other in enumerate(self.nodes) if other is anchor)
        self.nodes.insert(position + 1, node)

    def insert_before(self, anchor: gs.Node, node: gs.Node) -> None:
        """Place a new node right in front of another one."""
        position = next(i for i, other in enumerate(self.nodes) if other is anchor)
        self.nodes.insert(position, node)

    def bypass(self, node: gs.Node) -> bool:
        """Remove a node that passes its first input on unchanged; False where names forbid it."""
        source, target = node.inputs[0], node.outputs[0]
        if target.name in self.captured:
            return False
        if target.name in self.output_names:
            here = {id(other) for other in self.nodes}
            movable = (
                not isinstance(source, gs.Constant)
                and len(source.inputs) == 1
                and source.name not in self.output_names
                and source.name not in self.captured
                and all(id(reader) in here for reader in source.outputs)
            )
            if not movable:
                return False
            producer = source.inputs[0]
            for reader in list(source.outputs):
                if reader is not node:
                    _replace_input(reader, source, target)
            self.detach(node)
            slot = next(i for i, t in enumerate(producer.outputs) if t is source)
            producer.outputs[slot] = target
            return True
        for reader in list(target.outputs):
            _replace_input(reader, target, source)
        self.detach(node)
        return True

    @property
    def initializers_as_inputs(self) -> int:
        """How many initializers are also listed as graph inputs (old exports)."""
        return sum(value.name in self._weights for value in self._envelope.graph.input)

    def unused_initializers(self) -> int:
        """How many initializers of the file nothing reads."""
        return len(set(self._weights) - self._used())

    def _used(self) -> set[str]:
        read = {t.name for node in self.nodes for t in node.inputs}
        return read | self.captured | set(self.output_names)

    def to_model(self) -> onnx.ModelProto:
        """Write the graph back into a model that keeps all the rest of the original; the graph is used up."""
        self._sort()
        self._distinct_names()
        self._share_again()
        original = self._envelope.graph
        model = onnx.ModelProto()
        copy_fields(self._envelope, model, skip={"graph"})
        graph = model.graph
        copy_fields(
            original,
            graph,
            skip={
                "node",
                "initializer",
                "sparse_initializer",
                "input",
                "value_info",
                "quantization_annotation",
            },
        )
        graph.node.extend(self._node_proto(node) for node in self.nodes)
        used = self._used()
        constants = self.constants()
        for tensor in original.initializer:
            if tensor.name in used:
                constant = constants.get(tensor.name)
                if constant is None or self._is_as_read(constant, tensor):
                    graph.initializer.append(tensor)
                else:
                    graph.initializer.append(tensor_proto(tensor.name, constant.values, tensor))
        graph.initializer.extend(
            tensor_proto(name, constant.values)
            for name, constant in constants.items()
            if name not in self._weights and name not in self.sparse
        )
        graph.sparse_initializer.extend(t for t in original.sparse_initializer if t.values.name in used)
        graph.input.extend(value for value in original.input if not (self.plain_inputs and value.name in self._weights))
        if self.plain_inputs:
            model.ir_version = max(model.ir_version, 4)
        produced = {name for node in graph.node for name in node.output}
        graph.value_info.extend(self._value_info(original.value_info, produced))
        graph.quantization_annotation.extend(
            note for note in original.quantization_annotation if note.tensor_name in produced | used
        )
        return model

    def _is_as_read(self, constant: gs.Constant, tensor: onnx.TensorProto) -> bool:
        if id(constant) == self._loaded.get(tensor.name):
            return tensor.name not in self._changed
        return digest(constant.values) == digest(onnx.numpy_helper.to_array(tensor))

    def _value_info(self, notes: Iterable[onnx.ValueInfoProto], produced: set[str]) -> Iterator[onnx.ValueInfoProto]:
        for note in notes:
            if note.name not in produced and note.name not in self._weights:
                continue
            sizes = self._shapes.get(note.name)
            if sizes is None:
                if note.name not in self._changed:
                    yield note
                continue
            if not sizes:
                continue
            changed = onnx.ValueInfoProto()
            changed.CopyFrom(note)
            dims = changed.type.tensor_type.shape.dim
            for axis, size in sizes.items():
                if axis < len(dims):
                    dims[axis].dim_value = size
            yield changed

    def _node_proto(self, node: gs.Node) -> onnx.NodeProto:
        origin = self._origin.get(id(node))
        if origin is None:
            return node_proto(node)
        return origin.export()


def _replace_input(reader: gs.Node, old: gs.Tensor, new: gs.Tensor) -> None:
    for index, tensor in enumerate(reader.inputs):
        if tensor is old:
            reader.inputs[index] = new


def label(node: gs.Node) -> str:
    """A name for a node in reports: its own, or that of its first output where it has none."""
    return str(node.name)
