"""Operators that pick the largest or smallest of several entries; of equal ones the first takes it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from math import prod

import numpy as np

from onnxprune.operators import operator_for
from onnxprune.operators.movement import Scatter, picked
from onnxprune.operators.onnx_tape import Symbol
from onnxprune.operators.onnx_windows import batched_like, flattened
from onnxprune.operators.reduction import reduced_axes
from onnxprune.operators.relaxation import Choices
from onnxprune.operators.static import filled
from onnxprune.surgeon.differentiation.entrywise import Entrywise
from onnxprune.surgeon.differentiation.rule import Call, Rule
from onnxprune.surgeon.differentiation.term import Term


class Choice(Rule):
    """A choice among entries of the first input, from the operator's ability ``choices``."""

    def choices(self, call: Call) -> Choices | None:
        """Which entries compete for each entry of the output."""
        operator = operator_for(call.node.op, call.node.node.domain)
        return None if operator is None else operator.choices(call.node)

    def slots(self, call: Call) -> set[int]:
        """The first input, where the candidates are known."""
        return set() if self.choices(call) is None else {0}

    def _candidates(self, call: Call, x: Symbol, choices: Choices) -> Symbol:
        """Shape (outputs, candidates); zero where there is none."""
        return picked(call.tape, call.tape.reshape(x, (prod(x.shape),)), choices.indices)

    def _chosen(self, call: Call) -> tuple[Choices, Term]:
        """The candidates, and 1 for the one that was chosen, else 0."""
        choices = self.choices(call)
        assert choices is not None
        tape, values = call.tape, self._candidates(call, call.given(0), choices)
        if (choices.indices < 0).any():
            bottom = np.finfo(tape.dtype).min * (0.5 if choices.largest else -0.5)
            values = tape.translate(values, np.where(choices.indices < 0, bottom, 0.0))
        op = "ArgMax" if choices.largest else "ArgMin"
        first = tape.append(op, [values], (values.shape[0], 1), axis=values.axis(1), keepdims=1)
        order = np.arange(values.shape[1], dtype=np.int64).reshape(1, -1)
        number = tape.append("Equal", [first, order], values.shape)
        return choices, Term(tape, tape.entrywise("Cast", [number], values.shape, to=tape.kind))

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """To the chosen entries."""
        if cotangents[0] is None:
            return {}
        choices, chosen = self._chosen(call)
        c = Term(call.tape, call.tape.reshape(cotangents[0], (len(choices.indices), 1)))
        found = Scatter(choices.indices, prod(call.input_shape(0))).run(call.tape, (c * chosen).symbol)
        return {0: call.tape.reshape(found, call.input_shape(0))}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """From the chosen entries."""
        assert tangents[0] is not None
        choices, chosen = self._chosen(call)
        moved = chosen * Term(call.tape, self._candidates(call, tangents[0], choices))
        return [call.tape.reshape(moved.total([1]).symbol, call.shape)]


class MaxPool(Choice):
    """Windows."""

    def forward(self, call: Call) -> list[Symbol] | None:
        """The node itself on rows and batch in one axis."""
        x = flattened(call.tape, call.given(0))
        y = call.tape.append("MaxPool", [x], (1, *call.shape[1:]), **call.node.node.attrs)
        return [batched_like(call.tape, y, call.given(0))]


class Extreme(Choice):
    """Whole axes."""

    def forward(self, call: Call) -> list[Symbol] | None:
        """A reduction."""
        rank = len(call.input_shape(0))
        axes = tuple(range(2, rank)) if call.node.op == "GlobalMaxPool" else reduced_axes(call.node, rank)
        if axes is None:
            return None
        op = "ReduceMin" if call.node.op == "ReduceMin" else "ReduceMax"
        return [call.tape.reshape(call.tape.reduce(op, call.given(0), axes), call.shape)]


class Operands(Entrywise):
    """Max and Min of several tensors."""

    def slots(self, call: Call) -> set[int]:
        """All."""
        return {slot for slot, x in enumerate(call.inputs) if x is not None}

    def _shares(self, call: Call) -> list[Term]:
        """Per operand, 1 where it is the first of the chosen value."""
        left: Term | None = None
        found = []
        for slot in range(call.node.n_inputs):
            here = Term(call.tape, call.outputs[0]).choose("Equal", Term(call.tape, call.operand(slot)))
            share = here if left is None else here * left
            left = 1.0 - share if left is None else left - share
            found.append(share)
        return found

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """To whom it was chosen from."""
        if cotangents[0] is None:
            return {}
        c, shares = Term(call.tape, cotangents[0]), self._shares(call)
        return {slot: (c * shares[slot]).symbol for slot in self.slots(call) if slot in wanted}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """From whom it was chosen."""
        total: Term | None = None
        for tangent, share in zip(tangents, self._shares(call), strict=True):
            if tangent is not None:
                part = share * Term(call.tape, tangent)
                total = part if total is None else total + part
        assert total is not None
        return [filled(call.tape, total.symbol, call.shape)]


RULES: dict[str, Rule] = {
    "GlobalMaxPool": Extreme(),
    "Max": Operands(),
    "MaxPool": MaxPool(),
    "Min": Operands(),
    "ReduceMax": Extreme(),
    "ReduceMin": Extreme(),
}
