"""Open dimensions of a model's inputs get the sizes that were asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from onnxprune.errors import InputError
from onnxprune.graph.types import infer_types
from onnxprune.samples import check_shapes, input_specs


def with_fixed_sizes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """The same model for inputs of these shapes only; the very same object where nothing was open.

    A dimension that has a name gets its size wherever the name stands, in the bodies of If, Loop and Scan as well.
    Shapes of outputs that follow are stated, too; what the file noted about tensors in between is dropped, since it
    may contradict the new sizes.

    Args:
        model: The model; never changed.
        shapes: A positive size per axis, for each input that is to be fixed.

    Raises:
        InputError: An unknown input, a wrong rank, a size that contradicts a fixed dimension, or two sizes for one
            named dimension.
    """
    check_shapes(input_specs(model), shapes)
    named = _named(model, shapes)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for value in result.graph.input:
        if value.name in shapes and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in shapes[value.name])
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if value.name in shapes:
                dim.dim_value = shapes[value.name][axis]
    for graph in _graphs(result.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in named:
                    dim.dim_value = named[dim.dim_param]
    if list(result.graph.input) == list(model.graph.input):
        return model
    del result.graph.value_info[:]
    _state_outputs(result)
    return result


def _named(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The size of each named dimension.

    Raises:
        InputError: There are two.
    """
    found: dict[str, int] = {}
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            if dim.dim_param and found.setdefault(dim.dim_param, size) != size:
                raise InputError(
                    f"--shape gives the dimension '{dim.dim_param}' two sizes: {found[dim.dim_param]} and {size}.",
                    hint=f"Input '{value.name}' and another one share it; give both the same size.",
                )
    return found


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and all bodies in it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _graphs(body)


def _state_outputs(model: onnx.ModelProto) -> None:
    types = infer_types(model)
    for value in model.graph.output:
        shape = types[value.name].shape
        if shape and all(isinstance(size, int) for size in shape):
            del value.type.tensor_type.shape.dim[:]
            for size in shape:
                value.type.tensor_type.shape.dim.add(dim_value=size)
