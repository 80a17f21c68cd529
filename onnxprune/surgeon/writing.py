"""Putting new values into the initializers of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.graph.graph import Graph


def with_values(model: onnx.ModelProto, values: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """A copy of a model with other values in some initializers."""
    graph = Graph(model)
    write_values(graph, values)
    return graph.to_model()


def write_values(graph: Graph, values: Mapping[str, NDArray[Any]]) -> None:
    """Give some initializers of a graph other values, rounded to their element types."""
    for name, constant in graph.constants().items():
        if name in values and not np.array_equal(np.asarray(constant.values), values[name]):
            graph.set_values(constant, values[name].astype(np.asarray(constant.values).dtype))
