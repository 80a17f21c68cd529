"""Affine maps of sums and means over axes and windows: reductions, pooling, running sums."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from onnxprune.operators.base import NodeView, Operator
from onnxprune.operators.interval import Array
from onnxprune.operators.static import input_sizes, is_float, output_sizes, slots, variables
from onnxprune.operators.tape import Sizes, T, Tape, Window


class AxisSum(Operator):
    """A sum over whole axes, divided by the number of terms for means."""

    def summed(self, node: NodeView, rank: int) -> tuple[tuple[int, ...], bool] | None:
        """The axes, and whether it is a mean; None (the default) where they are not known."""
        return None

    def _parts(self, node: NodeView) -> tuple[Sizes, Sizes, tuple[int, ...], Array | None] | None:
        inside, outside = input_sizes(node, 0), output_sizes(node)
        if inside is None or outside is None or variables(node) != [0] or not is_float(node):
            return None
        summed = self.summed(node, len(inside))
        if summed is None:
            return None
        axes, mean = summed
        count = prod(inside[axis] for axis in axes)
        return inside, outside, axes, np.array(1.0 / count) if mean and count > 1 else None

    def affine(self, node: NodeView, tape: Tape[T], inputs: Sequence[T | None]) -> list[T] | None:
        parts, x = self._parts(node), inputs[0]
        if parts is None or x is None:
            return None
        _, outside, axes, share = parts
        total = tape.reshape(tape.total(x, axes) if axes else x, outside)
        return [total if share is None else tape.scale(total, share)]

    def adjoint(self, node: NodeView, tape: Tape[T], coefficients: Sequence[T | None]) -> list[T | None] | None:
        parts, c = self._parts(node), coefficients[0]
        if parts is None:
            return None
        if c is None:
            return slots(node, {})
        inside, _, axes, share = parts
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(inside))
        c = c if share is None else tape.scale(c, share)
        return slots(node, {0: tape.expand(tape.reshape(c, kept), inside)})


class WindowMean(Operator):
    """Means over windows, as a convolution of each channel with ones; every place has its own divisor."""

    def windows(self, node: NodeView) -> tuple[Sizes, Window, Sizes, Sizes, Array] | None:
        """Kernel, window, spatial sizes inside and outside, divisors of shape ``outside``; None if not known."""
        return None

    def affine(self, node: NodeView, tape: Tape[T], inputs: Sequence[T | None]) -> list[T] | None:
        parts, x = self.windows(node), inputs[0]
        if parts is None or x is None:
            return None
        kernel, window, _, outside, divisors = parts
        batch, channels = tape.shape(x)[:2]
        total = tape.convolve(_alone(tape, x), np.ones((1, 1, *kernel)), window, outside)
        return [tape.scale(tape.reshape(total, (batch, channels, *outside)), 1.0 / divisors)]

    def adjoint(self, node: NodeView, tape: Tape[T], coefficients: Sequence[T | None]) -> list[T | None] | None:
        parts, c = self.windows(node), coefficients[0]
        if parts is None:
            return None
        if c is None:
            return slots(node, {})
        kernel, window, inside, _, divisors = parts
        batch, channels = tape.shape(c)[:2]
        shared = _alone(tape, tape.scale(c, 1.0 / divisors))
        found = tape.spread(shared, np.ones((1, 1, *kernel)), window, inside)
        return slots(node, {0: tape.reshape(found, (batch, channels, *inside))})


def _alone(tape: Tape[T], x: T) -> T:
    """Every channel as a sample of its own."""
    shape = tape.shape(x)
    return tape.reshape(x, (shape[0] * shape[1], 1, *shape[2:]))


class RunningSum(Operator):
    """Sums of all entries up to each place of an axis, as a product with a triangular matrix."""

    def _parts(self, node: NodeView) -> tuple[Sizes, int, Array] | None:
        sizes, axes = input_sizes(node, 0), node.constant(1)
        if sizes is None or axes is None or variables(node) != [0] or not is_float(node):
            return None
        axis = int(axes.reshape(-1)[0]) % len(sizes)
        matrix = np.triu(np.ones((sizes[axis], sizes[axis])), int(node.attr("exclusive", 0)))
        return sizes, axis, matrix.T if int(node.attr("reverse", 0)) else matrix

    def affine(self, node: NodeView, tape: Tape[T], inputs: Sequence[T | None]) -> list[T] | None:
        parts, x = self._parts(node), inputs[0]
        return None if parts is None or x is None else [_along(tape, x, parts[1], parts[2])]

    def adjoint(self, node: NodeView, tape: Tape[T], coefficients: Sequence[T | None]) -> list[T | None] | None:
        parts, c = self._parts(node), coefficients[0]
        if parts is None:
            return None
        return slots(node, {} if c is None else {0: _along(tape, c, parts[1], parts[2].T)})


def _along(tape: Tape[T], x: T, axis: int, matrix: Array) -> T:
    """Product with a square matrix along an axis."""
    order = list(range(len(tape.shape(x))))
    order[axis], order[-1] = order[-1], order[axis]
    moved = tape.transpose(x, order)
    shape = tape.shape(moved)
    rows = tape.reshape(moved, (prod(shape[:-1]), shape[-1]))
    return tape.transpose(tape.reshape(tape.matmul(rows, matrix), shape), order)
