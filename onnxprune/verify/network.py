"""A model as the checker sees it: nodes in order, constants, shapes; read from the protobuf, nothing rewritten."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.verify.reasons import Rejected
from onnxprune.verify.shapes import Dim, Kind, infer_kinds

MOVING = frozenset(
    (
        "Concat ConstantOfShape Expand Flatten Gather Identity Range Reshape Shape Slice Split Squeeze Tile "
        "Transpose Unsqueeze"
    ).split()
)
"""Operators that compute without rounding: their results on constants are constants."""
LARGEST = {"float16": 65504.0, "bfloat16": (2 - 2**-7) * 2.0**127, "float32": (2 - 2**-23) * 2.0**127}
"""Largest finite value by element type."""


@dataclass(frozen=True)
class Node:
    """One node of the main graph.

    Attributes:
        op: The operator, with its domain in front where that is not the standard one.
        attributes: Plain Python values; graphs stay protobufs.
        inputs: Names, "" for an input left out.
        outputs: Names, "" for an output left out.
        captured: Names that bodies of the node read from the main graph.
    """

    op: str
    attributes: Mapping[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: tuple[str, ...] = ()

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def has(self, index: int) -> bool:
        """Whether an input is given."""
        return index < len(self.inputs) and bool(self.inputs[index])

    @cached_property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """The attributes in a form that can be compared."""
        return tuple(sorted((name, _text(value)) for name, value in self.attributes.items()))


@dataclass
class Network:
    """A model's main graph.

    Attributes:
        nodes: In execution order, without those whose results are constants.
        constants: Initializers, Constant nodes, and what is moved around from them.
        inputs: Names that a caller feeds.
        outputs: Names of the graph's outputs.
        kinds: Element type and shape by tensor.
        opset: Version of the standard operators.
    """

    nodes: list[Node]
    constants: dict[str, NDArray[Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kinds: dict[str, Kind]
    opset: int
    readers: dict[str, list[Node]] = field(default_factory=dict)
    producer: dict[str, Node] = field(default_factory=dict)
    sizes: dict[str, list[Dim]] = field(default_factory=dict)
    """What is known of vectors that are computed from shapes."""
    _computed: dict[str, Kind] = field(default_factory=dict)

    @staticmethod
    def of(model: onnx.ModelProto) -> Network:
        """Read a model.

        Raises:
            Rejected: Its nodes cannot be put in order.
        """
        graph = model.graph
        constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        constants |= {s.values.name: _dense(s) for s in graph.sparse_initializer}
        inputs = tuple(value.name for value in graph.input if value.name not in constants)
        opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
        ordered = _in_order(graph.node)
        network = Network(
            [], constants, inputs, tuple(v.name for v in graph.output), infer_kinds(model, ordered), opset
        )
        for proto in ordered:
            network._add(proto, model)
        if network._computed:  # once more, with what is known of computed shapes by now
            network.kinds |= infer_kinds(model, ordered, network.constants, network._computed)
        return network

    def _add(self, proto: onnx.NodeProto, model: onnx.ModelProto) -> None:
        node = _read(proto)
        known = all(name in self.constants for name in node.inputs if name)
        single = len([name for name in node.outputs if name]) == 1
        if node.op == "Constant" and single:
            value = _stored(node)
            if value is not None:
                self.constants[node.outputs[0]] = value
                return
        if node.op == "Shape" and node.has(0):
            sizes = self._sizes(node)
            if sizes is not None:
                self.constants[node.outputs[0]] = sizes
                return
        if known and node.inputs and single and not node.captured and self._moves(node):
            self.constants[node.outputs[0]] = _evaluated(proto, [self.constants.get(n) for n in node.inputs], model)
            return
        self._follow_sizes(node)
        self.nodes.append(node)
        for name in node.outputs:
            self.producer[name] = node
        for name in dict.fromkeys((*node.inputs, *node.captured)):
            self.readers.setdefault(name, []).append(node)

    def _follow_sizes(self, node: Node) -> None:
        """Sizes that a node computes from shapes, and the shape that a computed target gives a tensor."""
        given = [self._whole(name) for name in node.inputs if name]
        output = node.outputs[0] if node.outputs else ""
        if node.op == "Shape" and node.has(0):
            shape = self.shape(node.inputs[0])
            if shape is not None and not node.attributes:
                self.sizes[output] = list(shape)
        elif node.op == "Gather" and len(given) == 2 and given[0] is not None and int(node.get("axis", 0)) == 0:
            places = self.constants.get(node.inputs[1])
            if places is not None and places.size == 1:
                self.sizes[output] = [given[0][int(places.reshape(-1)[0])]]
        elif node.op in ("Unsqueeze", "Squeeze", "Cast", "Identity") and given and given[0] is not None:
            self.sizes[output] = given[0]
        elif node.op == "Concat" and all(part is not None for part in given):
            self.sizes[output] = [size for part in given if part is not None for size in part]
        elif node.op == "Reshape" and len(given) == 2 and given[1] is not None and self.sample(output) is None:
            shape = _target(self.shape(node.inputs[0]), given[1])
            kind = self.kinds.get(node.inputs[0])
            if shape is not None and kind is not None:
                self.kinds[output] = self._computed[output] = Kind(kind.dtype, shape)

    def _whole(self, name: str) -> list[Dim] | None:
        """Entries of a vector of sizes."""
        values = self.constants.get(name)
        if values is not None and values.dtype.kind in "iu" and values.ndim <= 1:
            return [int(v) for v in values.reshape(-1)]
        return self.sizes.get(name)

    def _moves(self, node: Node) -> bool:
        kind = self.kinds.get(node.outputs[0])
        whole = kind is not None and kind.dtype is not None and kind.dtype.kind in "iub"
        whole = whole or (node.op == "Cast" and int(node.get("to", 0)) in (6, 7))
        floats = [self.constants[n].dtype.kind for n in node.inputs if n]
        return node.op in MOVING or (whole and all(k in "iub" for k in floats) and ":" not in node.op)

    def _sizes(self, node: Node) -> NDArray[np.int64] | None:
        name = node.inputs[0]
        shape = self.constants[name].shape if name in self.constants else self.shape(name)
        if shape is None:
            return None
        end = node.attributes.get("end")
        sizes = list(shape)[int(node.get("start", 0)) : None if end is None else int(end)]
        return np.array(sizes, dtype=np.int64) if all(isinstance(s, int) for s in sizes) else None

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """Shape of a tensor: whole numbers, names of open sizes, None for sizes that nothing is known of."""
        if name in self.constants:
            return tuple(self.constants[name].shape)
        kind = self.kinds.get(name)
        return None if kind is None else kind.shape

    def sample(self, name: str) -> tuple[int, ...] | None:
        """Shape of one sample of the batch: an open first size counts as 1; None where another size is open."""
        shape = self.shape(name)
        if shape is None:
            return None
        sizes = [1 if axis == 0 and not isinstance(size, int) else size for axis, size in enumerate(shape)]
        return tuple(s for s in sizes if isinstance(s, int)) if all(isinstance(s, int) for s in sizes) else None

    def size(self, name: str, axis: int) -> int | None:
        """Number of indices of an axis; None where open."""
        shape = self.shape(name)
        size = shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
        return size if isinstance(size, int) else None

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floating-point numbers."""
        if name in self.constants:
            return self.constants[name].dtype.kind in "fV"
        kind = self.kinds.get(name)
        return kind is not None and kind.dtype is not None and kind.dtype.kind in "fV"

    def largest(self, name: str) -> tuple[float, float]:
        """Smallest and largest finite value of a tensor's element type."""
        kind = self.kinds.get(name)
        dtype = None if kind is None else kind.dtype
        if dtype is not None and dtype.kind in "iu":
            return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
        if dtype is not None and dtype.kind == "b":
            return 0.0, 1.0
        most = LARGEST.get(dtype.name, float(np.finfo(np.float64).max)) if dtype is not None else None
        most = float(np.finfo(np.float64).max) if most is None else most
        return -most, most


def _target(shape: tuple[Dim, ...] | None, wanted: list[Dim]) -> tuple[Dim, ...] | None:
    """The shape that Reshape gives: one -1 at most, and no zeros; None where it is not known."""
    if shape is None or None in wanted or wanted.count(-1) > 1:
        return None
    if any(size == 0 and place >= len(shape) for place, size in enumerate(wanted)):
        return None
    wanted = [shape[place] if size == 0 else size for place, size in enumerate(wanted)]
    if -1 not in wanted:
        return tuple(wanted)
    open_sizes = [s for s in shape if not isinstance(s, int)]
    for size in (s for s in wanted if not isinstance(s, int)):
        if size not in open_sizes:
            return None
        open_sizes.remove(size)
    if open_sizes:
        return None
    total, known = (math.prod(s for s in sizes if isinstance(s, int)) for sizes in (shape, wanted))
    return tuple(total // -known if s == -1 else s for s in wanted) if known and total % known == 0 else None


def digest(values: NDArray[Any]) -> str:
    """Short text that is equal only for equal constants."""
    array = np.ascontiguousarray(values)
    head = f"{array.dtype.name}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def _read(proto: onnx.NodeProto) -> Node:
    attributes = {a.name: _value(a) for a in proto.attribute}
    bodies = [value for value in attributes.values() if isinstance(value, onnx.GraphProto)]
    captured = tuple(sorted({name for body in bodies for name in _captured(body)}))
    domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}:"
    return Node(domain + proto.op_type, attributes, tuple(proto.input), tuple(proto.output), captured)


def _value(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, onnx.GraphProto):
        return value
    return list(value) if isinstance(value, Sequence) or hasattr(value, "__iter__") else value


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return digest(value)
    if hasattr(value, "SerializeToString"):
        return hashlib.sha256(value.SerializeToString(deterministic=True)).hexdigest()
    if isinstance(value, list):
        return ",".join(_text(part) for part in value)
    return repr(value)


def _captured(body: onnx.GraphProto) -> Iterator[str]:
    made = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    for node in body.node:
        yield from (name for name in node.input if name and name not in made)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from (name for name in _captured(attribute.g) if name not in made)
        made.update(node.output)
    yield from (value.name for value in body.output if value.name not in made)


def _in_order(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    producers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = {}
    for index, node in enumerate(nodes):
        bodies = [a.g for a in node.attribute if a.HasField("g")]
        names = [*node.input, *(name for body in bodies for name in _captured(body))]
        needs[index] = {producers[name] for name in names if name in producers}
    if all(before < index for index, needed in needs.items() for before in needed):
        return list(nodes)
    try:
        return [nodes[index] for index in TopologicalSorter(needs).static_order()]
    except CycleError:
        raise Rejected("the graph of a model has a cycle") from None


def _stored(node: Node) -> NDArray[Any] | None:
    if "value" in node.attributes:
        return np.asarray(node.attributes["value"])
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        for key in (name, f"{name}s"):
            if key in node.attributes:
                return np.asarray(node.attributes[key], dtype=dtype)
    return None


def _dense(sparse: onnx.SparseTensorProto) -> NDArray[Any]:
    values, places = onnx.numpy_helper.to_array(sparse.values), onnx.numpy_helper.to_array(sparse.indices)
    result = np.zeros(tuple(sparse.dims), values.dtype)
    if places.ndim == 1:
        result.reshape(-1)[places] = values
    else:
        result[tuple(places.T)] = values
    return result


def _evaluated(proto: onnx.NodeProto, inputs: Sequence[NDArray[Any] | None], model: onnx.ModelProto) -> NDArray[Any]:
    """Value of a node that only moves constants, by ONNX's own reference implementation."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 # slow to import, rarely needed

    given = {name: value for name, value in zip(proto.input, inputs, strict=True) if value is not None}
    kinds = [onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
             for n, v in given.items()]  # fmt: skip
    made = [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output if name]
    graph = onnx.helper.make_graph([proto], "constant", kinds, made)
    single = onnx.helper.make_model(graph, opset_imports=list(model.opset_import))
    results: Any = ReferenceEvaluator(single).run(None, given)
    return np.asarray(results[0])
