"""Conv and ConvTranspose with weights and biases that vary."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import ClassVar

from onnxprune.operators import operator_for
from onnxprune.operators.onnx_tape import Symbol
from onnxprune.operators.onnx_windows import slide, unslide
from onnxprune.operators.static import filled
from onnxprune.operators.tape import Sizes, Window
from onnxprune.operators.windows import SlidingLayer
from onnxprune.surgeon.differentiation.columns import channel_total, column
from onnxprune.surgeon.differentiation.kernel_gradient import kernel_gradient
from onnxprune.surgeon.differentiation.rule import Call, Operand, Rule


class Convolution(Rule):
    """What both share: but for the bias they are linear in the input and in the weights."""

    transposed: ClassVar[bool] = False

    def geometry(self, call: Call) -> tuple[Window, Sizes, Sizes]:
        """How it slides, spatial sizes inside and outside."""
        operator = operator_for(call.node.op, "")
        found = operator.geometry(call.node) if isinstance(operator, SlidingLayer) else None
        assert found is not None
        return found[0], found[1][2:], found[2][2:]

    def forward(self, call: Call) -> list[Symbol] | None:
        """The layer, for weights that are the same for all samples."""
        operator = operator_for(call.node.op, "")
        known = operator.geometry(call.node) if isinstance(operator, SlidingLayer) else None
        fixed = all(x is None or not x.rows for x in call.inputs[1:])
        if known is None or not fixed:
            return None
        bias = call.operand(2) if call.node.has_input(2) else None
        return [self.layer(call, call.given(0), call.operand(1), bias)]

    def layer(self, call: Call, x: Symbol, weights: Operand, bias: Operand | None = None) -> Symbol:
        """The layer at other operands."""
        window, _, outside = self.geometry(call)
        if not self.transposed:
            return slide(call.tape, x, weights, window, outside, bias)
        found = unslide(call.tape, x, weights, window, outside)
        return (
            found
            if bias is None
            else call.tape.entrywise("Add", [found, column(call.tape, bias, len(found.shape))], found.shape)
        )

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """The adjoint convolution; correlations of input and cotangent; sums."""
        c = cotangents[0]
        if c is None:
            return {}
        window, inside, _ = self.geometry(call)
        found: dict[int, Symbol] = {}
        if 0 in wanted:
            back = slide if self.transposed else unslide
            found[0] = back(call.tape, c, call.operand(1), window, inside)
        if 1 in wanted:
            pair = (c, call.given(0)) if self.transposed else (call.given(0), c)
            kernel = call.input_shape(1)[2:]
            found[1] = kernel_gradient(call.tape, *pair, window, kernel, apart=call.apart)
        if 2 in wanted:
            found[2] = channel_total(call.tape, c, apart=call.apart)
        return found

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """The layer at a moved input, plus the layer at moved weights, plus the moved bias."""
        parts = []
        x, weights, bias = (*tangents, None)[:3]
        if x is not None:
            parts.append(self.layer(call, x, call.operand(1)))
        if weights is not None:
            parts.append(self.layer(call, call.given(0), weights))
        if bias is not None:
            wide = column(call.tape, bias, len(call.shape))
            assert isinstance(wide, Symbol)
            parts.append(wide)
        total = parts[0]
        for part in parts[1:]:
            total = call.tape.entrywise("Add", [total, part], call.shape)
        return [filled(call.tape, total, call.shape)]


class Transposed(Convolution):
    """The adjoint of a convolution: what it reads and what it writes change places."""

    transposed = True


RULES = {"Conv": Convolution(), "ConvTranspose": Transposed()}
