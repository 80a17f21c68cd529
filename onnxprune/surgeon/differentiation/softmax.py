"""Softmax and its logarithm; the derivative of Softmax is symmetric."""

from __future__ import annotations

from collections.abc import Container, Sequence

from onnxprune.operators.onnx_tape import Symbol
from onnxprune.surgeon.differentiation.rule import Call, Rule
from onnxprune.surgeon.differentiation.term import Term


class Softmax(Rule):
    """exp(x) / sum exp(x); before opset 13 over all axes from ``axis`` on."""

    def axes(self, call: Call) -> list[int]:
        """The axes that share a sum."""
        rank, modern = len(call.shape), call.node.opset >= 13
        axis = int(call.node.attr("axis", -1 if modern else 1))
        first = axis + rank if axis < 0 else axis
        return [first] if modern else list(range(first, rank))

    def forward(self, call: Call) -> list[Symbol] | None:
        """By one node where it is one axis."""
        x, axes = call.given(0), [axis for axis in self.axes(call) if call.shape[axis] != 1]
        if len(axes) == 1:
            return [call.tape.append(call.node.op, [x], call.shape, axis=x.axis(axes[0]))]
        shifted = Term(call.tape, x) - Term(call.tape, call.tape.reduce("ReduceMax", x, axes))
        powers = shifted.apply("Exp")
        total = powers.total(axes)
        return [(powers / total if call.node.op == "Softmax" else shifted - total.apply("Log")).symbol]

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """As :meth:`push`."""
        c = cotangents[0]
        return {} if c is None else {0: self.push(call, [c])[0]}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """The tangent minus its mean with the shares y, times these."""
        t = tangents[0]
        assert t is not None
        y, moved = Term(call.tape, call.outputs[0]), Term(call.tape, t)
        return [(y * (moved - (y * moved).total(self.axes(call)))).symbol]


class LogSoftmax(Softmax):
    """x - log sum exp(x)."""

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """The cotangent minus exp(y) times its sum."""
        if cotangents[0] is None:
            return {}
        c, shares = Term(call.tape, cotangents[0]), Term(call.tape, call.outputs[0]).apply("Exp")
        return {0: (c - shares * c.total(self.axes(call))).symbol}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """The tangent minus its mean with the shares exp(y)."""
        assert tangents[0] is not None
        t, shares = Term(call.tape, tangents[0]), Term(call.tape, call.outputs[0]).apply("Exp")
        return [(t - (shares * t).total(self.axes(call))).symbol]


RULES: dict[str, Rule] = {"LogSoftmax": LogSoftmax(), "Softmax": Softmax()}
