"""Convolutions whose weights are inputs, in the blocked layout of ONNX Runtime's CPU provider.

ONNX Runtime brings convolutions with *constant* weights into a layout in which blocks of 8 or 16 channels are the
innermost axis, and computes them there about twice as fast. Its operators for that (domain ``com.microsoft.nchwc``)
take varying weights as well, so this rewrite does the same for the models of this package: convolutions, transposed
convolutions by single steps, and what acts entry by entry between them stay in blocks; everything else gets its
tensors back in the usual layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

DOMAIN = "com.microsoft.nchwc"
ENTRYWISE = frozenset(
    "Abs Add Cast Clip Div Elu Erf Exp Gelu Greater HardSigmoid HardSwish LeakyRelu Log Mul Neg Pow Reciprocal Relu "
    "Sigmoid Sign Softplus Sqrt Sub Tanh Where".split()
)
"""Operators that give the same whatever order the entries are in."""
Shape = tuple[int | None, ...]


def with_blocked_convolutions(model: ModelProto, block: int) -> ModelProto:
    """The model with its convolutions in blocks of channels, where that applies.

    Args:
        model: A model in float32; not changed.
        block: Number of channels in a block.
    """
    typed = onnx.shape_inference.infer_shapes(model, data_prop=True)
    result = ModelProto()
    result.CopyFrom(model)
    writer = _Writer(_shapes(typed), {t.name for t in model.graph.initializer}, block)
    for node in model.graph.node:
        writer.add(node)
    for output in model.graph.output:
        writer.plain(output.name)
    if not writer.changed:
        return model
    del result.graph.node[:]
    result.graph.node.extend(writer.nodes)
    result.graph.initializer.extend(writer.constants.values())
    result.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return result


def _shapes(model: ModelProto) -> dict[str, Shape]:
    graph = model.graph
    found: dict[str, Shape] = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            dims = tensor.shape.dim
            found[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
    return found


@dataclass(frozen=True)
class Windows:
    """A convolution in the blocked layout: its weights and how they become blocks.

    Attributes:
        weights: Name of the weights.
        flipped: Whether the kernel is reversed and its first two axes exchanged.
        attributes: Of the new node.
    """

    weights: str
    flipped: bool
    attributes: dict[str, Any]


class _Writer:
    """Writes nodes one by one and keeps both layouts of every tensor, each made when it is first asked for."""

    def __init__(self, shapes: dict[str, Shape], constants: set[str], block: int) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.changed = False
        self._shapes = shapes
        self._fixed = constants
        self._block = block
        self._blocked: dict[str, str] = {}
        self._recipes: dict[str, NodeProto | None] = {}
        """Tensors that are there in blocks only; with a node that makes them where they cannot be reordered."""
        self._weights: dict[tuple[str, bool], str] = {}

    def add(self, node: NodeProto) -> None:
        """A node, in blocks if that applies."""
        windows = self._windows(node)
        if windows is not None:
            self._convolution(node, windows)
        elif node.op_type in ENTRYWISE and self._in_blocks(node):
            self._entrywise(node)
        elif self._per_channel(node):
            self._channelwise(node)
        else:
            for name in (*node.input, *_captured(node)):
                self.plain(name)
            self.nodes.append(node)

    def plain(self, name: str) -> None:
        """Make sure a tensor is there in the usual layout."""
        if name not in self._recipes:
            return
        recipe = self._recipes.pop(name)
        if recipe is None:
            self._emit("ReorderOutput", [self._blocked[name]], name, DOMAIN, channels=self._shapes[name][1])
        else:
            for source in recipe.input:
                self.plain(source)
            self.nodes.append(recipe)

    def _blocks(self, name: str) -> str:
        """A tensor in blocks."""
        if name not in self._blocked:
            self._blocked[name] = self._emit("ReorderInput", [name], f"{name}:blocked", DOMAIN)
        return self._blocked[name]

    def _emit(self, op: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{output}:{op}", domain=domain, **attributes))
        return output

    def _ints(self, *values: int) -> str:
        name = f"blocked:{','.join(map(str, values))}"
        self.constants[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        return name

    def _whole(self, count: int | None) -> bool:
        return count is not None and count % self._block == 0

    def _image(self, name: str) -> bool:
        """Whether a tensor can be in blocks."""
        shape = self._shapes.get(name, ())
        return len(shape) == 4 and self._whole(shape[1])

    def _windows(self, node: NodeProto) -> Windows | None:
        """The convolution that a node becomes; None where it stays as it is."""
        if node.op_type not in ("Conv", "ConvTranspose") or node.domain or node.input[1] in self._fixed:
            return None
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        shape, flipped = self._shapes.get(node.input[1], ()), node.op_type == "ConvTranspose"
        if not (self._image(node.input[0]) and self._image(node.output[0]) and len(shape) == 4):
            return None
        groups, channels = given["group"], self._shapes[node.input[0]][1]
        lone = groups == channels == self._shapes[node.output[0]][1]
        if groups != 1 and not lone:
            return None
        if flipped:
            reach = [d * (k - 1) for d, k in zip(given["dilations"], given["kernel_shape"], strict=True)]
            pads = [r - p for r, p in zip(reach * 2, given["pads"], strict=True)]
            if min(pads) < 0 or any(s != 1 for s in given["strides"]):
                return None
            given["pads"] = pads
        return Windows(node.input[1], flipped, given)

    def _convolution(self, node: NodeProto, windows: Windows) -> None:
        x = self._blocks(node.input[0])
        inputs = [x, self._kernel(windows.weights, flipped=windows.flipped), *node.input[2:]]
        self._result(node.output[0], "Conv", inputs, DOMAIN, **windows.attributes)

    def _kernel(self, name: str, *, flipped: bool) -> str:
        """Weights in blocks of output channels within blocks of input channels."""
        if (name, flipped) not in self._weights:
            first, second, *kernel = (int(d or 0) for d in self._shapes[name])
            source, size, label = name, self._block, f"{name}:{'flipped' if flipped else 'blocked'}"
            if flipped and kernel != [1, 1]:
                ends = [self._ints(-1, -1), self._ints(-(1 << 31), -(1 << 31)), self._ints(2, 3), self._ints(-1, -1)]
                source = self._emit("Slice", [source, *ends], f"{label}:reversed")
            lone = second == 1
            split = (first // size, size, 1, 1) if lone else (first // size, size, second // size, size)
            order = [2, 0, 4, 5, 1, 3] if flipped and not lone else [0, 2, 4, 5, 3, 1]
            wide = self._emit("Reshape", [source, self._ints(*split, *kernel)], f"{label}:split")
            turned = self._emit("Transpose", [wide], f"{label}:turned", perm=order)
            shape = (second, first) if flipped and not lone else (first, second)
            self._weights[name, flipped] = self._emit("Reshape", [turned, self._ints(*shape, *kernel)], label)
        return self._weights[name, flipped]

    def _result(self, name: str, op: str, inputs: Sequence[str], domain: str = "", **attributes: Any) -> None:
        self.changed = True
        self._blocked[name] = self._emit(op, inputs, f"{name}:blocked", domain, **attributes)
        self._recipes[name] = None

    def _in_blocks(self, node: NodeProto) -> bool:
        """Whether a node finds an operand in blocks alone, and all others in blocks, in its shape, or single."""
        shape = self._shapes.get(node.output[0])
        if not self._image(node.output[0]) or not any(name in self._recipes for name in node.input):
            return False
        full = [name for name in node.input if name and not self._single(name)]
        known = all(name in self._blocked or self._reordered(node, name) for name in full)
        return known and all(self._shapes.get(name) == shape for name in full)

    def _single(self, name: str) -> bool:
        return all(d == 1 for d in self._shapes.get(name, (None,)))

    @staticmethod
    def _reordered(node: NodeProto, name: str) -> bool:
        """Whether an operand can be brought into blocks: conditions cannot."""
        return node.op_type != "Cast" and not (node.op_type == "Where" and name == node.input[0])

    def _entrywise(self, node: NodeProto) -> None:
        name = node.output[0]
        inputs = [self._blocks(x) if x and not self._single(x) else x for x in node.input]
        for x in node.input:
            if self._single(x):
                self.plain(x)
        new = NodeProto()
        new.CopyFrom(node)
        del new.input[:], new.output[:]
        new.input.extend(inputs)
        new.output.append(f"{name}:blocked")
        new.name = new.output[0]
        self.nodes.append(new)
        self.changed = True
        self._blocked[name] = new.output[0]
        self._recipes[name] = node if node.op_type == "Greater" else None

    def _per_channel(self, node: NodeProto) -> bool:
        """Whether a node scales the channels of a tensor that is there in blocks alone."""
        if not node.input or node.input[0] not in self._recipes:
            return False
        if node.op_type == "BatchNormalization":
            return True
        columns = self._shapes.get(node.input[1], ()) if node.op_type == "Mul" else ()
        return columns == (1, self._shapes[node.input[0]][1], 1, 1)

    def _channelwise(self, node: NodeProto) -> None:
        """A depthwise convolution with a single tap."""
        name, channels = node.output[0], int(self._shapes[node.input[0]][1] or 0)
        for parameter in node.input[1:]:
            self.plain(parameter)
        factor, bias = node.input[1], []
        if node.op_type == "BatchNormalization":
            factor, shift = self._folded(node)
            bias = [shift]
        weights = self._emit("Reshape", [factor, self._ints(channels, 1, 1, 1)], f"{name}:weights")
        settings = {"kernel_shape": [1, 1], "strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "group": channels}
        self._result(name, "Conv", [self._blocks(node.input[0]), weights, *bias], DOMAIN, **settings)

    def _folded(self, node: NodeProto) -> tuple[str, str]:
        """Factor and shift of a BatchNormalization."""
        _, scale, shift, mean, variance = node.input
        name, epsilon = node.output[0], next(a.f for a in node.attribute if a.name == "epsilon")
        constant = numpy_helper.from_array(np.asarray(epsilon, np.float32), f"{name}:epsilon")
        self.constants[constant.name] = constant
        wide = self._emit("Add", [variance, constant.name], f"{name}:wide")
        factor = self._emit("Div", [scale, self._emit("Sqrt", [wide], f"{name}:root")], f"{name}:factor")
        moved = self._emit("Mul", [mean, factor], f"{name}:moved")
        return factor, self._emit("Sub", [shift, moved], f"{name}:shift")


def _captured(node: NodeProto) -> list[str]:
    """What the body of a node reads from outside."""
    bodies = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [name for body in bodies for inner in body.node for name in inner.input]
