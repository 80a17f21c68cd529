"""Dense layers and BatchNormalization, and the bounds of an affine map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.channels import ChannelMap
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
from onnxprune.operators.linear import linear_layer
from onnxprune.operators.products import MatrixProduct, Product, gemm_product, matmul_product
from onnxprune.operators.static import input_sizes, output_sizes, reals, slots
from onnxprune.operators.tape import T, Tape


def affine_interval(
    weights: Array, absolute: Array, terms: int, inputs: Interval, bias: Interval, *, plain: bool = False
) -> Interval:
    """Bounds of ``W x + b`` for inputs whose last axis runs over channels (methods: centre and radius).

    Args:
        weights: Shape (out, in): sums over taps.
        absolute: Shape (out, in): sums of absolute taps.
        terms: Length of the longest sum.
        inputs: Bounds with a last axis of length ``in``.
        bias: Bounds of shape (out,).
        plain: The weights are single taps: a sum of terms of one sign keeps it, whatever the rounding.

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
    return _signed(sound.meet(by_size), weights, inputs, bias) if plain and inputs.ndim else sound.meet(by_size)


def _signed(found: Interval, weights: Array, inputs: Interval, bias: Interval) -> Interval:
    """No less than 0 where no term can be negative, no more than 0 where none can be positive."""
    rising, falling = (np.asarray(mask, dtype=np.float64).T for mask in (weights > 0, weights < 0))
    below, above = (np.asarray(mask, dtype=np.float64) for mask in (inputs.lower < 0, inputs.upper > 0))
    negative = (below @ rising + above @ falling > 0) | (bias.lower < 0)
    positive = (above @ rising + below @ falling > 0) | (bias.upper > 0)
    return Interval.of(
        np.where(negative, found.lower, np.maximum(found.lower, 0.0)),
        np.where(positive, found.upper, np.minimum(found.upper, 0.0)),
    )


def _masked(magnitude: Array) -> Array:
    return np.asarray(magnitude != 0, dtype=np.float64)


class Gemm(MatrixProduct):
    """General matrix product with constant or computed operands."""

    op_types = ("Gemm",)

    def product(self, node: NodeView) -> Product | None:
        return gemm_product(node)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        layer = linear_layer(node)
        x = inputs[0]
        if layer is None or x is None:
            return None
        x = x.aligned(2).map(lambda v: np.broadcast_to(v, (v.shape[0], layer.n_in)))
        matrix = layer.weights[:, :, 0]
        if layer.bias is not None:
            return [affine_interval(matrix, np.abs(matrix), layer.n_in, x, Interval.point(layer.bias), plain=True)]
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


class MatMul(MatrixProduct):
    """Matrix product; with a constant second operand it is a layer of units."""

    op_types = ("MatMul",)

    def product(self, node: NodeView) -> Product | None:
        return matmul_product(node)

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

    @staticmethod
    def _parameters(node: NodeView) -> tuple[Array, Array, Array] | None:
        """Factor, mean and shift per channel, along axis 1 of a tensor; None in training mode."""
        found = [values for values in (reals(node, i) for i in range(1, 5)) if values is not None]
        sizes = input_sizes(node, 0)
        if sizes is None or len(found) < 4 or output_sizes(node) != sizes or int(node.attr("training_mode", 0)):
            return None
        scale, shift, mean, variance = (values.reshape(-1, *[1] * (len(sizes) - 2)) for values in found)
        widened = variance + float(node.attr("epsilon", np.float32(1e-5)))
        if (widened <= 0).any() or len(sizes) < 2 or node.constant(0) is not None:
            return None
        return scale / np.sqrt(widened), mean, shift

    def affine(self, node: NodeView, tape: Tape[T], inputs: Sequence[T | None]) -> list[T] | None:
        parameters, x = self._parameters(node), inputs[0]
        if parameters is None or x is None:
            return None
        factor, mean, shift = parameters
        return [tape.translate(tape.scale(tape.translate(x, -mean), factor), shift)]

    def adjoint(self, node: NodeView, tape: Tape[T], coefficients: Sequence[T | None]) -> list[T | None] | None:
        parameters, c = self._parameters(node), coefficients[0]
        if parameters is None or any(other is not None for other in coefficients[1:]):
            return None
        return slots(node, {} if c is None else {0: tape.scale(c, parameters[0])})

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


OPERATORS: tuple[type[Operator], ...] = (Gemm, MatMul, BatchNormalization)
