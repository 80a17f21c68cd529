"""Truth values: comparisons, logic, and Where, which chooses by them."""

from __future__ import annotations

import numpy as np

from onnxprune.operators.base import NodeView, Operator
from onnxprune.operators.elementwise import Broadcasting, Unary
from onnxprune.operators.enclosure import absolute, select
from onnxprune.operators.interval import Interval, subtract


class Comparison(Broadcasting):
    """Truth values: 0, 1, or both."""

    op_types = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Decided where the bounds decide."""
        a, b = parts if node.op[0] != "G" else parts[::-1]
        if node.op == "Equal":
            points = (a.lower == a.upper) & (b.lower == b.upper) & np.isfinite(a.lower)
            return Interval.of(points & (a.lower == b.lower), (a.lower <= b.upper) & (b.lower <= a.upper))
        if node.op in ("Less", "Greater"):
            return Interval.of(a.upper < b.lower, a.lower < b.upper)
        return Interval.of(a.upper <= b.lower, a.lower <= b.upper)


class Logic(Broadcasting):
    """Boolean operators: 0, 1, or both."""

    op_types = ("And", "Or", "Xor")

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Smallest, largest, or difference of truth values."""
        a, b = (part.clamp(0.0, 1.0) for part in parts)
        if node.op == "And":
            return Interval.of(np.minimum(a.lower, b.lower), np.minimum(a.upper, b.upper))
        either = Interval.of(np.maximum(a.lower, b.lower), np.maximum(a.upper, b.upper))
        if node.op == "Or":
            return either
        decided = (a.lower == a.upper) & (b.lower == b.upper)
        return select(decided, absolute(subtract(a, b)), Interval.of(0.0, 1.0)).clamp(0.0, 1.0)


class Not(Unary):
    """Negation of a truth value."""

    op_types = ("Not",)

    def image(self, node: NodeView, x: Interval) -> Interval:
        """1 - x."""
        truth = x.clamp(0.0, 1.0)
        return Interval.of(1 - truth.upper, 1 - truth.lower)


class Where(Broadcasting):
    """Choice between two operands."""

    op_types = ("Where",)

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """The chosen operand where the condition is decided, else the hull."""
        condition, yes, no = parts
        return select(condition.lower > 0, yes, select(condition.upper <= 0, no, yes.hull(no)))


OPERATORS: tuple[type[Operator], ...] = (
    Comparison,
    Logic,
    Not,
    Where,
)
