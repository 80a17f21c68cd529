"""Tiny networks of piecewise-linear operators, and their values in rational arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.operators.interval import Array
from tests.nets import Builder

Exact = NDArray[np.object_]
FLOAT32_MAX = float(np.finfo(np.float32).max)
SCALES = (1.0, 1.0, 1.0, 0.1, 1e-7, 1e6, 1e-38, 1e12)
ALPHAS = (0.1, 0.0, 1.5, -0.5, 1e-30)


def fractions(values: Any) -> Exact:
    """Numbers as what they are exactly."""
    array = np.asarray(values)
    flat = [Fraction(float(v)) for v in array.reshape(-1)]
    return np.array([*flat, None], dtype=object)[:-1].reshape(array.shape)


def run_exact(model: onnx.ModelProto, x: Array) -> dict[str, Exact]:
    """All tensors at one point."""
    known = {t.name: _initial(t) for t in model.graph.initializer}
    known[model.graph.input[0].name] = fractions(x)
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        results = _apply(node.op_type, [known[name] for name in node.input], attributes)
        known.update(zip(node.output, results, strict=True))
    return known


def _initial(tensor: onnx.TensorProto) -> NDArray[Any]:
    values = onnx.numpy_helper.to_array(tensor)
    return values if values.dtype.kind == "i" else fractions(values)


def _apply(op: str, inputs: list[Any], attributes: dict[str, Any]) -> Sequence[Any]:
    x, rest = inputs[0], inputs[1:]
    if op == "Gemm":
        factors = [fractions(np.float32(attributes.get(name, 1.0))) for name in ("alpha", "beta")]
        product = (x @ (rest[0].T if attributes.get("transB") else rest[0])) * factors[0]
        return [product + rest[1] * factors[1] if len(rest) > 1 else product]
    if op == "MatMul":
        return [x @ rest[0]]
    if op in ("Relu", "LeakyRelu", "PRelu"):
        slope = fractions(np.float32(attributes.get("alpha", 0.0))) if op != "PRelu" else rest[0]
        return [np.where(x > 0, x, x * slope)]
    if op == "Clip":
        return [np.minimum(np.maximum(x, rest[0]), rest[1])]
    if op == "Abs":
        return [abs(x)]
    if op in ("Max", "Min"):
        return [(np.maximum if op == "Max" else np.minimum)(x, rest[0])]
    if op in ("Add", "Sub", "Mul"):
        return [{"Add": x + rest[0], "Sub": x - rest[0], "Mul": x * rest[0]}[op]]
    if op == "Concat":
        return [np.concatenate(inputs, axis=attributes["axis"])]
    if op == "Split":
        return np.split(x, 2, axis=attributes["axis"])
    if op == "Reshape":
        return [x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(rest[0])])]
    if op == "Conv":
        return [_convolved(x, rest[0], rest[1], attributes)]
    if op == "MaxPool":
        return [_pooled(x, attributes)]
    raise ValueError(op)


def _convolved(x: Exact, weights: Exact, bias: Exact, attributes: dict[str, Any]) -> Exact:
    """One spatial axis, stride 1."""
    before, after = attributes["pads"]
    padded = np.concatenate([fractions(np.zeros((*x.shape[:2], n))) for n in (before,)] + [x], axis=2)
    padded = np.concatenate([padded, fractions(np.zeros((*x.shape[:2], after)))], axis=2)
    groups, (outs, ins, taps) = attributes.get("group", 1), weights.shape
    length = padded.shape[2] - taps + 1
    result = np.empty((1, outs, length), dtype=object)
    for o in range(outs):
        first = o // (outs // groups) * ins
        for p in range(length):
            result[0, o, p] = (weights[o] * padded[0, first : first + ins, p : p + taps]).sum() + bias[o]
    return result


def _pooled(x: Exact, attributes: dict[str, Any]) -> Exact:
    (taps,), (before, after), (step,) = attributes["kernel_shape"], attributes["pads"], attributes["strides"]
    length = (x.shape[2] + before + after - taps) // step + 1
    parts = [x[:, :, max(0, p * step - before) : p * step - before + taps].max(axis=2) for p in range(length)]
    return np.stack(parts, axis=2)


class Maker(Builder):
    """Layers with numbers of very different sizes, in which rows cancel."""

    def table(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        values = self.rng.normal(size=shape) * self.rng.choice(SCALES, size=(shape[0], *[1] * (len(shape) - 1)))
        if self.rng.random() < 0.4:
            values = np.round(values * 4) / 4
        if shape[0] > 1 and self.rng.random() < 0.4:
            values[1] = values[0] * self.rng.choice([-1.0, 1.0, 2.0])
        if shape[1] > 1 and self.rng.random() < 0.4:
            values[:, 1] = -values[:, 0]
        values[self.rng.random(shape) < 0.15] = 0.0
        return np.asarray(values, np.float32)

    def layer(self, x: str, before: int, after: int) -> str:
        bias = self.weight(self.table((1, after))[0] * self.rng.integers(0, 2), "b")
        options: dict[str, Any] = {"alpha": 0.3, "beta": 0.7} if self.rng.random() < 0.2 else {}
        return self.node("Gemm", [x, self.weight(self.table((after, before))), bias], transB=1, **options)

    def bend(self, x: str, shape: tuple[int, ...]) -> str:
        """A piecewise-linear operator."""
        rng, kind = self.rng, int(self.rng.integers(8))
        if kind < 3:
            return self.node("Relu", [x])
        if kind == 3:
            return self.node("LeakyRelu", [x], alpha=float(rng.choice(ALPHAS)))
        if kind == 4:
            slopes = rng.choice(ALPHAS, size=(shape[0], *[1] * (len(shape) - 1)))
            return self.node("PRelu", [x, self.weight(np.asarray(slopes, np.float32))])
        if kind == 5:
            ends = np.sort(rng.normal(size=2))[:: int(rng.choice([1, 1, 1, -1]))]
            return self.node("Clip", [x, *(self.weight(np.float32(end)) for end in ends)])
        if kind == 6:
            return self.node("Abs", [x])
        knots = np.asarray(rng.normal(size=(1, *shape)), np.float32)
        return self.node(str(rng.choice(["Max", "Min"])), [x, self.weight(knots)])

    def mixed(self, x: str, width: int) -> tuple[str, int]:
        """A block over vectors."""
        kind = int(self.rng.integers(6))
        h = self.bend(x, (width,))
        if kind == 0:
            return self.node(str(self.rng.choice(["Add", "Sub"])), [self.layer(h, width, width), h]), width
        if kind == 1:
            both = [self.bend(x, (width,)), h]
            return self.layer(self.node("Concat", both, axis=1), 2 * width, width), width
        if kind == 2 and width % 2 == 0:
            self.node("Split", [h], 2, axis=1)
            return self.node(str(self.rng.choice(["Max", "Min", "Sub"])), self.outputs_of_last()), width // 2
        if kind == 3:
            factors = self.weight(self.table((1, width)))
            return self.node("Mul", [self.layer(h, width, width), factors]), width
        after = int(self.rng.integers(1, 5))
        return self.layer(h, width, after), after


def vector_net(seed: int) -> onnx.ModelProto:
    """Dense layers, residual sums, concatenations, splits, extrema."""
    b = Maker(np.random.default_rng(seed))
    first = int(b.rng.integers(1, 4))
    x, width = b.layer("x", first, 3), 3
    for _ in range(int(b.rng.integers(1, 4))):
        x, width = b.mixed(x, width)
    return b.model("x", ["batch", first], b.layer(b.bend(x, (width,)), width, 2))


def row_net(seed: int) -> onnx.ModelProto:
    """Convolutions over one axis, some depthwise or padded, and overlapping maxima."""
    b = Maker(np.random.default_rng(seed))
    x, channels, length = "x", 2, 5
    for _ in range(int(b.rng.integers(1, 3))):
        groups = 2 if b.rng.random() < 0.3 else 1
        weights = b.weight(b.table((2, channels // groups, 3)))
        bias = b.weight(b.table((1, 2))[0], "b")
        pad = int(b.rng.integers(0, 2)) if length > 4 else 1
        x = b.node("Conv", [x, weights, bias], kernel_shape=[3], pads=[pad, pad], group=groups)
        length += 2 * pad - 2
        x = b.bend(x, (2, 1)) if b.rng.random() < 0.8 else x
        if b.rng.random() < 0.6:
            x = b.node("MaxPool", [x], kernel_shape=[3], pads=[1, 1], strides=[1])
    flat = b.node("Reshape", [x, b.weight(np.array([0, 2 * length]), "s")])
    hidden = b.node("Relu", [b.layer(flat, 2 * length, 3)])
    return b.model("x", ["batch", 2, 5], b.layer(hidden, 3, 2))


def any_net(seed: int) -> onnx.ModelProto:
    return row_net(seed) if seed % 3 == 0 else vector_net(seed)


def sample_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    """Shape of the input at batch 1."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    return tuple(d.dim_value or 1 for d in dims)


def some_points(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> list[Array]:
    """Points of a box: corners, inside, and one where entries are equal."""
    inside = [np.clip(rng.uniform(low, high, size=shape), low, high) for _ in range(2)]
    return [*inside, rng.choice([low, high], size=shape), np.full(shape, low), np.full(shape, high)]


def in_range(values: dict[str, Exact], most: float = FLOAT32_MAX) -> bool:
    """Whether no value leaves the range of its type: else the point is no part of any domain."""
    return all(abs(v) <= most for value in values.values() if value.dtype.kind == "O" for v in value.reshape(-1))


def outside(values: dict[str, Exact], low: dict[str, Array], high: dict[str, Array]) -> list[str]:
    """Entries that leave their bounds, by however little."""
    found = []
    for name, value in values.items():
        if name not in low or value.dtype.kind != "O":
            continue
        ends = [np.broadcast_to(end, value.shape).reshape(-1) for end in (low[name], high[name])]
        for entry, (v, a, b) in enumerate(zip(value.reshape(-1), *ends, strict=True)):
            if (np.isfinite(a) and Fraction(float(a)) > v) or (np.isfinite(b) and Fraction(float(b)) < v):
                found.append(f"{name}[{entry}]: {float(v)!r} not in [{a!r}, {b!r}]")
    return found
