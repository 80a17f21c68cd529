"""What the rest of the engine asks of an operator, and what an operator may know about its node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.operators.channels import ChannelMap, Resized
from onnxprune.operators.interval import Array, Interval
from onnxprune.operators.relaxation import Choices, Pieces, Relaxation
from onnxprune.operators.tape import T, Tape

Dim = int | str | None
Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class TensorType:
    """Element type and symbolic shape of a tensor; either may be unknown (None)."""

    dtype: np.dtype[Any] | None
    shape: Shape | None


UNKNOWN = TensorType(None, None)


def op_of(node: gs.Node) -> str:
    """Operator type of a node, with its domain in front unless it is a standard operator."""
    domain = str(node.domain or "")
    return str(node.op) if domain in ("", "ai.onnx") else f"{domain}.{node.op}"


class NodeView:
    """Read access to one node: attributes, constant inputs, symbolic shapes."""

    def __init__(
        self, node: gs.Node, types: Mapping[str, TensorType], opset: int, frozen: frozenset[str] = frozenset()
    ) -> None:
        self.node = node
        self.types = types
        self.opset = opset
        self._frozen = frozen
        self.memo: dict[int, Array | None] = {}
        """What rules have made of constant inputs, by slot."""

    @property
    def op(self) -> str:
        """ONNX operator type."""
        return str(self.node.op)

    @property
    def n_inputs(self) -> int:
        """Number of input slots, omitted optional ones included."""
        return len(self.node.inputs)

    @property
    def n_outputs(self) -> int:
        """Number of output slots, omitted optional ones included."""
        return len(self.node.outputs)

    def attr(self, name: str, default: Any = None) -> Any:
        """Value of an attribute, or the default."""
        return self.node.attrs.get(name, default)

    def has_input(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index].name)

    def input(self, index: int) -> str:
        """Name of an input tensor."""
        return str(self.node.inputs[index].name)

    def output(self, index: int = 0) -> str:
        """Name of an output tensor."""
        return str(self.node.outputs[index].name)

    def constant(self, index: int) -> NDArray[Any] | None:
        """Values of an input that is an initializer (in its own dtype), or None. Sparse ones count as computed."""
        if not self.has_input(index) or self.input(index) in self._frozen:
            return None
        tensor = self.node.inputs[index]
        return np.asarray(tensor.values) if isinstance(tensor, gs.Constant) else None

    def is_constant(self, index: int) -> bool:
        """Whether an input is an initializer."""
        return self.has_input(index) and isinstance(self.node.inputs[index], gs.Constant)

    def ints(self, name: str, index: int) -> list[int] | None:
        """Integers given by an attribute (older opsets) or a constant input (newer ones); None if neither."""
        value = self.attr(name)
        if value is not None:
            return [int(v) for v in np.atleast_1d(value)]
        array = self.constant(index)
        return None if array is None else [int(v) for v in array.reshape(-1)]

    def set_constant(self, index: int, values: NDArray[Any]) -> None:
        """Give this node a constant input of its own (other readers of the old one keep theirs)."""
        self.memo.pop(index, None)
        name = f"{self.output()}_{self.op}_{index}"
        self.node.inputs[index] = gs.Constant(name, np.array(values))

    def in_type(self, index: int) -> TensorType:
        """Type of an input tensor."""
        return self.types.get(self.input(index), UNKNOWN) if self.has_input(index) else UNKNOWN

    def in_shape(self, index: int) -> Shape | None:
        """Symbolic shape of an input tensor, None if unknown."""
        return self.in_type(index).shape

    def out_shape(self, index: int = 0) -> Shape | None:
        """Symbolic shape of an output tensor, None if unknown."""
        return self.types.get(self.output(index), UNKNOWN).shape


Inputs = Sequence[Interval | None]


class Operator:
    """Meaning of one or more ONNX operator types. An ability that is not overridden is absent.

    Attributes:
        op_types: Operator types this class speaks for.
        domain: Their ONNX domain ("" is the standard one).
    """

    op_types: ClassVar[tuple[str, ...]] = ()
    domain: ClassVar[str] = ""

    def interval(self, node: NodeView, inputs: Inputs) -> Sequence[Interval] | None:
        """Bounds of the outputs from bounds of the inputs; None when nothing is known (opaque)."""
        return None

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Say which indices of which tensor axes belong together; False = opaque, everything is kept."""
        return False

    def resize(self, node: NodeView, sizes: Resized) -> None:
        """Adapt attributes and shape constants after indices were removed. Default: nothing depends on sizes."""

    # The abilities below ask for a node with static shapes only (a symbolic batch counts as 1). Arrays have a
    # leading axis of rows and then the static shape of the tensor. All answer None where they do not apply.

    def affine(self, node: NodeView, tape: Tape[T], inputs: Sequence[T | None]) -> list[T] | None:
        """The outputs from the variable inputs, where they are an affine function of these.

        Args:
            node: The node.
            tape: Who executes the rule. Quotients (means, normalisations) enter as weights that are off by a few
                units of roundoff, which the slack in ``gamma`` covers.
            inputs: One for each input slot, None for constants and omitted inputs.

        Returns:
            The outputs; further outputs may be missing at the end (the mask of Dropout).
        """
        return None

    def adjoint(self, node: NodeView, tape: Tape[T], coefficients: Sequence[T | None]) -> list[T | None] | None:
        """Coefficients on the inputs from coefficients on the outputs (the linear part transposed).

        Args:
            node: The node.
            tape: Who executes the rule.
            coefficients: One for each output slot, None for outputs without coefficients.

        Returns:
            One for each input slot, None for constants and omitted inputs.
        """
        return None

    def relax(self, node: NodeView, low: Array, high: Array) -> Relaxation | None:
        """Lines below and above a function of one variable input, valid on ``[low, high]`` in real arithmetic.

        Args:
            node: The node.
            low: Lower ends, without rows; may be infinite.
            high: Upper ends.
        """
        return None

    def pieces(self, node: NodeView) -> Pieces | None:
        """The function as a sum of ramps, where it is piecewise linear and continuous in its one variable input."""
        return None

    def derivative(self, node: NodeView, x: Array) -> Array | None:
        """Slopes of an entrywise function at points (one of the one-sided slopes at kinks), without rigour."""
        return None

    def choices(self, node: NodeView) -> Choices | None:
        """Which entries compete for each entry of the first output, where it is the largest or smallest of them."""
        return None


ABILITIES = ("interval", "channels", "affine", "adjoint", "relax", "pieces", "derivative", "choices")


def abilities(operator: Operator) -> tuple[str, ...]:
    """Names of the abilities an operator class overrides."""
    kinds: dict[str, Callable[..., Any]] = {name: getattr(Operator, name) for name in ABILITIES}
    return tuple(name for name, default in kinds.items() if getattr(type(operator), name) is not default)
