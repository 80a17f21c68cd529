"""Convolutions as ONNX nodes: what padding and sizes the node gets so that it does what the primitive says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.tape import Sizes, Window

if TYPE_CHECKING:
    from onnxprune.operators.onnx_tape import OnnxTape, Symbol


def slide(
    tape: OnnxTape,
    x: Symbol,
    weights: Symbol | NDArray[Any],
    window: Window,
    size: Sizes,
    bias: Symbol | NDArray[Any] | None = None,
) -> Symbol:
    """A convolution.

    Args:
        tape: Where to write it.
        x: Shape (batch, in, *spatial).
        weights: Shape (out, in per group, *kernel), without rows.
        window: How it slides.
        size: Number of windows along each spatial axis.
        bias: Shape (out,), without rows.
    """
    flat = flattened(tape, x)
    before, after = [], []
    for k, (first, places) in enumerate(zip(window.before, size, strict=True)):
        reach = (places - 1) * window.strides[k] + extent(weights, window, k)
        behind = reach - first - flat.shape[k + 2]
        flat = tape.cut(flat, k + 2, 0, flat.shape[k + 2] + min(behind, 0))
        before.append(first)
        after.append(max(behind, 0))
    operands = [weights] if bias is None else [weights, bias]
    found = _apply(tape, "Conv", flat, operands, window, [*before, *after], (weights.shape[0], *size))
    return batched_like(tape, found, x)


def unslide(tape: OnnxTape, x: Symbol, weights: Symbol | NDArray[Any], window: Window, size: Sizes) -> Symbol:
    """The adjoint of a convolution.

    A ConvTranspose with equal padding on both sides (what all providers have); the rest is cut or filled.

    Args:
        tape: Where to write it.
        x: Shape (batch, in, *spatial).
        weights: Shape (in, out per group, *kernel), without rows.
        window: How it slides; ``before`` is what is cut off in front.
        size: Spatial sizes of the result.
    """
    places = range(len(size))
    natural = [(x.shape[k + 2] - 1) * window.strides[k] + extent(weights, window, k) for k in places]
    behind = [natural[k] - window.before[k] - size[k] for k in places]
    both = [max(min(window.before[k], behind[k]), 0) for k in places]
    shape = (weights.shape[1] * window.groups, *(natural[k] - 2 * both[k] for k in places))
    found = _apply(tape, "ConvTranspose", flattened(tape, x), [weights], window, [*both, *both], shape)
    for k in places:
        start = window.before[k] - both[k]
        found = tape.cut(found, k + 2, start, min(start + size[k], found.shape[k + 2]))
        found = tape.embed(found, k + 2, 0, size[k] - found.shape[k + 2])
    return batched_like(tape, found, x)


def extent(weights: Symbol | NDArray[Any], window: Window, k: int) -> int:
    """Length of a window."""
    return int((weights.shape[k + 2] - 1) * window.dilations[k] + 1)


def flattened(tape: OnnxTape, x: Symbol) -> Symbol:
    """Rows and batch in one axis."""
    if not x.rows or x.merged:
        return x
    return replace(x, name=tape.emit("Reshape", [x, np.array([-1, *x.shape[1:]])])[0], shape=(1, *x.shape[1:]))


def batched_like(tape: OnnxTape, found: Symbol, x: Symbol) -> Symbol:
    """Undo :func:`flattened`: the batch of ``x`` again in an axis of its own."""
    if not x.rows or x.merged:
        return found
    shape = (x.shape[0], *found.shape[1:])
    return replace(found, name=tape.emit("Reshape", [found, np.array([-1, *shape])])[0], shape=shape)


def _apply(
    tape: OnnxTape,
    op: str,
    x: Symbol,
    operands: Sequence[Symbol | NDArray[Any]],
    window: Window,
    pads: Sequence[int],
    shape: Sizes,
) -> Symbol:
    name = tape.emit(
        op,
        [x, *operands],
        kernel_shape=operands[0].shape[2:],
        strides=window.strides,
        dilations=window.dilations,
        pads=pads,
        group=window.groups,
    )[0]
    return replace(x, name=name, shape=(x.shape[0], *shape))
