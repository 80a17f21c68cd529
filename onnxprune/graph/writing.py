"""Writing a rewritten graph back without losing what onnx-graphsurgeon does not keep."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter
from onnx_graphsurgeon.ir.tensor import LazyValues


def node_proto(node: gs.Node) -> onnx.NodeProto:
    """A node as a message of its own."""
    proto: onnx.NodeProto = OnnxExporter.export_node(_detached(node))
    return proto


def _detached(node: gs.Node) -> gs.Node:
    """The node with copies of the tensors in its attributes, since the exporter writes into them."""
    for value in node.attrs.values():
        if isinstance(value, gs.Constant) and isinstance(value._values, LazyValues):
            copy = onnx.TensorProto()
            copy.CopyFrom(value._values.tensor)
            value._values = LazyValues(copy)
        for inner in value.nodes if isinstance(value, gs.Graph) else ():
            _detached(inner)
    return node


class NodeOrigin:
    """A node as it was read, to write it back with only what changed."""

    def __init__(self, node: gs.Node, proto: onnx.NodeProto) -> None:
        self.node = node
        self.proto = proto
        self.op = node.op
        self.attrs = {name: list(v) if isinstance(v, list) else v for name, v in node.attrs.items()}

    def export(self) -> onnx.NodeProto:
        """The original protobuf where nothing changed, else a copy with the changes."""
        node = self.node
        inputs = [tensor.name for tensor in node.inputs]
        outputs = [tensor.name for tensor in node.outputs]
        altered = [k for k, v in node.attrs.items() if k not in self.attrs or not _same(v, self.attrs[k])]
        dropped = [k for k in self.attrs if k not in node.attrs]
        proto = self.proto
        if (
            inputs == list(proto.input)
            and outputs == list(proto.output)
            and not altered
            and not dropped
            and node.op == self.op
        ):
            return proto
        copy = onnx.NodeProto()
        copy.CopyFrom(proto)
        copy.op_type = node.op
        copy.input[:] = inputs
        copy.output[:] = outputs
        kept = [a for a in proto.attribute if a.name not in altered and a.name not in dropped]
        del copy.attribute[:]
        copy.attribute.extend(kept)
        copy.attribute.extend(OnnxExporter.export_attributes({k: _detached(node).attrs[k] for k in altered}))
        return copy


def _same(new: Any, old: Any) -> bool:
    return new is old or (isinstance(new, int | float | str | list) and type(new) is type(old) and new == old)


def digest(values: NDArray[Any]) -> bytes:
    """Hash of type, shape and values."""
    array = np.asarray(values)
    return hashlib.sha256(repr((array.dtype, array.shape)).encode() + array.tobytes()).digest()


def copy_fields(source: Any, target: Any, *, skip: set[str]) -> None:
    """Copy all set fields of a protobuf message but the skipped ones."""
    for field, value in source.ListFields():
        if field.name in skip:
            continue
        if hasattr(value, "MergeFrom"):
            getattr(target, field.name).MergeFrom(value)
        else:
            setattr(target, field.name, value)


def tensor_proto(name: str, values: NDArray[Any], like: onnx.TensorProto | None = None) -> onnx.TensorProto:
    """An initializer, with the notes of the one it replaces."""
    proto = onnx.numpy_helper.from_array(np.asarray(values), name)
    if like is not None:
        if like.doc_string:
            proto.doc_string = like.doc_string
        proto.metadata_props.extend(like.metadata_props)
    return proto


def captured_names(nodes: Iterable[onnx.NodeProto], nested: bool = False) -> Iterator[str]:
    """Names that the bodies of nodes may read from outside."""
    for node in nodes:
        if nested:
            yield from node.input
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from captured_names(body.node, nested=True)
                if nested or body.node or body.output:
                    yield from (value.name for value in body.output)
