"""Matrix products of any two operands: Gemm, MatMul."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from onnxprune.operators.onnx_tape import OnnxTape, Symbol
from onnxprune.operators.static import filled, is_float
from onnxprune.surgeon.differentiation.rule import Call, Operand, Rule


class MatMul(Rule):
    """a b with batches of matrices; a vector is a row on the left and a column on the right."""

    def matrices(self, call: Call) -> tuple[Operand, Operand]:
        """Both operands with at least two axes, as they are multiplied."""
        return self.as_matrix(call, 0, call.operand(0)), self.as_matrix(call, 1, call.operand(1))

    def as_matrix(self, call: Call, slot: int, x: Operand) -> Operand:
        """An operand (or its tangent) as it is multiplied."""
        if len(call.input_shape(slot)) > 1:
            return x
        shape = (1, *x.shape) if slot == 0 else (*x.shape, 1)
        return call.tape.reshape(x, shape) if isinstance(x, Symbol) else x.reshape(shape)

    def as_given(self, call: Call, slot: int, x: Symbol) -> Symbol:
        """The cotangent of an operand from that of the matrix, batches still to be summed over."""
        sizes = call.input_shape(slot)
        return x if len(sizes) > 1 else call.tape.reshape(x, (*x.shape[:-2], *sizes))

    def forward(self, call: Call) -> list[Symbol] | None:
        """The product."""
        if not is_float(call.node):
            return None
        return [call.tape.reshape(multiplied(call.tape, *self.matrices(call)), call.shape)]

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """Products with the other operand, transposed."""
        c = cotangents[0]
        if c is None:
            return {}
        a, b = self.matrices(call)
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        c = call.tape.reshape(c, (*batch, a.shape[-2], b.shape[-1]))
        found: dict[int, Symbol] = {}
        if 0 in wanted:
            found[0] = self.as_given(call, 0, multiplied(call.tape, c, swapped(call.tape, b)))
        if 1 in wanted:
            found[1] = self.as_given(call, 1, inner(call, a, b, c))
        return found

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """Sum of the products with one operand moved."""
        pair, parts = self.matrices(call), []
        for slot, tangent in enumerate(tangents[:2]):
            if tangent is not None:
                moved = self.as_matrix(call, slot, tangent)
                parts.append(multiplied(call.tape, *((moved, pair[1]) if slot == 0 else (pair[0], moved))))
        total = parts[0] if len(parts) == 1 else call.tape.add(*parts)
        return [call.tape.reshape(total, call.shape)]


class Gemm(MatMul):
    """alpha a' b' + beta c, where ' may be a transposition."""

    def as_matrix(self, call: Call, slot: int, x: Operand) -> Operand:
        """Transposed where the node says so."""
        return swapped(call.tape, x) if int(call.node.attr("transB" if slot else "transA", 0)) else x

    def as_given(self, call: Call, slot: int, x: Symbol) -> Symbol:
        """Transposed back."""
        turned = self.as_matrix(call, slot, x)
        assert isinstance(turned, Symbol)
        return turned

    def _scaled(self, call: Call, name: str, x: Symbol) -> Symbol:
        return call.tape.scale(x, np.array(float(call.node.attr(name, 1.0))))

    def forward(self, call: Call) -> list[Symbol] | None:
        """One node where the rows are those of the matrix, else a product and a sum."""
        if not is_float(call.node):
            return None
        a, b = call.operand(0), call.operand(1)
        c = call.operand(2) if call.node.has_input(2) else None
        if (
            isinstance(a, Symbol)
            and a.merged
            and not _has_rows(b)
            and not _has_rows(c)
            and not call.node.attr("transA")
        ):
            operands = [a, b] if c is None else [a, b, c]
            return [call.tape.append("Gemm", operands, call.shape, **call.node.node.attrs)]
        y = self._scaled(call, "alpha", multiplied(call.tape, *self.matrices(call)))
        if c is None:
            return [y]
        shift = c if isinstance(c, Symbol) else call.tape.constant(c)
        return [call.tape.entrywise("Add", [y, self._scaled(call, "beta", shift)], call.shape)]

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """Of the product, and of the sum."""
        c = cotangents[0]
        if c is None:
            return {}
        found = super().pull(call, [self._scaled(call, "alpha", c)], wanted)
        if 2 in wanted:
            found[2] = self._scaled(call, "beta", c)
        return found

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """Of the product, and of the sum."""
        parts = []
        if any(t is not None for t in tangents[:2]):
            parts.append(self._scaled(call, "alpha", super().push(call, tangents)[0]))
        if len(tangents) > 2 and tangents[2] is not None:
            parts.append(filled(call.tape, self._scaled(call, "beta", tangents[2]), call.shape))
        return [parts[0] if len(parts) == 1 else call.tape.add(*parts)]


def multiplied(tape: OnnxTape, a: Operand, b: Operand) -> Symbol:
    """The product of matrices."""
    return tape.product(a if isinstance(a, Symbol) else tape.constant(a), b)


def swapped(tape: OnnxTape, x: Operand) -> Operand:
    """The last two axes exchanged."""
    if not isinstance(x, Symbol):
        return x.swapaxes(-1, -2)
    rank = len(x.shape)
    return tape.transpose(x, [*range(rank - 2), rank - 1, rank - 2])


def inner(call: Call, a: Operand, b: Operand, c: Symbol) -> Symbol:
    """The first matrix transposed times ``c``, over rows, too, where the second is a single matrix for all of them."""
    tape = call.tape
    whole = not _has_rows(b) and len(b.shape) == 2 and not call.apart
    if not whole or not isinstance(a, Symbol) or not (a.rows and c.rows):
        return multiplied(tape, swapped(tape, a), c)
    flat = [_flat(tape, x, x.shape[-1]) for x in (a, c)]
    return Symbol(tape.emit("Gemm", flat, transA=1)[0], b.shape, rows=False)


def _flat(tape: OnnxTape, x: Symbol, width: int) -> str:
    """All but the last axis as one, rows included."""
    return x.name if x.stored == (-1, width) else tape.emit("Reshape", [x, np.array([-1, width], np.int64)])[0]


def _has_rows(x: Operand | None) -> bool:
    return isinstance(x, Symbol) and x.rows


RULES = {"Gemm": Gemm(), "MatMul": MatMul()}
