"""Curved reductions: norms and logarithms of sums. Sums and means are affine."""

from __future__ import annotations

from collections.abc import Container, Sequence

from onnxprune.operators.onnx_tape import Symbol
from onnxprune.operators.reduction import reduced_axes
from onnxprune.operators.static import is_float
from onnxprune.surgeon.differentiation.rule import Call, Rule
from onnxprune.surgeon.differentiation.term import Term


class Reduction(Rule):
    """A function of one sum over axes, with a slope per entry."""

    def _axes(self, call: Call) -> tuple[int, ...] | None:
        return reduced_axes(call.node, len(call.input_shape(0))) if is_float(call.node) else None

    def forward(self, call: Call) -> list[Symbol] | None:
        """A sum of a function, and a function of the sum."""
        axes = self._axes(call)
        if axes is None or not axes:
            return None
        x = Term(call.tape, call.given(0))
        return [call.tape.reshape(self._value(call, x, axes).symbol, call.shape)]

    @staticmethod
    def _value(call: Call, x: Term, axes: tuple[int, ...]) -> Term:
        op = call.node.op
        if op == "ReduceL1":
            return x.apply("Abs").total(axes)
        if op in ("ReduceL2", "ReduceSumSquare"):
            square = (x * x).total(axes)
            return square if op == "ReduceSumSquare" else square.apply("Sqrt")
        if op == "ReduceLogSum":
            return x.total(axes).apply("Log")
        top = Term(call.tape, call.tape.reduce("ReduceMax", x.symbol, axes))
        return top + (x - top).apply("Exp").total(axes).apply("Log")

    @staticmethod
    def _slope(call: Call, x: Term, y: Term) -> Term:
        """The derivative of the result in every entry; y with the reduced axes kept. The norm of zeros has slope 0."""
        op = call.node.op
        if op == "ReduceL1":
            return x.apply("Sign")
        if op == "ReduceSumSquare":
            return 2.0 * x
        if op == "ReduceL2":
            return x / (y + (1.0 - y.above(0.0)))
        return (-y).apply("Exp") if op == "ReduceLogSum" else (x - y).apply("Exp")

    def _parts(self, call: Call) -> tuple[tuple[int, ...], tuple[int, ...], Term]:
        axes = self._axes(call)
        assert axes is not None
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(call.input_shape(0)))
        y = Term(call.tape, call.tape.reshape(call.outputs[0], kept))
        return axes, kept, self._slope(call, Term(call.tape, call.given(0)), y)

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """Every entry gets its slope's share."""
        if cotangents[0] is None:
            return {}
        _, kept, slope = self._parts(call)
        found = Term(call.tape, call.tape.reshape(cotangents[0], kept)) * slope
        return {0: call.tape.expand(found.symbol, call.input_shape(0))}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """Sum of products with the slopes."""
        assert tangents[0] is not None
        axes, _, slope = self._parts(call)
        moved = Term(call.tape, call.tape.expand((Term(call.tape, tangents[0]) * slope).symbol, call.input_shape(0)))
        return [call.tape.reshape(moved.total(axes).symbol, call.shape)]


RULES: dict[str, Rule] = {
    op: Reduction() for op in ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
}
