"""Which nodes the XNNPACK execution provider takes; ONNX Runtime's usability checker does not know it.

Source: the operators and restrictions that ONNX Runtime documents for the provider, for float32; newer versions may
take more. It takes nodes one by one, needs channels, height and width of images (not the batch) and constant weights,
and fuses Relu and Clip into the convolution or pooling before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from onnxprune.graph.files import standard_opset

FUSING = ("Conv", "MaxPool", "AveragePool")
PADDINGS = ("NOTSET", "VALID", "SAME_UPPER")
_FLOAT = onnx.TensorProto.FLOAT


class XnnpackOperators:
    """Says of each node of a model whether XNNPACK takes it.

    Args:
        model: With the shapes that inference finds in it.
        fixed: Answer as if all sizes were fixed.
    """

    def __init__(self, model: onnx.ModelProto, *, fixed: bool) -> None:
        graph = model.graph
        self._fixed = fixed
        self._opset = standard_opset(model) or 0
        self._weights = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
        self._values = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
        self._producers = {name: node for node in graph.node for name in node.output if name}
        self._readers: dict[str, int] = {value.name: 1 for value in graph.output}
        for node in graph.node:
            for name in node.input:
                self._readers[name] = self._readers.get(name, 0) + 1

    def is_op_supported(self, node: onnx.NodeProto) -> bool:
        """Whether it takes this node, alone or fused into the one before; the name is the checker's."""
        if node.domain not in ("", "ai.onnx") or not node.input:
            return False
        if node.op_type in ("Relu", "Clip"):
            return self._is_fused(node)
        rule = _RULES.get(node.op_type)
        return rule is not None and rule(self, node)

    def _is_fused(self, node: onnx.NodeProto) -> bool:
        before = self._producers.get(node.input[0])
        alone = self._readers[node.input[0]] == 1
        return (
            before is not None
            and alone
            and before.op_type in FUSING
            and self._are_constant(node.input[1:])
            and self.is_op_supported(before)
        )

    def _are_constant(self, names: Sequence[str]) -> bool:
        return all(name in self._weights for name in names if name)

    def _rank(self, name: str) -> int | None:
        """Rank of a float32 tensor; None where either is not known."""
        if name in self._weights:
            return self._weights[name]
        tensor = self._values[name].type.tensor_type if name in self._values else None
        known = tensor is not None and tensor.elem_type == _FLOAT and tensor.HasField("shape")
        return len(tensor.shape.dim) if tensor is not None and known else None

    def _is_image(self, name: str) -> bool:
        """Whether a tensor has four axes, and all sizes but that of the batch are known."""
        if self._rank(name) != 4 or name in self._weights:
            return False
        return self._fixed or all(dim.dim_value > 0 for dim in self._values[name].type.tensor_type.shape.dim[1:])

    def _convolution(self, node: onnx.NodeProto) -> bool:
        weights = self._are_constant(node.input[1:]) and self._rank(node.input[1]) == 4
        return self._opset >= 11 and weights and self._is_image(node.input[0]) and _pads(node)

    def _pooling(self, node: onnx.NodeProto) -> bool:
        kernel = list(_attribute(node, "kernel_shape", ()))
        plain = not _attribute(node, "ceil_mode", 0) and not _attribute(node, "count_include_pad", 0)
        single = len([name for name in node.output if name]) == 1
        fits = len(kernel) == 2 and kernel != [1, 1]
        return plain and single and fits and _pads(node) and self._is_image(node.input[0])

    def _softmax(self, node: onnx.NodeProto) -> bool:
        rank = self._rank(node.input[0])
        return rank is not None and (self._opset < 13 or _attribute(node, "axis", -1) in (-1, rank - 1))

    def _gemm(self, node: onnx.NodeProto) -> bool:
        plain = _attribute(node, "alpha", 1.0) == 1.0 and _attribute(node, "beta", 1.0) == 1.0
        return plain and self._are_constant(node.input[1:]) and self._rank(node.input[0]) == 2

    def _matmul(self, node: onnx.NodeProto) -> bool:
        left, right = self._rank(node.input[0]), self._rank(node.input[1])
        fits = left is not None and right is not None and right <= 2 and left in (right, right + 1)
        return fits and self._are_constant(node.input[1:])

    def _resize(self, node: onnx.NodeProto) -> bool:
        plain = _attribute(node, "mode", b"nearest") == b"linear" and not _attribute(node, "antialias", 0)
        whole = not _attribute(node, "axes", ()) and not _attribute(node, "exclude_outside", 0)
        return plain and whole and self._are_constant(node.input[1:]) and self._is_image(node.input[0])


_RULES = {
    "Conv": XnnpackOperators._convolution,
    "ConvTranspose": XnnpackOperators._convolution,
    "MaxPool": XnnpackOperators._pooling,
    "AveragePool": XnnpackOperators._pooling,
    "Softmax": XnnpackOperators._softmax,
    "Gemm": XnnpackOperators._gemm,
    "MatMul": XnnpackOperators._matmul,
    "Resize": XnnpackOperators._resize,
}


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    found = [item for item in node.attribute if item.name == name]
    return onnx.helper.get_attribute_value(found[0]) if found else default


def _pads(node: onnx.NodeProto) -> bool:
    return _attribute(node, "auto_pad", b"NOTSET").decode() in PADDINGS
