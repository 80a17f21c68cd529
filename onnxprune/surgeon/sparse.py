"""Writing weights that are mostly zero as sparse initializers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnxprune.errors import EnvironmentFailure
from onnxprune.runtime import Feeds, Runner

ELEMENTS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
"""ONNX Runtime reads sparse initializers of these element types on the CPU, whatever operator uses them and at every
opset: it makes them dense when it loads the model. So they make the file smaller, and nothing else."""


def stored_sparse(model: onnx.ModelProto, feeds: Feeds, provider: str) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Write initializers sparse where that takes fewer bytes and changes no output.

    The indices count entries of the flattened tensor, 8 bytes each (ONNX allows no others): worthwhile from about two
    thirds of zeros on in float32.

    Args:
        model: The model; never changed.
        feeds: Inputs on which both versions must give the same bits.
        provider: Execution provider.

    Returns:
        The model, and the names of the tensors that are sparse in it.
    """
    names = [tensor.name for tensor in _candidates(model)]
    wanted = Runner(model, provider=provider).run(feeds) if names else []

    def accepted(chosen: Sequence[str]) -> bool:
        candidate = _written(model, chosen)
        try:
            onnx.checker.check_model(candidate)
            got = Runner(candidate, provider=provider).run(feeds)
        except (onnx.checker.ValidationError, EnvironmentFailure, ValueError):  # ValueError: more than 2 GB
            return False
        return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(wanted, got, strict=True))

    if not names:
        return model, ()
    if not accepted(names):
        names = [name for name in names if accepted([name])]
        if not names or not accepted(names):
            return model, ()
    return _written(model, names), tuple(names)


def made_dense(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with every sparse initializer of the main graph dense; the model itself where there is none."""
    if not model.graph.sparse_initializer:
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for stored in result.graph.sparse_initializer:
        values, places = (onnx.numpy_helper.to_array(tensor) for tensor in (stored.values, stored.indices))
        dense = np.zeros(tuple(stored.dims), values.dtype)
        dense[tuple(places.T) if places.ndim == 2 else np.unravel_index(places, dense.shape)] = values
        result.graph.initializer.append(onnx.numpy_helper.from_array(dense, stored.values.name))
    del result.graph.sparse_initializer[:]
    return result


def _candidates(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Initializers that would be smaller; defaults of inputs and outputs stay as they are."""
    outside = {value.name for value in (*model.graph.input, *model.graph.output)}
    return [
        tensor
        for tensor in model.graph.initializer
        if tensor.data_type in ELEMENTS
        and tensor.dims
        and tensor.name not in outside
        and _sparse(tensor).ByteSize() < tensor.ByteSize()
    ]


def _sparse(tensor: onnx.TensorProto) -> onnx.SparseTensorProto:
    values = onnx.numpy_helper.to_array(tensor).reshape(-1)
    places = np.flatnonzero(values)
    return onnx.helper.make_sparse_tensor(
        onnx.numpy_helper.from_array(values[places], tensor.name),
        onnx.numpy_helper.from_array(places.astype(np.int64)),
        list(tensor.dims),
    )


def _written(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    chosen = [tensor for tensor in graph.initializer if tensor.name in names]
    graph.sparse_initializer.extend(_sparse(tensor) for tensor in chosen)
    for tensor in chosen:
        graph.initializer.remove(tensor)
    return result
