"""BatchNormalization as it is at inference, all of whose parameters may vary."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from onnxprune.operators.onnx_tape import Symbol
from onnxprune.operators.static import filled
from onnxprune.surgeon.differentiation.columns import channel_total, column
from onnxprune.surgeon.differentiation.rule import Call, Rule
from onnxprune.surgeon.differentiation.term import Term


class BatchNormalization(Rule):
    """(x - mean) scale / sqrt(variance + epsilon) + shift."""

    def forward(self, call: Call) -> list[Symbol] | None:
        """The node itself, for parameters that are the same for all samples."""
        x = call.inputs[0]
        if x is None or not x.merged or len(x.shape) < 2 or any(p is not None and p.rows for p in call.inputs[1:]):
            return None
        if int(call.node.attr("training_mode", 0)):
            return None
        parameters = [call.operand(slot) for slot in range(1, 5)]
        epsilon = float(call.node.attr("epsilon", np.float32(1e-5)))
        return [call.tape.append("BatchNormalization", [x, *parameters], x.shape, epsilon=epsilon)]

    def _moved(self, call: Call, slot: int, factor: Term) -> Term:
        """The partial derivative in an input, times a factor that broadcasts to the output."""
        if slot == 2:
            return factor
        x = Term(call.tape, call.given(0))
        scale, shift, mean, variance = self._parameters(call)
        root = 1.0 / (variance + float(call.node.attr("epsilon", np.float32(1e-5)))).apply("Sqrt")
        if slot == 1:
            return factor * ((x - mean) * root)
        if slot == 4:
            return factor * (Term(call.tape, call.outputs[0]) - shift) * (-0.5 * root * root)
        return factor * (scale * root if slot == 0 else -(scale * root))

    @staticmethod
    def _parameters(call: Call) -> list[Term]:
        rank = len(call.shape)
        return [Term(call.tape, column(call.tape, call.operand(slot), rank)) for slot in range(1, 5)]

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """Products with the partial derivatives; parameters get sums over channels."""
        c = cotangents[0]
        if c is None:
            return {}
        found = {
            slot: self._moved(call, slot, Term(call.tape, c)).symbol for slot in self.slots(call) if slot in wanted
        }
        return {slot: x if slot == 0 else channel_total(call.tape, x, apart=call.apart) for slot, x in found.items()}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """Sum of products with the partial derivatives."""
        total: Term | None = None
        for slot, tangent in enumerate(tangents):
            if tangent is not None:
                wide = tangent if slot == 0 else column(call.tape, tangent, len(call.shape))
                part = self._moved(call, slot, Term(call.tape, wide))
                total = part if total is None else total + part
        assert total is not None
        return [filled(call.tape, total.symbol, call.shape)]


RULES = {"BatchNormalization": BatchNormalization()}
