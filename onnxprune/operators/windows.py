"""Affine maps of Conv and ConvTranspose: their geometry in numbers, for static sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from onnxprune.operators.base import NodeView, Operator
from onnxprune.operators.interval import Array
from onnxprune.operators.static import folded, input_sizes, is_float, output_sizes, reals, slots
from onnxprune.operators.tape import Sizes, T, Tape, Window


@dataclass(frozen=True)
class Slide:
    """A convolution or transposed convolution with constant weights, ``inside`` and ``outside`` its full shapes."""

    window: Window
    weights: Array
    inside: Sizes
    outside: Sizes


def same_padding(extent: int, stride: int, size: int, *, upper: bool) -> tuple[int, int]:
    """Padding in front and behind with which a window gives ``size / stride`` places, rounded up."""
    return shared_padding(max((-(-size // stride) - 1) * stride + extent - size, 0), upper=upper)


def shared_padding(total: int, *, upper: bool) -> tuple[int, int]:
    """Padding in front and behind; of an odd number the larger part behind for SAME_UPPER."""
    small, large = total // 2, (total + 1) // 2
    return (small, large) if upper else (large, small)


class SlidingLayer(Operator):
    """What Conv and ConvTranspose share: everything but the direction."""

    transposed: ClassVar[bool] = False

    def slide(self, node: NodeView) -> Slide | None:
        """The layer in numbers, None where weights or shapes are not known."""
        weights, geometry = reals(node, 1), self.geometry(node)
        return None if weights is None or geometry is None else Slide(geometry[0], weights, *geometry[1:])

    def geometry(self, node: NodeView) -> tuple[Window, Sizes, Sizes] | None:
        """How it slides, and its full shapes inside and outside; None where they are not known."""
        kernel, inside, outside = input_sizes(node, 1), input_sizes(node, 0), output_sizes(node)
        if kernel is None or inside is None or outside is None or node.constant(0) is not None or not is_float(node):
            return None
        count = len(kernel) - 2
        if count < 1 or len(inside) != len(kernel) or len(outside) != len(kernel):
            return None
        strides = tuple(int(v) for v in node.attr("strides", [1] * count))
        dilations = tuple(int(v) for v in node.attr("dilations", [1] * count))
        extents = tuple((k - 1) * d + 1 for k, d in zip(kernel[2:], dilations, strict=True))
        layout = _transposed_padding if self.transposed else _padding
        before = layout(node, inside[2:], outside[2:], extents, strides)
        if before is None or min(before) < 0:
            return None
        return Window(strides, dilations, before, int(node.attr("group", 1))), inside, outside

    def affine(self, node: NodeView, tape: Tape[T], inputs: Sequence[T | None]) -> list[T] | None:
        slide, x = self.slide(node), inputs[0]
        if slide is None or x is None:
            return None
        run = tape.spread if self.transposed else tape.convolve
        y = run(x, slide.weights, slide.window, slide.outside[2:])
        if not node.has_input(2):
            return [y]
        bias, computed = reals(node, 2), inputs[2]
        column = (-1, *[1] * (len(slide.outside) - 2))
        if computed is not None:
            wide = tape.reshape(computed, (1, slide.outside[1], *[1] * (len(slide.outside) - 2)))
            return [tape.add(y, tape.expand(wide, slide.outside))]
        return None if bias is None else [tape.translate(y, bias.reshape(column))]

    def adjoint(self, node: NodeView, tape: Tape[T], coefficients: Sequence[T | None]) -> list[T | None] | None:
        slide, c = self.slide(node), coefficients[0]
        if slide is None:
            return None
        found: dict[int, T] = {}
        if c is not None:
            run = tape.convolve if self.transposed else tape.spread
            found[0] = run(c, slide.weights, slide.window, slide.inside[2:])
            if node.has_input(2) and node.constant(2) is None:
                channels = (1, slide.outside[1], *[1] * (len(slide.outside) - 2))
                found[2] = tape.reshape(folded(tape, c, channels), slide.outside[1:2])
        return slots(node, found)


def _padding(node: NodeView, inside: Sizes, outside: Sizes, extents: Sizes, strides: Sizes) -> Sizes | None:
    """Zeros in front of the input of a Conv; None where the stated result does not fit."""
    pads, auto = [int(p) for p in node.attr("pads", [0] * (2 * len(inside)))], node.attr("auto_pad", "NOTSET")
    before = []
    for k, size in enumerate(inside):
        first, last = pads[k], pads[len(inside) + k]
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            first, last = same_padding(extents[k], strides[k], size, upper=auto == "SAME_UPPER")
        elif auto == "VALID":
            first = last = 0
        if last < 0 or (size + first + last - extents[k]) // strides[k] + 1 != outside[k]:
            return None
        before.append(first)
    return tuple(before)


def _transposed_padding(node: NodeView, inside: Sizes, outside: Sizes, extents: Sizes, strides: Sizes) -> Sizes | None:
    """What a ConvTranspose cuts off in front of its result; None where the stated result does not fit."""
    pads, auto = [int(p) for p in node.attr("pads", [0] * (2 * len(inside)))], node.attr("auto_pad", "NOTSET")
    extra = [int(p) for p in node.attr("output_padding", [0] * len(inside))]
    wanted = [int(size) for size in node.attr("output_shape", [])][-len(inside) :]
    before = []
    for k, size in enumerate(inside):
        natural = (size - 1) * strides[k] + extents[k] + extra[k]
        first, last = pads[k], pads[len(inside) + k]
        if wanted:
            first, last = shared_padding(max(natural - wanted[k], 0), upper=auto == "SAME_UPPER")
        elif auto in ("SAME_UPPER", "SAME_LOWER"):
            first, last = shared_padding(max(natural - size * strides[k], 0), upper=auto == "SAME_UPPER")
        elif auto == "VALID":
            first = last = 0
        if not wanted and natural - first - last != outside[k]:
            return None
        if wanted and wanted[k] != outside[k]:
            return None
        before.append(first)
    return tuple(before)
