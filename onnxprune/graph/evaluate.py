"""Evaluate one node whose inputs are all constant, with ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.errors import EnvironmentFailure
from onnxprune.graph.writing import node_proto
from onnxprune.runtime import Runner


def evaluate(node: gs.Node, opset: int) -> NDArray[Any] | None:
    """Value of the node's only output, or None where ONNX Runtime cannot compute it."""
    try:
        inputs = {t.name: np.asarray(t.values) for t in node.inputs if t.name}
        proto = node_proto(node)
        weights = [onnx.numpy_helper.from_array(values, name) for name, values in inputs.items()]
        output = onnx.helper.make_empty_tensor_value_info(node.outputs[0].name)
        graph = onnx.helper.make_graph([proto], "constant", [], [output], weights)
        imports = [onnx.helper.make_opsetid("", opset)]
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
        typed = onnx.shape_inference.infer_shapes(model)
        result = Runner(typed).run({})[0]
    except (EnvironmentFailure, ValueError, TypeError, KeyError):
        return None
    return np.asarray(result)
