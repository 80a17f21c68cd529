"""Arithmetic: sums, products and quotients, extrema, signs, rounding to whole numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import ClassVar

import numpy as np

from onnxprune.operators.base import NodeView, Operator
from onnxprune.operators.candidates import operand_choices
from onnxprune.operators.elementwise import Broadcasting, Unary, element_type
from onnxprune.operators.enclosure import absolute, truncated, wrapped
from onnxprune.operators.interval import LARGEST, Array, Interval, add, divide, multiply, negate, subtract
from onnxprune.operators.ramps import Ramps, Segments, straight
from onnxprune.operators.relaxation import Choices
from onnxprune.operators.static import input_sizes, output_sizes, reals, variables
from onnxprune.operators.sums import AffineSum, ConstantFactor


class Linear(AffineSum):
    """Sums and means; exactly 2 a and 0 where an operand meets itself."""

    op_types = ("Add", "Sub", "Sum", "Mean")
    homogeneous = True

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Sum of the ends."""
        if len(parts) == 2 and node.op in ("Add", "Sub") and node.input(0) == node.input(1):
            return wrapped(element_type(node), self._repeated(node, parts[0]))
        total = subtract(*parts) if node.op == "Sub" else reduce(add, parts)
        if node.op == "Mean":
            return divide(total, Interval.point(float(len(parts))))
        return wrapped(element_type(node), total)

    @staticmethod
    def _repeated(node: NodeView, x: Interval) -> Interval:
        if node.op == "Sub":
            return Interval.point(np.zeros(x.shape))
        with np.errstate(over="ignore"):
            return Interval.of(np.minimum(2 * x.lower, LARGEST), np.maximum(2 * x.upper, -LARGEST))


class Extremum(Ramps, Broadcasting):
    """Largest or smallest operand, exact."""

    op_types = ("Max", "Min")
    homogeneous = True

    def segments(self, node: NodeView) -> Segments | None:
        """A ramp above or below constants."""
        constants = [values for values in (reals(node, k) for k in range(node.n_inputs)) if values is not None]
        if len(constants) != node.n_inputs - 1 or not constants or not self.supported(node):
            return None
        knot = reduce(np.maximum if node.op == "Max" else np.minimum, constants)
        own, result = input_sizes(node, variables(node)[0]), output_sizes(node)
        if own != result:
            return None  # broadcast along the constants: not one entry to one entry
        return Segments(straight(0, 1), (knot,), knot) if node.op == "Max" else Segments(straight(1, 0), (knot,))

    def choices(self, node: NodeView) -> Choices | None:
        """Operands against one another, where several are variable."""
        if len(variables(node)) < 2 or not self.supported(node):
            return None
        return operand_choices(node, largest=node.op == "Max")

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Extremum of the ends."""
        choose = np.maximum if node.op == "Max" else np.minimum
        lowers, uppers = [part.lower for part in parts], [part.upper for part in parts]
        return Interval.of(reduce(choose, lowers), reduce(choose, uppers))


class Mul(ConstantFactor):
    """a * b; never negative where an operand meets itself."""

    op_types = ("Mul",)

    def factor(self, node: NodeView, slot: int) -> Array | None:
        """The other operand."""
        return reals(node, 1 - slot)

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Products of the ends."""
        if node.input(0) == node.input(1):
            size = absolute(parts[0])
            return wrapped(element_type(node), multiply(size, size).clamp(0.0, np.inf))
        return wrapped(element_type(node), multiply(*parts))


class Div(ConstantFactor):
    """a / b; truncated for integers."""

    op_types = ("Div",)

    def factor(self, node: NodeView, slot: int) -> Array | None:
        """The reciprocal of a constant divisor."""
        divisor = reals(node, 1) if slot == 0 else None
        with np.errstate(all="ignore"):
            return None if divisor is None else 1.0 / divisor

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Quotients of the ends."""
        return truncated(element_type(node), divide(*parts))


class Reciprocal(Unary):
    """1 / x."""

    op_types = ("Reciprocal",)

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Unbounded where x may be zero."""
        return divide(Interval.point(1.0), x)


class Neg(Unary, AffineSum):
    """-x, exact."""

    op_types = ("Neg",)
    homogeneous = True

    def signs(self, node: NodeView) -> list[int]:
        """Minus."""
        return [-1]

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Ends exchanged."""
        return wrapped(element_type(node), negate(x))


class Abs(Ramps, Unary):
    """|x|, exact."""

    op_types = ("Abs",)
    homogeneous = True

    def segments(self, node: NodeView) -> Segments:
        """Falling, then rising."""
        return Segments(straight(-1, 1), straight(0))

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Zero inside, else the smaller end."""
        return wrapped(element_type(node), absolute(x))

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """The non-negative numbers."""
        return 0.0, np.inf


class Steps(Unary):
    """Non-decreasing steps, exact."""

    op_types = ("Floor", "Ceil", "Round", "Sign")
    kernels: ClassVar[dict[str, Callable[[Array], Array]]] = {
        "Floor": np.floor,
        "Ceil": np.ceil,
        "Round": np.rint,
        "Sign": np.sign,
    }

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Image of the ends."""
        return x.map(self.kernels[node.op])


OPERATORS: tuple[type[Operator], ...] = (
    Linear,
    Extremum,
    Mul,
    Div,
    Reciprocal,
    Neg,
    Abs,
    Steps,
)
