"""Functions of one variable, entry by entry: the derivative is a product with the slopes."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import helper

from onnxprune.operators import NodeView, operator_for
from onnxprune.operators.activation import single_precision
from onnxprune.operators.elementwise import Elementwise
from onnxprune.operators.onnx_tape import Symbol
from onnxprune.operators.static import FLOATS, is_float, variables
from onnxprune.surgeon.differentiation.rule import Call, Operand, Rule
from onnxprune.surgeon.differentiation.term import Term

Slope = Callable[[NodeView, Term, Term], Term]
"""The derivative from the node, its argument and its value."""


class Entrywise(Rule):
    """Any operator that acts entry by entry, as it stands in the graph; without a derivative."""

    def forward(self, call: Call) -> list[Symbol] | None:
        """The node itself."""
        operator = operator_for(call.node.op, call.node.node.domain)
        if not isinstance(operator, Elementwise):
            return None
        operands: list[Operand] = [call.operand(slot) for slot in range(call.node.n_inputs)]
        return [call.tape.entrywise(call.node.op, operands, call.shape, **call.node.node.attrs)]

    def slots(self, call: Call) -> set[int]:
        """None."""
        return set()


class Cast(Entrywise):
    """Conversion: floats stay as they are, as all have one type here."""

    def forward(self, call: Call) -> list[Symbol] | None:
        """Nothing, or the node itself."""
        kind = call.node.types[call.node.output()].dtype
        if kind is None:
            return None
        if kind.name in FLOATS and is_float(call.node):
            return [call.given(0)]
        target = call.tape.kind if kind.name in FLOATS else int(helper.np_dtype_to_tensor_dtype(kind))
        return [call.tape.append("Cast", [call.given(0)], call.shape, to=target)]

    def slots(self, call: Call) -> set[int]:
        """The input, between floats."""
        return {0} if call.outputs[0] is call.inputs[0] else set()

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """The same."""
        return {} if cotangents[0] is None else {0: cotangents[0]}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """The same."""
        assert tangents[0] is not None
        return [tangents[0]]


class Clip(Entrywise):
    """Limits are attributes up to opset 6, later optional inputs."""

    def forward(self, call: Call) -> list[Symbol] | None:
        """The node itself, for constant limits."""
        limits = []
        for slot, name in ((1, "min"), (2, "max")):
            value = call.node.attr(name) if call.node.opset < 11 else call.node.constant(slot)
            if value is None and call.node.has_input(slot):
                return None
            limits.append("" if value is None else call.tape.values(np.asarray(value)).reshape(()))
        return [call.tape.append("Clip", [call.given(0), *limits], call.shape)]


@dataclass(frozen=True)
class Sloped(Rule):
    """A function with known slopes.

    Attributes:
        values: How it is computed.
        slope: Its derivative, one of the one-sided ones at kinks; None: read off its ability ``pieces``.
    """

    values: Rule
    slope: Slope | None = None

    def forward(self, call: Call) -> list[Symbol] | None:
        """The function."""
        return self.values.forward(call)

    def slots(self, call: Call) -> set[int]:
        """The first input, where it is the only one that varies and is not broadcast."""
        plain = variables(call.node) == [0] and call.input_shape(0) == call.shape
        return {0} if plain and (self.slope is not None or _pieces(call) is not None) else set()

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """Product with the slopes."""
        c = cotangents[0]
        return {} if c is None else {0: self._times(call, c)}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """Product with the slopes."""
        t = tangents[0]
        assert t is not None
        return [self._times(call, t)]

    def _times(self, call: Call, factor: Symbol) -> Symbol:
        x, y = Term(call.tape, call.given(0)), Term(call.tape, call.outputs[0])
        slope = _pieces(call) if self.slope is None else self.slope(call.node, x, y)
        assert slope is not None
        return (Term(call.tape, factor) * slope).symbol


def _pieces(call: Call) -> Term | None:
    """Slopes of a piecewise-linear function, at a knot those in front of it."""
    operator = operator_for(call.node.op, call.node.node.domain)
    pieces = None if operator is None else operator.pieces(call.node)
    if pieces is None:
        return None
    x, total = Term(call.tape, call.given(0)), Term(call.tape, call.tape.values(pieces.slope))
    steps = [
        x.above(knot) if np.all(bend == 1) else x.above(knot) * bend
        for knot, bend in zip(pieces.knots, pieces.bends, strict=True)
    ]
    parts = [total, *steps] if not steps or np.any(pieces.slope) else steps
    found = parts[0]
    for part in parts[1:]:
        found = found + part
    return found


def _alpha(node: NodeView, default: float) -> float:
    return float(node.attr("alpha", default))


def _elu(node: NodeView, x: Term, y: Term) -> Term:
    """1 for positive arguments, else y + alpha."""
    return _either(x.above(0.0), 1.0, y + _alpha(node, 1.0))


def _celu(node: NodeView, x: Term, y: Term) -> Term:
    return _either(x.above(0.0), 1.0, y / _alpha(node, 1.0) + 1.0)


def _selu(node: NodeView, x: Term, y: Term) -> Term:
    gamma = float(node.attr("gamma", single_precision(1.050701)))
    return _either(x.above(0.0), gamma, y + gamma * _alpha(node, single_precision(1.6732632)))


def _either(positive: Term, yes: float, no: Term) -> Term:
    return positive * yes + (1.0 - positive) * no


def _hard_swish(node: NodeView, x: Term, y: Term) -> Term:
    """(2 x + 3) / 6 between -3 and 3."""
    upper = x.above(3.0)
    return (x.above(-3.0) - upper) * (x / 3.0 + 0.5) + upper


def _gelu(node: NodeView, x: Term, y: Term) -> Term:
    """Distribution function plus x times density, or the derivative of the approximation by tanh."""
    if node.attr("approximate", "none") == "tanh":
        inner = (x * 0.7978845608028654 * (1.0 + 0.044715 * x * x)).apply("Tanh")
        rate = 0.7978845608028654 * (1.0 + 0.134145 * x * x)
        return 0.5 * (1.0 + inner) + 0.5 * x * (1.0 - inner * inner) * rate
    cdf = 0.5 * (1.0 + (x * 0.7071067811865476).apply("Erf"))
    return cdf + x * 0.3989422804014327 * (-0.5 * x * x).apply("Exp")


def _mish(node: NodeView, x: Term, y: Term) -> Term:
    """tanh(s) + x (1 - tanh(s)^2) sigmoid(x) for s = softplus(x)."""
    gate = x.apply("Softplus").apply("Tanh")
    return gate + x * (1.0 - gate * gate) * x.apply("Sigmoid")


def _swish(node: NodeView, x: Term, y: Term) -> Term:
    share = (x * _alpha(node, 1.0)).apply("Sigmoid")
    return share + _alpha(node, 1.0) * y * (1.0 - share)


def _power(node: NodeView, x: Term, y: Term) -> Term:
    """Exponent times the power one lower."""
    exponent = np.asarray(node.constant(1), dtype=np.float64)
    return 2.0 * x if np.all(exponent == 2) else exponent * x ** (exponent - 1.0)


NODE = Entrywise()
SLOPES: dict[str, Slope] = {
    "Celu": _celu,
    "Cos": lambda node, x, y: -x.apply("Sin"),
    "Elu": _elu,
    "Erf": lambda node, x, y: 1.1283791670955126 * (-(x * x)).apply("Exp"),
    "Exp": lambda node, x, y: y,
    "Gelu": _gelu,
    "HardSwish": _hard_swish,
    "Log": lambda node, x, y: x.apply("Reciprocal"),
    "Mish": _mish,
    "Pow": _power,
    "Reciprocal": lambda node, x, y: -(y * y),
    "Selu": _selu,
    "Sigmoid": lambda node, x, y: y * (1.0 - y),
    "Sin": lambda node, x, y: x.apply("Cos"),
    "Softplus": lambda node, x, y: x.apply("Sigmoid"),
    "Softsign": lambda node, x, y: (1.0 - y.apply("Abs")) ** 2.0,
    "Sqrt": lambda node, x, y: 0.5 / y,
    "Swish": _swish,
    "Tanh": lambda node, x, y: 1.0 - y * y,
}
"""Smooth functions; those made of straight pieces say so themselves."""
STRAIGHT = ("Abs", "HardSigmoid", "LeakyRelu", "Relu")

RULES: dict[str, Rule] = {
    **{op: Sloped(NODE, slope) for op, slope in SLOPES.items()},
    **{op: Sloped(NODE) for op in STRAIGHT},
    "Cast": Cast(),
    "Clip": Sloped(Clip()),
}
