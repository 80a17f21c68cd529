"""One normal form for the layers that multiply by constant weights: Conv, ConvTranspose, Gemm, MatMul."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.operators.base import NodeView
from onnxprune.operators.channels import Axis
from onnxprune.operators.interval import Array

KERNELS = ("Conv", "ConvTranspose")
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class LinearLayer:
    """``y[o] = sum over i, taps of weights[o, i, tap] * x[group(o) * I + i] + bias[o]``.

    Weights are float64 copies with every scalar factor (Gemm's alpha) multiplied in.
    """

    node: gs.Node
    weights: Array
    """Shape (out, in per group, taps)."""
    bias: Array | None
    """Shape (out,); zeros where there is none, None where it is not a constant vector."""
    groups: int
    weight_in: int | None
    """Axis of the weight tensor that runs over input channels; None where groups make it relative."""
    weight_out: int
    """Axis of the weight tensor that runs over output channels (of one group for ConvTranspose)."""
    in_axis: int
    out_axis: int
    uniform: bool
    """Whether a channel that is constant over space adds the same amount at every output position."""

    @property
    def reads(self) -> Axis:
        """The axis of the input tensor that is summed over."""
        return (self.node.inputs[0].name, self.in_axis)

    @property
    def writes(self) -> Axis:
        """The axis of the output tensor that runs over units."""
        return (self.node.outputs[0].name, self.out_axis)

    @property
    def n_out(self) -> int:
        """Number of units."""
        return int(self.weights.shape[0])

    @property
    def n_in(self) -> int:
        """Number of input channels, over all groups."""
        return int(self.weights.shape[1]) * self.groups

    @property
    def depthwise(self) -> bool:
        """One input channel per group."""
        return self.groups > 1 and self.weights.shape[1] == 1

    def columns(self) -> Array:
        """Tap sums, shape (out, in over all groups): what one unit of a constant input channel adds."""
        sums = self.weights.sum(axis=2)
        return sums if self.groups == 1 else self._spread(sums)

    def absolute_columns(self) -> Array:
        """Sums of absolute taps, shape (out, in over all groups)."""
        sums = np.abs(self.weights).sum(axis=2)
        return sums if self.groups == 1 else self._spread(sums)

    def reading(self, index: int) -> tuple[slice, int]:
        """The block of output channels that read input channel ``index``, and its place in their group."""
        per_group = int(self.weights.shape[1])
        outs = self.n_out // self.groups
        group = index // per_group
        return slice(group * outs, (group + 1) * outs), index % per_group

    def _spread(self, sums: Array) -> Array:
        full = np.zeros((self.n_out, self.n_in))
        outs, ins = self.n_out // self.groups, int(self.weights.shape[1])
        for group in range(self.groups):
            rows = slice(group * outs, (group + 1) * outs)
            full[rows, group * ins : (group + 1) * ins] = sums[rows]
        return full


def linear_layer(view: NodeView) -> LinearLayer | None:
    """The normal form of a node, or None where it is not a layer with constant float weights."""
    if view.op not in LINEAR or (view.node.domain or "") not in ("", "ai.onnx"):
        return None
    raw = view.constant(1)
    if raw is None or raw.dtype.kind not in "fV" or raw.size == 0:
        return None
    weights = raw.astype(np.float64)
    if not np.isfinite(weights).all():
        return None
    if view.op in KERNELS:
        return _kernel(view, weights)
    return _gemm(view, weights) if view.op == "Gemm" else _matmul(view, weights)


def _kernel(view: NodeView, weights: Array) -> LinearLayer | None:
    if weights.ndim < 3:
        return None
    groups = int(view.attr("group", 1))
    taps = weights.reshape(weights.shape[0], weights.shape[1], -1)
    transposed = view.op == "ConvTranspose"
    if transposed:
        ins, outs = taps.shape[0] // groups, taps.shape[1]
        taps = taps.reshape(groups, ins, outs, -1).swapaxes(1, 2).reshape(groups * outs, ins, -1)
    if taps.shape[0] % groups:
        return None
    bias = _vector(view, 2, taps.shape[0])
    return LinearLayer(
        node=view.node,
        weights=taps,
        bias=bias,
        groups=groups,
        weight_in=(0 if transposed else 1) if groups == 1 else None,
        weight_out=1 if transposed else 0,
        in_axis=1,
        out_axis=1,
        uniform=_uniform_kernel(view, taps.shape[2]),
    )


def _uniform_kernel(view: NodeView, taps: int) -> bool:
    """Without padding every position sees every tap; a transposed convolution only with a single tap."""
    padded = any(int(p) for p in view.attr("pads", [])) or view.attr("auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
    )
    if view.op == "Conv":
        return not padded
    single = taps == 1 and all(int(s) == 1 for s in view.attr("strides", []))
    extended = any(int(p) for p in view.attr("output_padding", [])) or view.attr("output_shape") is not None
    return single and not padded and not extended


def _gemm(view: NodeView, weights: Array) -> LinearLayer | None:
    if weights.ndim != 2 or int(view.attr("transA", 0)):
        return None
    transposed = bool(int(view.attr("transB", 0)))
    matrix = (weights if transposed else weights.T) * float(view.attr("alpha", 1.0))
    bias = _vector(view, 2, matrix.shape[0])
    if bias is not None:
        bias = bias * float(view.attr("beta", 1.0))
    return LinearLayer(
        node=view.node,
        weights=matrix[:, :, None],
        bias=bias,
        groups=1,
        weight_in=1 if transposed else 0,
        weight_out=0 if transposed else 1,
        in_axis=1,
        out_axis=1,
        uniform=True,
    )


def _matmul(view: NodeView, weights: Array) -> LinearLayer | None:
    shape = view.in_shape(0)
    if weights.ndim != 2 or shape is None or len(shape) < 2:
        return None
    last = len(shape) - 1
    return LinearLayer(
        node=view.node,
        weights=weights.T[:, :, None],
        bias=np.zeros(weights.shape[1]),
        groups=1,
        weight_in=0,
        weight_out=1,
        in_axis=last,
        out_axis=last,
        uniform=True,
    )


def _vector(view: NodeView, index: int, length: int) -> Array | None:
    """A constant bias as a vector: a row, or a scalar repeated; None where it varies along the batch or is computed."""
    if not view.has_input(index):
        return np.zeros(length)
    values = view.constant(index)
    if values is None or values.size not in (1, length) or (values.size == length and values.shape[-1:] != (length,)):
        return None
    flat = values.astype(np.float64).reshape(-1)
    return np.broadcast_to(flat, (length,)).copy() if np.isfinite(flat).all() else None
