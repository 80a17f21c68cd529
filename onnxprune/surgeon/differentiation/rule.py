"""What differentiating a graph asks of an operator: its values, and both directions of its derivative."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from onnxprune.operators import NodeView
from onnxprune.operators.onnx_tape import OnnxTape, Symbol
from onnxprune.operators.static import input_sizes, output_sizes
from onnxprune.operators.tape import Sizes

Operand = Symbol | NDArray[Any]


@dataclass(frozen=True)
class Call:
    """A node in a model under construction.

    Attributes:
        node: The node, at one sample; tensors that depend neither on inputs nor on weights are constants.
        tape: The model.
        inputs: One for each input slot, None for constants and omitted inputs. Without rows: the same for all samples.
        outputs: The first outputs; empty before the values are computed.
        apart: Whether what one sample contributes to the cotangent of a weight keeps its own row.
    """

    node: NodeView
    tape: OnnxTape
    inputs: tuple[Symbol | None, ...]
    outputs: tuple[Symbol, ...] = ()
    apart: bool = False

    def given(self, slot: int) -> Symbol:
        """An input that is computed."""
        found = self.inputs[slot]
        assert found is not None
        return found

    def operand(self, slot: int) -> Operand:
        """An input, constants as floats of the model's type."""
        found, values = self.inputs[slot], self.node.constant(slot)
        if found is not None:
            return found
        assert values is not None
        return self.tape.values(values) if values.dtype.kind in "fV" else values

    @property
    def shape(self) -> Sizes:
        """Shape of the first output."""
        return output_sizes(self.node) or ()

    def input_shape(self, slot: int) -> Sizes:
        """Shape of an input."""
        return input_sizes(self.node, slot) or ()


class Rule:
    """How an operator is computed and differentiated. Instances have no state."""

    def forward(self, call: Call) -> list[Symbol] | None:
        """The first outputs; None where this rule is not made for the node."""
        raise NotImplementedError

    def slots(self, call: Call) -> set[int]:
        """Input slots with respect to which the first outputs can be differentiated."""
        return {slot for slot, x in enumerate(call.inputs) if x is not None}

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """Vector-Jacobian product: cotangents of inputs from those of outputs.

        Args:
            call: The node, its outputs computed.
            cotangents: One for each output, None for zero.
            wanted: Input slots whose cotangents are needed; more may be given.

        Returns:
            By slot; shapes may still be those after broadcasting, and rows be there where the input has none: both
            are summed over by the caller.
        """
        raise NotImplementedError

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """Jacobian-vector product: tangents of outputs from those of inputs, None for zero; one at least is there."""
        raise NotImplementedError
