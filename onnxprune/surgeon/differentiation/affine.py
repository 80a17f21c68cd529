"""Operators that are affine in what varies: both derivatives come from their abilities ``affine`` and ``adjoint``."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from onnxprune.operators import operator_for
from onnxprune.operators.onnx_tape import Symbol
from onnxprune.operators.static import filled, variables
from onnxprune.surgeon.differentiation.rule import Call, Rule


class Affine(Rule):
    """Whatever operator has both abilities for the node at hand."""

    def forward(self, call: Call) -> list[Symbol] | None:
        """The affine map."""
        operator = operator_for(call.node.op, call.node.node.domain)
        if operator is None or not variables(call.node):
            return None
        return operator.affine(call.node, call.tape, call.inputs)

    def slots(self, call: Call) -> set[int]:
        """All, if the adjoint is known."""
        back = self._adjoint(call, call.outputs)
        return set() if back is None else {slot for slot, c in enumerate(back) if c is not None}

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """The adjoint."""
        back = self._adjoint(call, cotangents) or []
        return {slot: c for slot, c in enumerate(back) if c is not None}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """The linear part; what does not move stands for zero."""
        operator = operator_for(call.node.op, call.node.node.domain)
        given = [
            call.tape.constant(np.zeros(x.shape)) if x is not None and t is None else t
            for x, t in zip(call.inputs, tangents, strict=True)
        ]
        found = None if operator is None else operator.affine(call.node, call.tape.linear(), given)
        assert found is not None
        return found

    @staticmethod
    def _adjoint(call: Call, cotangents: Sequence[Symbol | None]) -> list[Symbol | None] | None:
        operator = operator_for(call.node.op, call.node.node.domain)
        missing = [None] * (call.node.n_outputs - len(cotangents))
        return None if operator is None else operator.adjoint(call.node, call.tape, [*cotangents, *missing])


class Sum(Affine):
    """Add, Sub and Sum: operands that do not move need no zeros."""

    def _signs(self, call: Call) -> list[bool]:
        return [call.node.op == "Sub" and slot == 1 for slot in range(call.node.n_inputs)]

    def slots(self, call: Call) -> set[int]:
        """All."""
        return set(variables(call.node))

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """The cotangent itself, or its negative."""
        c = cotangents[0]
        if c is None:
            return {}
        signs = self._signs(call)
        return {slot: call.tape.negate(c) if signs[slot] else c for slot in variables(call.node) if slot in wanted}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """Sum of the tangents."""
        total: Symbol | None = None
        for tangent, negative in zip(tangents, self._signs(call), strict=True):
            if tangent is None:
                continue
            if total is None:
                total = call.tape.negate(tangent) if negative else tangent
            else:
                total = call.tape.entrywise("Sub" if negative else "Add", [total, tangent], call.shape)
        assert total is not None
        return [filled(call.tape, total, call.shape)]


RULES: dict[str, Rule] = {"Add": Sum(), "Sub": Sum(), "Sum": Sum()}
