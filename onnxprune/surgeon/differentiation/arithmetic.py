"""Products and quotients of two tensors, choices between them."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from onnxprune.operators.onnx_tape import Symbol
from onnxprune.operators.static import filled
from onnxprune.surgeon.differentiation.entrywise import Entrywise
from onnxprune.surgeon.differentiation.rule import Call, Operand
from onnxprune.surgeon.differentiation.term import Term


class Binary(Entrywise):
    """A function of two operands; subclasses state both partial slopes."""

    def partial(self, call: Call, slot: int, factor: Term) -> Term:
        """The slope in one operand, times a factor."""
        raise NotImplementedError

    def slots(self, call: Call) -> set[int]:
        """Both."""
        return {slot for slot in (0, 1) if call.inputs[slot] is not None}

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """Products with the slopes."""
        c = cotangents[0]
        if c is None:
            return {}
        return {
            slot: self.partial(call, slot, Term(call.tape, c)).symbol for slot in self.slots(call) if slot in wanted
        }

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """Sum of products with the slopes."""
        parts = [self.partial(call, slot, Term(call.tape, t)) for slot, t in enumerate(tangents[:2]) if t is not None]
        total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return [filled(call.tape, total.symbol, call.shape)]


class Mul(Binary):
    """a b."""

    def partial(self, call: Call, slot: int, factor: Term) -> Term:
        """The other operand."""
        return factor * Term(call.tape, call.operand(1 - slot))


class Div(Binary):
    """a / b."""

    def partial(self, call: Call, slot: int, factor: Term) -> Term:
        """1 / b, or minus the quotient over b."""
        divisor = Term(call.tape, call.operand(1))
        return factor / divisor if slot == 0 else -(factor * Term(call.tape, call.outputs[0]) / divisor)


class PRelu(Binary):
    """x, or slope x for negative x."""

    def forward(self, call: Call) -> list[Symbol] | None:
        """The node itself; before opset 7 the slope stood for the channels."""
        return super().forward(call) if call.node.opset >= 7 else None

    def partial(self, call: Call, slot: int, factor: Term) -> Term:
        """1 or the slope; x where it is negative."""
        x, slope = Term(call.tape, call.operand(0)), Term(call.tape, call.operand(1))
        if slot == 1:
            return factor * (x - x.apply("Relu"))
        positive = x.above(0.0)
        return factor * (positive + (1.0 - positive) * slope)


class Where(Entrywise):
    """A choice by a condition, which itself is not differentiated: it only jumps."""

    def slots(self, call: Call) -> set[int]:
        """Both operands."""
        return {slot for slot in (1, 2) if call.inputs[slot] is not None}

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """Each operand gets what was taken from it."""
        c = cotangents[0]
        if c is None:
            return {}
        zero = np.zeros((), call.tape.dtype)
        taken: dict[int, list[Operand]] = {1: [c, zero], 2: [zero, c]}
        return {
            slot: call.tape.entrywise("Where", [call.operand(0), *taken[slot]], call.shape)
            for slot in self.slots(call)
            if slot in wanted
        }

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """The tangent of what was taken."""
        parts = [np.zeros((), call.tape.dtype) if t is None else t for t in tangents[1:]]
        return [call.tape.entrywise("Where", [call.operand(0), *parts], call.shape)]


RULES = {"Mul": Mul(), "Div": Div(), "PRelu": PRelu(), "Where": Where()}
