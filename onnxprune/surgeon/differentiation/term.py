"""Formulas on tensors of a model under construction, written with Python's operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from onnxprune.operators.interval import Array
from onnxprune.operators.onnx_tape import OnnxTape, Symbol
from onnxprune.surgeon.differentiation.rule import Operand

Factor: TypeAlias = "Term | Array | float"


@dataclass(frozen=True)
class Term:
    """A tensor, or constants; operands broadcast against one another."""

    tape: OnnxTape
    operand: Operand
    __array_ufunc__ = None  # an array on the left leaves the operator to the term

    @property
    def symbol(self) -> Symbol:
        """The tensor."""
        return self.operand if isinstance(self.operand, Symbol) else self.tape.constant(self.operand)

    def apply(self, op: str) -> Term:
        """An operator of one operand."""
        return Term(self.tape, self.tape.entrywise(op, [self.operand], self.operand.shape))

    def above(self, limit: Factor) -> Term:
        """1 where it is larger, else 0."""
        return self.choose("Greater", limit)

    def choose(self, comparison: str, other: Factor) -> Term:
        """1 where a comparison holds, else 0."""
        truth = self._with(comparison, other).symbol
        return Term(self.tape, self.tape.entrywise("Cast", [truth], truth.shape, to=self.tape.kind))

    def total(self, axes: Sequence[int]) -> Term:
        """Sum over axes, kept at length 1."""
        return Term(self.tape, self.tape.total(self.symbol, axes))

    def mean(self, axes: Sequence[int]) -> Term:
        """Mean over axes, kept at length 1."""
        return Term(self.tape, self.tape.reduce("ReduceMean", self.symbol, axes))

    def _with(self, op: str, other: Factor, *, turned: bool = False) -> Term:
        right = other.operand if isinstance(other, Term) else self.tape.values(np.asarray(other))
        shape = np.broadcast_shapes(self.operand.shape, right.shape)
        pair = [right, self.operand] if turned else [self.operand, right]
        return Term(self.tape, self.tape.entrywise(op, pair, shape))

    def __add__(self, other: Factor) -> Term:
        return self._with("Add", other)

    def __radd__(self, other: Factor) -> Term:
        return self._with("Add", other, turned=True)

    def __sub__(self, other: Factor) -> Term:
        return self._with("Sub", other)

    def __rsub__(self, other: Factor) -> Term:
        return self._with("Sub", other, turned=True)

    def __mul__(self, other: Factor) -> Term:
        return self._with("Mul", other)

    def __rmul__(self, other: Factor) -> Term:
        return self._with("Mul", other, turned=True)

    def __truediv__(self, other: Factor) -> Term:
        return self._with("Div", other)

    def __rtruediv__(self, other: Factor) -> Term:
        return self._with("Div", other, turned=True)

    def __pow__(self, other: Factor) -> Term:
        return self._with("Pow", other)

    def __neg__(self) -> Term:
        return self.apply("Neg")
