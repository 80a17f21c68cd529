"""Vectors over channels: along axis 1 of a tensor, and back by sums."""

from __future__ import annotations

from onnxprune.operators.onnx_tape import OnnxTape, Symbol
from onnxprune.operators.tape import Sizes
from onnxprune.surgeon.differentiation.rule import Operand


def column(tape: OnnxTape, vector: Operand, rank: int) -> Operand:
    """A vector along axis 1 of tensors of a rank."""
    shape = (1, vector.shape[0], *[1] * (rank - 2))
    return tape.reshape(vector, shape) if isinstance(vector, Symbol) else vector.reshape(shape)


def channel_total(tape: OnnxTape, c: Symbol, *, apart: bool) -> Symbol:
    """Sum over all axes but 1, and over rows unless they stay apart; a vector over channels."""
    vector: Sizes = (c.shape[1],)
    if apart:
        return tape.reshape(tape.total(c, [axis for axis in range(len(c.shape)) if axis != 1]), vector)
    return tape.reshape(tape.total_rows(c, (c.shape[1], *[1] * (len(c.shape) - 2))), vector)
