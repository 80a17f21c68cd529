"""Make a pruned model the way training frameworks do: by masking whole filters with zeros."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def mask_inner_filters(model: onnx.ModelProto, *, biases: bool, share: float = 0.5) -> int:
    """Zero the filters of lowest L1 norm in the first convolution of each residual block, in place.

    A first convolution is one whose only way on is (BatchNormalization,) Relu, and another convolution.

    Args:
        model: The model.
        biases: Mask biases (and BatchNormalization scale and shift) as well.
        share: Share of the filters to mask.

    Returns:
        The number of convolutions masked.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    masked = 0
    for node in model.graph.node:
        chain = _chain(node, readers)
        if [n.op_type for n in chain if n.op_type != "BatchNormalization"] != ["Conv", "Relu", "Conv"]:
            continue
        filters = numpy_helper.to_array(weights[node.input[1]])
        order = np.argsort(np.abs(filters).sum(axis=(1, 2, 3)))
        rows = order[: int(len(order) * share)]
        names = [node.input[1]]
        if biases:
            names += list(node.input[2:3])
            names += [n for bn in chain if bn.op_type == "BatchNormalization" for n in bn.input[1:3]]
        for name in names:
            values = numpy_helper.to_array(weights[name]).copy()
            values[rows] = 0
            weights[name].CopyFrom(numpy_helper.from_array(values, name))
        masked += 1
    return masked


def _chain(node: onnx.NodeProto, readers: dict[str, list[onnx.NodeProto]]) -> list[onnx.NodeProto]:
    chain = [node]
    while len(following := readers.get(chain[-1].output[0], [])) == 1 and len(chain) < 4:
        chain.append(following[0])
        if following[0].op_type == "Conv":
            break
    return chain
