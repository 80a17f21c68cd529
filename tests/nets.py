"""Random networks with planted removable structure, for differential tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ACTIVATIONS = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSwish", "PRelu", "Elu", "GeluNodes", "None")


@dataclass
class Builder:
    """Grows a graph node by node; every drawn weight comes from ``rng``."""

    rng: np.random.Generator
    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    count: int = 0

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def weight(self, values: Any, stem: str = "w") -> str:
        name = self.name(stem)
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, op: str, inputs: list[str], n_outputs: int = 1, **attributes: Any) -> str:
        outputs = [self.name("t") for _ in range(n_outputs)]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=self.name(op.lower()), **attributes))
        return outputs[0]

    def outputs_of_last(self) -> list[str]:
        return list(self.nodes[-1].output)

    def planted(self, shape: tuple[int, ...], *, scale: float | None = None) -> NDArray[np.float32]:
        """Weights with dead rows, dead columns, tiny rows and equal rows among ordinary ones."""
        rng = self.rng
        fan_in = int(np.prod(shape[1:]))
        values = rng.normal(size=shape) * (scale or 1.5 / np.sqrt(fan_in))
        kind = rng.random(shape[0])
        values[kind < 0.25] = 0.0
        values[(kind > 0.25) & (kind < 0.32)] *= 1e-32
        if shape[0] > 2 and rng.random() < 0.4:
            values[1] = values[0] * 2.0
        if rng.random() < 0.5:
            values[:, rng.random(shape[1]) < 0.2] = 0.0
        return np.asarray(values, dtype=np.float32)

    def bias(self, size: int) -> NDArray[np.float32]:
        values = self.rng.normal(size=size) * self.rng.choice([0.0, 0.1, 1.0, 3.0])
        values[self.rng.random(size) < 0.3] = 0.0
        return np.asarray(values, dtype=np.float32)

    def conv(
        self, x: str, c_in: int, c_out: int, *, kernel: int = 3, pad: int = 1, groups: int = 1, stride: int = 1
    ) -> str:
        w = self.planted((c_out, c_in // groups, kernel, kernel))
        inputs = [x, self.weight(w)]
        if self.rng.random() < 0.7:
            inputs.append(self.weight(self.bias(c_out), "b"))
        y = self.node("Conv", inputs, kernel_shape=[kernel] * 2, pads=[pad] * 4, group=groups, strides=[stride] * 2)
        return self.batch_norm(y, c_out) if self.rng.random() < 0.4 else y

    def batch_norm(self, x: str, size: int) -> str:
        gain = self.rng.normal(size=size)
        gain[self.rng.random(size) < 0.2] = 0.0
        parameters = [gain, self.bias(size), self.rng.normal(size=size) * 0.1, self.rng.random(size) + 0.1]
        names = [self.weight(np.asarray(p, np.float32), "bn") for p in parameters]
        return self.node("BatchNormalization", [x, *names])

    def activation(self, x: str, kind: str, channels: int) -> str:
        if kind == "None":
            return x
        if kind == "PRelu":
            slope = np.abs(self.rng.normal(size=(channels, 1, 1))).astype(np.float32)
            return self.node("PRelu", [x, self.weight(slope)])
        if kind == "Clip":
            low, high = self.weight(np.float32(0.0)), self.weight(np.float32(6.0))
            return self.node("Clip", [x, low, high])
        if kind == "LeakyRelu":
            return self.node("LeakyRelu", [x], alpha=0.1)
        if kind == "GeluNodes":
            scaled = self.node("Div", [x, self.weight(np.float32(np.sqrt(2)))])
            shifted = self.node("Add", [self.node("Erf", [scaled]), self.weight(np.float32(1.0))])
            return self.node("Mul", [self.node("Mul", [x, shifted]), self.weight(np.float32(0.5))])
        return self.node(kind, [x])

    def squeeze_excite(self, x: str, channels: int) -> str:
        pooled = self.node("GlobalAveragePool", [x])
        small = max(1, channels // 2)
        hidden = self.node("Relu", [self.conv(pooled, channels, small, kernel=1, pad=0)])
        gate = self.node("Sigmoid", [self.conv(hidden, small, channels, kernel=1, pad=0)])
        return self.node("Mul", [x, gate])

    def dense(self, x: str, n_in: int, n_out: int) -> str:
        w = self.planted((n_out, n_in))
        style = int(self.rng.integers(3))
        if style == 0:
            return self.node("Gemm", [x, self.weight(w), self.weight(self.bias(n_out), "b")], transB=1)
        if style == 1:
            return self.node(
                "Gemm",
                [x, self.weight(np.ascontiguousarray(w.T)), self.weight(self.bias(n_out), "b")],
                alpha=0.5,
                beta=2.0,
            )
        y = self.node("MatMul", [x, self.weight(np.ascontiguousarray(w.T))])
        return self.node("Add", [y, self.weight(self.bias(n_out), "b")]) if self.rng.random() < 0.7 else y

    def model(self, x: str, shape: list[int | str], output: str) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["rows", "columns"])]
        graph = helper.make_graph(self.nodes, "random", inputs, outputs, self.weights)
        imports = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8)
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model)


def random_convnet(seed: int, *, dynamic: bool = False) -> onnx.ModelProto:
    """Stem, a few random blocks (plain, residual, depthwise, concat, split, gate), pooling, a dense head."""
    rng = np.random.default_rng(seed)
    b = Builder(rng)
    channels = int(rng.integers(4, 9))
    x = b.activation(b.conv("x", 3, channels), _pick(rng, ACTIVATIONS), channels)
    for _ in range(int(rng.integers(1, 4))):
        x, channels = _block(b, x, channels)
    head = rng.integers(3)
    if head == 0 and not dynamic:
        pooled = b.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
        flat = b.node("Flatten", [pooled])
        features = channels * 16
    else:
        pooled = b.node("GlobalAveragePool", [x])
        flat = (
            b.node("Flatten", [pooled]) if head == 1 else b.node("Reshape", [pooled, b.weight(np.array([0, -1]), "s")])
        )
        features = channels
    hidden = int(rng.integers(4, 10))
    y = b.node("Relu", [b.dense(flat, features, hidden)])
    y = b.dense(y, hidden, 3)
    size: list[int | str] = ["batch", 3, "height", "width"] if dynamic else [1, 3, 8, 8]
    return b.model("x", size, y)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _block(b: Builder, x: str, channels: int) -> tuple[str, int]:
    rng = b.rng
    kind = _pick(rng, ("plain", "residual", "depthwise", "concat", "split", "gate", "grouped", "transposed", "slice"))
    act = _pick(rng, ACTIVATIONS)
    if kind == "residual":
        inner = int(rng.integers(3, 8))
        y = b.activation(b.conv(x, channels, inner), act, inner)
        y = b.node("Add", [b.conv(y, inner, channels), x])
        return b.activation(y, _pick(rng, ACTIVATIONS), channels), channels
    if kind == "depthwise":
        y = b.activation(b.conv(x, channels, channels, groups=channels), act, channels)
        out = int(rng.integers(4, 9))
        return b.activation(b.conv(y, channels, out, kernel=1, pad=0), act, out), out
    if kind == "concat":
        one, two = int(rng.integers(2, 6)), int(rng.integers(2, 6))
        left = b.activation(b.conv(x, channels, one), act, one)
        right = b.activation(b.conv(x, channels, two, kernel=1, pad=0), act, two)
        return b.node("Concat", [left, right], axis=1), one + two
    if kind == "split":
        even = max(2, channels - channels % 2)
        y = b.conv(x, channels, even)
        b.node("Split", [y], 2, axis=1)
        left, right = b.outputs_of_last()
        return b.node("Mul", [b.activation(left, act, even // 2), right]), even // 2
    if kind == "gate":
        return b.squeeze_excite(b.activation(b.conv(x, channels, channels), act, channels), channels), channels
    if kind == "grouped":
        y = b.conv(x, channels, 8, kernel=1, pad=0)
        return b.activation(b.conv(y, 8, 8, groups=2), act, 8), 8
    if kind == "transposed":
        out = int(rng.integers(3, 7))
        w = np.swapaxes(b.planted((out, channels, 3, 3)), 0, 1)
        y = b.node(
            "ConvTranspose", [x, b.weight(np.ascontiguousarray(w)), b.weight(b.bias(out), "b")], pads=[1, 1, 1, 1]
        )
        return b.activation(y, act, out), out
    if kind == "slice":
        y = b.conv(x, channels, 8)
        names = [b.weight(np.array([v]), "s") for v in (1, 6, 1)]
        return b.activation(b.node("Slice", [y, *names]), act, 5), 5
    out = int(rng.integers(4, 9))
    return b.activation(b.conv(x, channels, out, stride=1), act, out), out


def random_mlp(seed: int) -> onnx.ModelProto:
    """A dense net with dead, constant, tiny and parallel units."""
    rng = np.random.default_rng(seed)
    b = Builder(rng)
    width, x = int(rng.integers(3, 8)), "x"
    first = width
    for _ in range(int(rng.integers(1, 4))):
        out = int(rng.integers(3, 12))
        x = b.dense(x, width, out)
        kind = _pick(rng, ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "Elu", "GeluNodes", "Softplus"))
        x = b.activation(x, kind, out)
        width = out
    return b.model("x", ["batch", first], b.dense(x, width, 2))


def run(model: onnx.ModelProto, x: NDArray[Any]) -> NDArray[Any]:
    """Output in ONNX Runtime with optimizations off."""
    from onnxprune.runtime import Runner  # noqa: PLC0415 # the models are useful without it

    return Runner(model).run({"x": x})[0]
