"""What a model may be handed over as besides a file, and results of the same kind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeGuard, Union, overload

import onnx
from onnx.external_data_helper import uses_external_data

from onnxprune.errors import InputError

if TYPE_CHECKING:
    import onnx_ir

ModelLike = Union[str, os.PathLike[str], bytes, onnx.ModelProto, "onnx_ir.Model"]


def is_ir(model: object) -> TypeGuard[onnx_ir.Model]:
    """Whether it is a model of onnx-ir, which is not imported for that."""
    kind = type(model)
    return kind.__name__ == "Model" and kind.__module__.partition(".")[0] == "onnx_ir"


def from_ir(model: onnx_ir.Model) -> onnx.ModelProto:
    """The same model as a message, with the weights that it keeps in files.

    Raises:
        InputError: It is no model of onnx-ir.
    """
    if not is_ir(model):
        kind = type(model).__name__
        raise InputError(f"{kind} is no kind of model.", hint="Give a path, bytes, a ModelProto or an onnx_ir.Model.")
    import onnx_ir  # noqa: PLC0415 # only who has such a model has the package

    found = onnx_ir.to_proto(model)
    for tensor in found.graph.initializer:
        if uses_external_data(tensor):
            values = model.graph.initializers[tensor.name].const_value
            assert values is not None  # it has just been written from there
            tensor.CopyFrom(onnx_ir.to_proto(onnx_ir.tensor(values.numpy(), dtype=values.dtype, name=tensor.name)))
    return found


@overload
def in_kind_of(given: bytes, model: onnx.ModelProto) -> bytes: ...
@overload
def in_kind_of(given: str | os.PathLike[str] | onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto: ...
@overload
def in_kind_of(given: onnx_ir.Model, model: onnx.ModelProto) -> onnx_ir.Model: ...
def in_kind_of(given: Any, model: onnx.ModelProto) -> Any:
    """A model as bytes or as one of onnx-ir where that is what was given; otherwise as it is."""
    if isinstance(given, bytes):
        return model.SerializeToString()
    if is_ir(given):
        import onnx_ir  # noqa: PLC0415 # only who has such a model has the package

        return onnx_ir.from_proto(model)
    return model
