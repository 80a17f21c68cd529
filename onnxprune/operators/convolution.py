"""Convolution and transposed convolution."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from onnxprune.operators.affine import affine_interval
from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.channels import ChannelMap, Resized
from onnxprune.operators.interval import TINY, Array, Interval, add, gamma, up
from onnxprune.operators.linear import LinearLayer, linear_layer
from onnxprune.operators.windows import SlidingLayer

KINDS = 64
"""Kinds of windows (by what they see beyond the borders) up to which each is bounded by itself."""
POSITIONAL_LIMIT = 2e8
"""Multiply-adds up to which a convolution's bounds are computed position by position."""


def _bias_interval(layer: LinearLayer, node: NodeView, inputs: Inputs, index: int) -> Interval:
    if layer.bias is not None:
        return Interval.point(layer.bias)
    given = inputs[index] if index < len(inputs) else None
    return given if given is not None else Interval.point(np.zeros(layer.n_out))


class Conv(SlidingLayer):
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
        parts = [layer] if layer.uniform else _seen_taps(layer, node)
        if parts is None:
            return [_per_channel(layer, node, inputs, x.include(0.0), rank)]
        found = [_per_channel(part, node, inputs, x, rank) for part in parts]
        return [Interval.of(np.min([f.lower for f in found], axis=0), np.max([f.upper for f in found], axis=0))]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        return _kernel_channels(node, links, weight_out=0, weight_in=1)

    def resize(self, node: NodeView, sizes: Resized) -> None:
        _resize_group(node, sizes)


class ConvTranspose(SlidingLayer):
    """Transposed convolution: which taps contribute depends on the position, so every subset is covered."""

    op_types = ("ConvTranspose",)
    transposed = True

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


def _seen_taps(layer: LinearLayer, node: NodeView) -> list[LinearLayer] | None:
    """The layer with the taps that one kind of window sees: all inside, or some beyond one border or several.

    Along each axis a window sees the taps between those in front of the map and those behind it. None where the
    padding depends on the size of the map, or where there are more than ``KINDS`` kinds.
    """
    kernel = np.asarray(node.constant(1)).shape[2:]
    axes = len(kernel)
    pads = [int(p) for p in node.attr("pads", [0] * (2 * axes))]
    dilations = [int(d) for d in node.attr("dilations", [1] * axes)]
    if str(node.attr("auto_pad", "NOTSET")) != "NOTSET" or min(pads, default=0) < 0:
        return None
    ranges = []
    for axis, (size, step) in enumerate(zip(kernel, dilations, strict=True)):
        front, behind = (min(size, -(-pads[side] // step)) for side in (axis, axis + axes))
        ranges.append([(a, size - b) for a in range(front + 1) for b in range(behind + 1) if a + b <= size])
    if np.prod([len(r) for r in ranges]) > KINDS:
        return None
    taps = np.arange(layer.weights.shape[2]).reshape(kernel)
    chosen = [taps[tuple(slice(*cut) for cut in cuts)].reshape(-1) for cuts in product(*ranges)]
    return [replace(layer, weights=layer.weights[:, :, seen]) for seen in chosen]


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


OPERATORS: tuple[type[Operator], ...] = (Conv, ConvTranspose)
