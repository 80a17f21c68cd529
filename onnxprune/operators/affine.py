"""Layers with weights: Conv, ConvTranspose, Gemm, MatMul, BatchNormalization."""

from __future__ import annotations

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.channels import ChannelMap, Resized
from onnxprune.operators.interval import (
    TINY,
    Array,
    Interval,
    add,
    divide,
    gamma,
    multiply,
    subtract,
    up,
    widen,
)
from onnxprune.operators.linear import LinearLayer, linear_layer

POSITIONAL_LIMIT = 2e8
"""Multiply-adds up to which a convolution's bounds are computed position by position."""


def affine_interval(weights: Array, absolute: Array, terms: int, inputs: Interval, bias: Interval) -> Interval:
    """Bounds of ``W x + b`` for inputs whose last axis runs over channels (methods: centre and radius).

    Args:
        weights: Shape (out, in): sums over taps.
        absolute: Shape (out, in): sums of absolute taps.
        terms: Length of the longest sum.
        inputs: Bounds with a last axis of length ``in``.
        bias: Bounds of shape (out,).

    Returns:
        The intersection of two enclosures: centre and radius, and the bias plus or minus the largest
        possible sum, which is the sharper one where all weights are tiny.
    """
    g = gamma(terms)
    center, radius = inputs.center_radius()
    bias_center, bias_radius = bias.center_radius()
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        wide = radius + g * (np.abs(center) + radius) + np.where((center == 0) & (radius == 0), 0.0, TINY)
        y_center = center @ weights.T + bias_center
        spread = (wide @ absolute.T + bias_radius + g * (np.abs(y_center) + np.abs(bias_center))) * (
            1 + g
        ) + terms * TINY
        by_center = Interval.of(y_center - up(spread), y_center + up(spread))
        total = (inputs.magnitude() @ absolute.T) * (1 + g) + terms * TINY
        silent = absolute.sum(axis=1) == 0
        if inputs.ndim:
            silent = silent | (_masked(inputs.magnitude()) @ (absolute != 0).T.astype(np.float64) == 0)
        total = np.where(silent, 0.0, total)
    by_size = add(bias, Interval.of(-total, total))
    sound = Interval.of(
        np.where(np.isfinite(by_center.lower), by_center.lower, -np.inf),
        np.where(np.isfinite(by_center.upper), by_center.upper, np.inf),
    )
    return sound.meet(by_size)


def _masked(magnitude: Array) -> Array:
    return np.asarray(magnitude != 0, dtype=np.float64)


def _bias_interval(layer: LinearLayer, node: NodeView, inputs: Inputs, index: int) -> Interval:
    if layer.bias is not None:
        return Interval.point(layer.bias)
    given = inputs[index] if index < len(inputs) else None
    return given if given is not None else Interval.point(np.zeros(layer.n_out))


class Conv(Operator):
    """Convolution: per channel over any size, position by position where shapes are static and bounds differ."""

    op_types = ("Conv",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        layer = linear_layer(node)
        x = inputs[0]
        if layer is None or x is None:
            return None
        rank = 2 + np.asarray(node.constant(1)).ndim - 2
        x = x.aligned(rank)
        spatial = tuple(range(2, rank))
        if any(x.shape[a] > 1 for a in spatial):
            positional = _positional(layer, node, x)
            if positional is not None:
                return [positional]
            x = x.hull_over(spatial)
        if not layer.uniform:
            x = x.include(0.0)
        return [_per_channel(layer, node, inputs, x, rank)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        return _kernel_channels(node, links, weight_out=0, weight_in=1)

    def resize(self, node: NodeView, sizes: Resized) -> None:
        _resize_group(node, sizes)


class ConvTranspose(Operator):
    """Transposed convolution: which taps contribute depends on the position, so every subset is covered."""

    op_types = ("ConvTranspose",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        layer = linear_layer(node)
        x = inputs[0]
        if layer is None or x is None:
            return None
        rank = np.asarray(node.constant(1)).ndim
        x = x.aligned(rank).hull_over(tuple(range(2, rank)))
        if layer.uniform:
            return [_per_channel(layer, node, inputs, x, rank)]
        per_tap = [
            LinearLayer(**{**layer.__dict__, "weights": layer.weights[:, :, t : t + 1], "bias": np.zeros(layer.n_out)})
            for t in range(layer.weights.shape[2])
        ]
        total = Interval.point(np.zeros((1,) * rank))
        for part in per_tap:
            total = add(total, _per_channel(part, node, inputs, x.include(0.0), rank))
        bias = _bias_interval(layer, node, inputs, 2)
        return [add(total, bias.map(lambda v: v.reshape((1, -1) + (1,) * (rank - 2))))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        return _kernel_channels(node, links, weight_out=1, weight_in=0)

    def resize(self, node: NodeView, sizes: Resized) -> None:
        _resize_group(node, sizes)


def _per_channel(layer: LinearLayer, node: NodeView, inputs: Inputs, x: Interval, rank: int) -> Interval:
    """Bounds with one interval per channel (axis 1), for inputs that are uniform over space."""
    batch = x.shape[0]
    flat = x.map(lambda v: np.broadcast_to(v, (batch, layer.n_in) + (1,) * (rank - 2)).reshape(batch, layer.n_in))
    bias = _bias_interval(layer, node, inputs, 2)
    ins, outs = int(layer.weights.shape[1]), layer.n_out // layer.groups
    sums, absolute = layer.weights.sum(axis=2), np.abs(layer.weights).sum(axis=2)
    terms = ins * int(layer.weights.shape[2])
    lows, highs = [], []
    if ins == 1 and layer.groups > 1:
        lanes = flat.map(lambda v: np.repeat(v, outs, axis=1))
        low, high = _lanes(sums[:, 0], absolute[:, 0], terms, lanes, bias)
        lows, highs = [low], [high]
    else:
        for group in range(layer.groups):
            rows = slice(group * outs, (group + 1) * outs)
            part = affine_interval(
                sums[rows],
                absolute[rows],
                terms,
                flat.map(lambda v, g=group: v[:, g * ins : (g + 1) * ins]),  # type: ignore[misc] # bound early
                bias if bias.ndim == 0 or bias.shape[-1] == 1 else bias.map(lambda v, r=rows: v[..., r]),  # type: ignore[misc]
            )
            lows.append(part.lower)
            highs.append(part.upper)
    shape = (batch, layer.n_out) + (1,) * (rank - 2)
    low, high = np.concatenate(lows, axis=1), np.concatenate(highs, axis=1)
    return Interval.of(low.reshape(shape), high.reshape(shape))


def _lanes(sums: Array, absolute: Array, terms: int, x: Interval, bias: Interval) -> tuple[Array, Array]:
    """Depthwise form of :func:`affine_interval`: every output has one input channel."""
    g = gamma(terms)
    center, radius = x.center_radius()
    bias_center, bias_radius = bias.center_radius()
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        zero = (absolute == 0) | ((center == 0) & (radius == 0))
        y_center = center * sums + bias_center
        wide = radius + g * (np.abs(center) + radius) + TINY
        spread = (wide * absolute + bias_radius + g * (np.abs(y_center) + np.abs(bias_center))) * (1 + g) + terms * TINY
        total = np.where(zero, 0.0, x.magnitude() * absolute * (1 + g) + terms * TINY)
    by_size = add(bias, Interval.of(-total, total))
    result = Interval.of(y_center - up(spread), y_center + up(spread)).meet(by_size)
    return result.lower, result.upper


def _positional(layer: LinearLayer, node: NodeView, x: Interval) -> Interval | None:
    """Bounds at every position by direct float64 sums over windows; None where that is too large or not static."""
    in_shape = node.in_shape(0)
    kernel = np.asarray(node.constant(1)).shape[2:]
    if in_shape is None or len(kernel) != 2 or layer.groups != 1 or layer.bias is None:
        return None
    if not all(isinstance(d, int) for d in in_shape[1:]):
        return None
    channels, height, width = (int(d) for d in in_shape[1:] if isinstance(d, int))
    pads = _explicit_pads(node, (height, width), kernel)
    strides = [int(s) for s in node.attr("strides", [1, 1])]
    dilations = [int(d) for d in node.attr("dilations", [1, 1])]
    out = [
        (size + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i, size in enumerate((height, width))
    ]
    terms = int(layer.weights.shape[1] * layer.weights.shape[2])
    if min(out) <= 0 or float(layer.n_out) * terms * out[0] * out[1] > POSITIONAL_LIMIT or x.shape[0] != 1:
        return None
    full = x.map(lambda v: np.broadcast_to(v, (1, channels, height, width)))
    margin = ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3]))
    padded = full.map(lambda v: np.pad(v, margin))
    span = [dilations[i] * (kernel[i] - 1) + 1 for i in range(2)]

    def windows(values: Array) -> Array:
        view = np.lib.stride_tricks.sliding_window_view(values[0], span, axis=(1, 2))
        view = view[:, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
        return view.transpose(1, 2, 0, 3, 4).reshape(out[0] * out[1], terms)

    weights = layer.weights.reshape(layer.n_out, terms)
    bounds = affine_interval(weights, np.abs(weights), terms, padded.map(windows), Interval.point(layer.bias))
    return bounds.map(lambda v: v.T.reshape(1, layer.n_out, out[0], out[1]))


def _explicit_pads(node: NodeView, sizes: tuple[int, int], kernel: tuple[int, ...]) -> list[int]:
    mode = str(node.attr("auto_pad", "NOTSET"))
    if mode in ("NOTSET", "VALID"):
        return [int(p) for p in node.attr("pads", [0, 0, 0, 0])] if mode == "NOTSET" else [0, 0, 0, 0]
    strides = [int(s) for s in node.attr("strides", [1, 1])]
    dilations = [int(d) for d in node.attr("dilations", [1, 1])]
    before, after = [], []
    for i, size in enumerate(sizes):
        out = -(-size // strides[i])
        total = max(0, (out - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        before.append(small if mode == "SAME_UPPER" else large)
        after.append(large if mode == "SAME_UPPER" else small)
    return [*before, *after]


def _kernel_channels(node: NodeView, links: ChannelMap, *, weight_out: int, weight_in: int) -> bool:
    layer = linear_layer(node)
    if layer is None:
        return False
    x, w, y = node.input(0), node.input(1), node.output()
    out, ins = layer.n_out, layer.n_in
    if layer.groups == 1:
        links.same((y, 1), (w, weight_out))
        links.same((x, 1), (w, weight_in))
        links.read((x, 1))
    elif layer.depthwise:
        per = out // layer.groups
        outs = np.arange(out, dtype=np.int64)
        links.link((y, 1), outs, (x, 1), outs // per)
        if weight_out == 0:
            links.same((y, 1), (w, 0))
            links.mention((w, 1))
        else:
            links.link((x, 1), outs // per, (w, 0), outs // per)
            links.lock((w, 1), "depthwise multiplier")
    else:
        _whole_groups(layer, links, x, w, y, out, ins, transposed=weight_out == 1)
    if node.has_input(2):
        links.same((y, 1), (node.input(2), 0))
    links.unit((y, 1))
    return True


def _whole_groups(
    layer: LinearLayer, links: ChannelMap, x: str, w: str, y: str, out: int, ins: int, *, transposed: bool
) -> None:
    """A grouped convolution loses whole groups only: all channels of a group hang together."""
    first = np.repeat(np.arange(layer.groups, dtype=np.int64), out // layer.groups) * (ins // layer.groups)
    outs, inputs = np.arange(out, dtype=np.int64), np.arange(ins, dtype=np.int64)
    links.link((y, 1), outs, (x, 1), first)
    per = ins // layer.groups
    links.link((x, 1), inputs, (x, 1), inputs // per * per)
    if transposed:
        links.link((x, 1), inputs, (w, 0), inputs)
        links.lock((w, 1), "channels of a group")
    else:
        links.link((y, 1), outs, (w, 0), outs)
        links.lock((w, 1), "channels of a group")


def _resize_group(node: NodeView, sizes: Resized) -> None:
    groups = int(node.attr("group", 1))
    axis = (node.input(0), 1)
    shape = node.in_shape(0)
    if groups > 1 and axis in sizes.kept and shape is not None and isinstance(shape[1], int):
        node.node.attrs["group"] = groups * len(sizes.kept[axis]) // shape[1]


class Gemm(Operator):
    """General matrix product with constant or computed operands."""

    op_types = ("Gemm",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        layer = linear_layer(node)
        x = inputs[0]
        if layer is None or x is None:
            return None
        x = x.aligned(2).map(lambda v: np.broadcast_to(v, (v.shape[0], layer.n_in)))
        matrix = layer.weights[:, :, 0]
        if layer.bias is not None:
            return [affine_interval(matrix, np.abs(matrix), layer.n_in, x, Interval.point(layer.bias))]
        product = affine_interval(matrix, np.abs(matrix), layer.n_in, x, Interval.point(np.zeros(layer.n_out)))
        given = inputs[2] if len(inputs) > 2 else None
        if given is None:
            return [product]
        beta = Interval.point(float(node.attr("beta", 1.0)))
        return [add(product, multiply(given, beta))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        layer = linear_layer(node)
        if layer is None:
            return False
        x, w, y = node.input(0), node.input(1), node.output()
        links.same((y, 1), (w, layer.weight_out))
        if layer.weight_in is not None:
            links.same((x, 1), (w, layer.weight_in))
        links.read((x, 1))
        links.same((y, 0), (x, 0))
        if node.has_input(2):
            _bias_channels(node, links, 2, y, layer.n_out)
        links.unit((y, 1))
        return True


def _bias_channels(node: NodeView, links: ChannelMap, index: int, y: str, length: int) -> None:
    name, shape = node.input(index), node.in_shape(index)
    if shape is None:
        links.lock((y, 1), "bias of unknown shape")
        return
    for axis, size in enumerate(shape):
        out_axis = 2 - len(shape) + axis
        if out_axis == 1 and size == length:
            links.same((y, 1), (name, axis))
        elif size == 1:
            links.lock((name, axis), "broadcast")
        elif out_axis == 0:
            links.same((y, 0), (name, axis))


class MatMul(Operator):
    """Matrix product; with a constant second operand it is a layer of units."""

    op_types = ("MatMul",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        layer = linear_layer(node)
        a, b = inputs[0], inputs[1]
        shape = node.in_shape(0)
        if layer is not None and a is not None and shape is not None:
            a = a.aligned(len(shape)).map(lambda v: np.broadcast_to(v, (*v.shape[:-1], layer.n_in)))
            if a.lower.size > 5e7:
                a = a.hull_over(tuple(range(a.ndim - 1)))
            matrix = layer.weights[:, :, 0]
            return [affine_interval(matrix, np.abs(matrix), layer.n_in, a, Interval.point(np.zeros(layer.n_out)))]
        if a is None or b is None or shape is None or not isinstance(shape[-1], int):
            return None
        return [_product(a, b, shape[-1])]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        layer = linear_layer(node)
        if layer is None:
            return False
        x, w, y = node.input(0), node.input(1), node.output()
        links.same((y, layer.out_axis), (w, 1))
        links.same((x, layer.in_axis), (w, 0))
        links.read((x, layer.in_axis))
        for axis in range(layer.in_axis):
            links.same((x, axis), (y, axis))
        links.unit((y, layer.out_axis))
        return True


def _product(a: Interval, b: Interval, terms: int) -> Interval:
    """Product of two computed matrices: one hull of a single product, times the number of terms."""
    single = multiply(Interval.of(a.lower.min(), a.upper.max()), Interval.of(b.lower.min(), b.upper.max()))
    return widen(multiply(single, Interval.point(float(terms))), gamma(terms))


class BatchNormalization(Operator):
    """Inference form: scale, shift, mean and variance per channel."""

    op_types = ("BatchNormalization",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        x = inputs[0]
        parameters = [node.constant(i) for i in range(1, 5)]
        shape = node.in_shape(0)
        if x is None or shape is None or any(p is None for p in parameters) or int(node.attr("training_mode", 0)):
            return None
        scale, shift, mean, variance = (np.asarray(p, dtype=np.float64) for p in parameters)
        epsilon = float(node.attr("epsilon", np.float32(1e-5)))
        if (variance + epsilon <= 0).any():
            return None
        column = (1, -1) + (1,) * (len(shape) - 2)
        root = Interval.of(*_square_root(variance, epsilon))
        factor = divide(Interval.point(scale), root).map(lambda v: v.reshape(column))
        centred = subtract(x.aligned(len(shape)), Interval.point(mean.reshape(column)))
        unknown = [Interval.everything() for _ in range(node.n_outputs - 1)]
        return [add(multiply(centred, factor), Interval.point(shift.reshape(column))), *unknown]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        shape = node.in_shape(0)
        if shape is None or len([t for t in node.node.outputs if t.name]) > 1:
            return False
        x, y = node.input(0), node.output()
        for axis in range(len(shape)):
            links.same((x, axis), (y, axis))
        for index in range(1, 5):
            links.same((y, 1), (node.input(index), 0))
        return True


def _square_root(variance: Array, epsilon: float) -> tuple[Array, Array]:
    root = np.sqrt(variance + epsilon)
    return root * (1 - 1e-15), root * (1 + 1e-15)


OPERATORS: tuple[type[Operator], ...] = (Conv, ConvTranspose, Gemm, MatMul, BatchNormalization)
