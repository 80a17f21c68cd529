"""Affine maps of the layers that multiply by a constant matrix: Gemm and MatMul, whichever operand is constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.operators.base import NodeView, Operator
from onnxprune.operators.interval import Array
from onnxprune.operators.static import filled, folded, input_sizes, is_float, output_sizes, reals, slots
from onnxprune.operators.tape import Sizes, T, Tape


@dataclass(frozen=True)
class Product:
    """``x @ matrix``, or ``matrix @ x`` where x is the second operand.

    Attributes:
        slot: Input slot of x.
        sizes: Static shape of x.
        matrix: The other operand, with at least two axes.
        flip: Whether the last two axes of x are exchanged first.
        result: Shape of the product.
    """

    slot: int
    sizes: Sizes
    matrix: Array
    flip: bool
    result: Sizes

    @property
    def _operand(self) -> Sizes:
        """Shape of x as it is multiplied: a vector is a row on the left and a column on the right."""
        if len(self.sizes) == 1:
            return (1, *self.sizes) if self.slot == 0 else (*self.sizes, 1)
        return (*self.sizes[:-2], *self.sizes[-2:][::-1]) if self.flip else self.sizes

    def forward(self, tape: Tape[T], x: T) -> T:
        """The product."""
        x = tape.reshape(_swapped(tape, x) if self.flip else x, self._operand)
        if self.slot == 0:
            return tape.reshape(_times(tape, x, self.matrix), self.result)
        found = _times(tape, _swapped(tape, x), self.matrix.swapaxes(-1, -2))
        return tape.reshape(_swapped(tape, found), self.result)

    def backward(self, tape: Tape[T], coefficients: T) -> T:
        """Coefficients on x."""
        operand = self._operand
        batch = np.broadcast_shapes(operand[:-2], self.matrix.shape[:-2])
        if self.slot == 0:
            c = tape.reshape(coefficients, (*batch, operand[-2], self.matrix.shape[-1]))
            found = _times(tape, c, self.matrix.swapaxes(-1, -2))
        else:
            c = tape.reshape(coefficients, (*batch, self.matrix.shape[-2], operand[-1]))
            found = _swapped(tape, _times(tape, _swapped(tape, c), self.matrix))
        found = folded(tape, found, operand)
        return _swapped(tape, found) if self.flip else tape.reshape(found, self.sizes)


def _swapped(tape: Tape[T], x: T) -> T:
    """The last two axes exchanged."""
    rank = len(tape.shape(x))
    return tape.transpose(x, [*range(rank - 2), rank - 1, rank - 2])


def _times(tape: Tape[T], x: T, matrix: Array) -> T:
    """``x @ matrix``, where x gets as many axes as the batches of matrices ask for."""
    own = tape.shape(x)
    return tape.matmul(tape.reshape(x, (1,) * (matrix.ndim - len(own)) + own), matrix)


class MatrixProduct(Operator):
    """What Gemm and MatMul share: a product with a constant matrix, and a term that is added."""

    def product(self, node: NodeView) -> Product | None:
        """The product; None (the default) where none or both of the factors are constant."""
        return None

    def affine(self, node: NodeView, tape: Tape[T], inputs: Sequence[T | None]) -> list[T] | None:
        product = self.product(node)
        x = None if product is None else inputs[product.slot]
        if product is None or x is None:
            return None
        y = product.forward(tape, x)
        if not node.has_input(2):
            return [y]
        bias, z, beta = reals(node, 2), inputs[2], np.array(float(node.attr("beta", 1.0)))
        if z is not None:
            return [tape.add(y, filled(tape, tape.scale(z, beta), product.result))]
        return None if bias is None else [tape.translate(y, bias * beta)]

    def adjoint(self, node: NodeView, tape: Tape[T], coefficients: Sequence[T | None]) -> list[T | None] | None:
        product, c = self.product(node), coefficients[0]
        if product is None:
            return None
        found: dict[int, T] = {}
        if c is None:
            return slots(node, found)
        found[product.slot] = product.backward(tape, c)
        if node.has_input(2) and node.constant(2) is None:
            sizes = input_sizes(node, 2)
            if sizes is None:
                return None
            found[2] = tape.scale(folded(tape, c, sizes), np.array(float(node.attr("beta", 1.0))))
        return slots(node, found)


def constant_factor(node: NodeView) -> tuple[int, Sizes, Array, Sizes] | None:
    """Slot and shape of the variable factor, the constant one, and the shape of the result."""
    values = [reals(node, index) for index in (0, 1)]
    result = output_sizes(node)
    if result is None or (values[0] is None) == (values[1] is None):
        return None
    slot = 0 if values[0] is None else 1
    sizes, matrix = input_sizes(node, slot), values[1 - slot]
    if sizes is None or matrix is None or not sizes or matrix.ndim == 0 or node.constant(slot) is not None:
        return None
    return slot, sizes, matrix, result


def gemm_product(node: NodeView) -> Product | None:
    """Product of a Gemm; the scalar alpha is multiplied into the matrix."""
    found = constant_factor(node)
    if found is None or not is_float(node):
        return None
    slot, sizes, matrix, result = found
    turned = [bool(int(node.attr(name, 0))) for name in ("transA", "transB")]
    matrix = (matrix.T if turned[1 - slot] else matrix) * float(node.attr("alpha", 1.0))
    return Product(slot, sizes, matrix, turned[slot], result)


def matmul_product(node: NodeView) -> Product | None:
    """Product of a MatMul, of any rank."""
    found = constant_factor(node)
    if found is None or not is_float(node):
        return None
    slot, sizes, matrix, result = found
    if matrix.ndim == 1:
        matrix = matrix[:, None] if slot == 0 else matrix[None, :]
    return Product(slot, sizes, matrix, flip=False, result=result)
