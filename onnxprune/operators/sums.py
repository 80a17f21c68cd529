"""Affine maps of sums and of products with constants, entry by entry, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.operators.base import NodeView
from onnxprune.operators.elementwise import Broadcasting
from onnxprune.operators.interval import Array
from onnxprune.operators.static import filled, folded, input_sizes, is_float, output_sizes, reals, slots, variables
from onnxprune.operators.tape import Sizes, T, Tape


def _fits(node: NodeView, *, supported: bool) -> Sizes | None:
    """Shape of the result, None where a rule for sums does not apply."""
    known = all(input_sizes(node, k) is not None for k in range(node.n_inputs))
    return output_sizes(node) if supported and known and variables(node) and is_float(node) else None


class AffineSum(Broadcasting):
    """A sum of operands with fixed signs and one common factor."""

    def signs(self, node: NodeView) -> list[int]:
        """1 or -1 for each operand."""
        return [-1 if node.op == "Sub" and k == 1 else 1 for k in range(node.n_inputs)]

    def divisor(self, node: NodeView) -> int:
        """What the sum is divided by."""
        return node.n_inputs if node.op == "Mean" else 1

    def affine(self, node: NodeView, tape: Tape[T], inputs: Sequence[T | None]) -> list[T] | None:
        shape = _fits(node, supported=self.supported(node))
        if shape is None:
            return None
        total: T | None = None
        shift = np.zeros(())
        for k, (x, sign) in enumerate(zip(inputs, self.signs(node), strict=True)):
            constant = reals(node, k)
            if x is None:
                if constant is None:
                    return None
                shift = shift + (np.abs(constant) if tape.absolute else sign * constant)
                continue
            part = filled(tape, x, shape)
            part = tape.negate(part) if sign < 0 else part
            total = part if total is None else tape.add(total, part)
        if total is None:
            return None
        total = tape.translate(total, shift) if shift.any() else total
        return [tape.scale(total, np.array(1.0 / self.divisor(node))) if self.divisor(node) > 1 else total]

    def adjoint(self, node: NodeView, tape: Tape[T], coefficients: Sequence[T | None]) -> list[T | None] | None:
        shape, c = _fits(node, supported=self.supported(node)), coefficients[0]
        if shape is None:
            return None
        found: dict[int, T] = {}
        if c is not None:
            c = tape.scale(c, np.array(1.0 / self.divisor(node))) if self.divisor(node) > 1 else c
            for k in variables(node):
                part = folded(tape, c, input_sizes(node, k) or ())
                found[k] = tape.negate(part) if self.signs(node)[k] < 0 else part
        return slots(node, found)


class ConstantFactor(Broadcasting):
    """A product of one variable operand with constants."""

    def factor(self, node: NodeView, slot: int) -> Array | None:
        """What the operand in a slot is multiplied by; None (the default) where that is not known."""
        return None

    def _parts(self, node: NodeView) -> tuple[int, Sizes, Array] | None:
        shape, slots_used = _fits(node, supported=self.supported(node)), variables(node)
        if shape is None or len(slots_used) != 1:
            return None
        factor = self.factor(node, slots_used[0])
        return None if factor is None or not np.isfinite(factor).all() else (slots_used[0], shape, factor)

    def affine(self, node: NodeView, tape: Tape[T], inputs: Sequence[T | None]) -> list[T] | None:
        parts = self._parts(node)
        x = None if parts is None else inputs[parts[0]]
        return None if parts is None or x is None else [tape.scale(filled(tape, x, parts[1]), parts[2])]

    def adjoint(self, node: NodeView, tape: Tape[T], coefficients: Sequence[T | None]) -> list[T | None] | None:
        parts, c = self._parts(node), coefficients[0]
        if parts is None:
            return None
        slot, _, factor = parts
        found = {} if c is None else {slot: folded(tape, tape.scale(c, factor), input_sizes(node, slot) or ())}
        return slots(node, found)
