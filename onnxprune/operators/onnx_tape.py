"""The tape that writes an ONNX model: the same rules, run by ONNX Runtime on any provider.

A tensor with rows is stored as ``(rows, *shape)``; where its own first axis has length 1, as that of a batch of one
sample has, the rows take the place of that axis. So the nodes of a network come out as they are in its file, and
ONNX Runtime's fast paths apply. A tensor without rows is the same for all of them and is stored as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.operators.interval import Array
from onnxprune.operators.onnx_windows import slide, unslide
from onnxprune.operators.tape import Sizes, Tape, Window

OPSET = 20
ROWS = "rows"
"""Name of the symbolic first dimension of every input and output with rows."""


@dataclass(frozen=True)
class Symbol:
    """A tensor of the model under construction.

    Attributes:
        name: Its name there.
        shape: Its shape without rows.
        rows: Whether it has rows; without, it is the same for all of them.
    """

    name: str
    shape: Sizes
    rows: bool = True

    @property
    def merged(self) -> bool:
        """Whether the rows stand in place of a first axis of length 1."""
        return self.rows and self.shape[:1] == (1,)

    @property
    def stored(self) -> Sizes:
        """Sizes of the axes as stored, -1 for the rows."""
        if not self.rows:
            return self.shape
        return (-1, *self.shape[1:]) if self.merged else (-1, *self.shape)

    def axis(self, index: int) -> int:
        """Where an axis of the shape is stored; not for the first one of a merged tensor."""
        return index + (self.rows and not self.merged)


Part: TypeAlias = "Symbol | NDArray[Any] | str"


class OnnxTape(Tape[Symbol]):
    """Appends nodes to a model.

    Args:
        dtype: Element type of all tensors. ONNX Runtime's CPU provider has convolutions in float32 only.
        absolute: As for :class:`Tape`.
        shifts: As for :class:`Tape`.
        opset: Version of the operators, at least :data:`OPSET`.
    """

    def __init__(
        self, dtype: DTypeLike = np.float32, *, absolute: bool = False, shifts: bool = True, opset: int = OPSET
    ) -> None:
        super().__init__(absolute=absolute, shifts=shifts)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.opset: int = max(opset, OPSET)
        self._nodes: list[NodeProto] = []
        self._made: dict[bytes, list[str]] = {}
        self.inputs: dict[str, tuple[Symbol, np.dtype[Any]]] = {}
        """Inputs of the model and their element types."""
        self._weights: dict[tuple[str, Sizes, bytes], TensorProto] = {}

    @property
    def kind(self) -> int:
        """The element type as ONNX numbers it."""
        return int(helper.np_dtype_to_tensor_dtype(self.dtype))

    def linear(self) -> OnnxTape:
        """The same model under construction, additive constants left out from here on."""
        other = copy(self)
        other.shifts = False
        return other

    def input(self, name: str, shape: Sizes, *, rows: bool = True, dtype: DTypeLike | None = None) -> Symbol:
        """A new input of the model."""
        symbol = Symbol(name, shape, rows)
        self.inputs[name] = (symbol, self.dtype if dtype is None else np.dtype(dtype))
        return symbol

    def append(self, op: str, inputs: Sequence[Part], shape: Sizes, **attributes: Any) -> Symbol:
        """A node with one output of the given shape (without rows); arrays become initializers as they are.

        The output has rows where an input has. It is the caller's part that the node is right for inputs as stored.
        """
        rows = any(isinstance(part, Symbol) and part.rows for part in inputs)
        return Symbol(self.emit(op, inputs, **attributes)[0], shape, rows)

    def emit(self, op: str, inputs: Sequence[Part], *, count: int = 1, **attributes: Any) -> list[str]:
        """A node as it is, with ``count`` outputs; their names. A node that is there already is not made again."""
        names = [
            part if isinstance(part, str) else part.name if isinstance(part, Symbol) else self._constant(part)
            for part in inputs
        ]
        node = helper.make_node(op, names, [], **attributes)
        key = node.SerializeToString(deterministic=True)
        if key not in self._made:
            number = len(self._nodes) + 1
            self._made[key] = [f"{op}:{number}" if k == 0 else f"{op}:{number}:{k}" for k in range(count)]
            node.output.extend(self._made[key])
            node.name = self._made[key][0]
            self._nodes.append(node)
        return self._made[key]

    def values(self, array: NDArray[Any]) -> NDArray[Any]:
        """Constants in the element type of the model."""
        return np.asarray(array).astype(self.dtype)

    def constant(self, array: NDArray[Any]) -> Symbol:
        """Constants in the element type of the model, as a tensor without rows."""
        return Symbol(self._constant(self.values(array)), np.shape(array), rows=False)

    def finish(self, outputs: Mapping[str, Symbol]) -> ModelProto:
        """The model that computes some tensors under the given output names."""

        def value(name: str, x: Symbol, element: int) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, element, [ROWS if d < 0 else d for d in x.stored])

        inputs = [value(name, x, helper.np_dtype_to_tensor_dtype(d)) for name, (x, d) in self.inputs.items()]
        graph = helper.make_graph(
            [*self._nodes, *(helper.make_node("Identity", [x.name], [name]) for name, x in outputs.items())],
            "tape",
            inputs,
            [value(name, x, self.kind) for name, x in outputs.items()],
            list(self._weights.values()),
        )
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports))

    def shape(self, x: Symbol) -> Sizes:
        """Shape without rows."""
        return x.shape

    def add(self, x: Symbol, y: Symbol) -> Symbol:
        """Sum of equal shapes."""
        return self.entrywise("Add", [x, y], x.shape)

    def entrywise(self, op: str, operands: Sequence[Symbol | NDArray[Any]], shape: Sizes, **attributes: Any) -> Symbol:
        """An operator that acts entry by entry on operands that broadcast to ``shape``."""
        parts: list[Part] = []
        for operand in operands:
            if isinstance(operand, Symbol) and operand.rows:
                wide = self.reshape(operand, (1,) * (len(shape) - len(operand.shape)) + operand.shape)
                parts.append(wide if shape[:1] == (1,) or not wide.merged else self.stacked(wide))
            else:
                parts.append(operand)
        rows = any(isinstance(operand, Symbol) and operand.rows for operand in operands)
        return Symbol(self.emit(op, parts, **attributes)[0], shape, rows)

    def stacked(self, x: Symbol) -> str:
        """The tensor with its rows in front of all its axes, also where they are stored in place of the first."""
        return self.emit("Reshape", [x, _ints(-1, *x.shape)])[0] if x.merged else x.name

    def settled(self, name: str, shape: Sizes) -> Symbol:
        """A tensor that is stored as (rows, *shape)."""
        found = Symbol(name, shape)
        return Symbol(self.emit("Reshape", [name, _ints(*found.stored)])[0], shape) if found.merged else found

    def reshape(self, x: Symbol, shape: Sizes) -> Symbol:
        """The same entries in another shape."""
        target = Symbol(x.name, shape, x.rows)
        return target if target.stored == x.stored else self.append("Reshape", [x, _ints(*target.stored)], shape)

    def transpose(self, x: Symbol, order: Sequence[int]) -> Symbol:
        """Axes in another order."""
        order, shape = [int(axis) for axis in order], tuple(x.shape[axis] for axis in order)
        if order == sorted(order):
            return x
        if not x.rows or (x.merged and order[0] == 0):
            return self.append("Transpose", [x], shape, perm=order)
        perm = [0, *(axis + 1 for axis in order)]
        return self.settled(self.emit("Transpose", [self.stacked(x)], perm=perm)[0], shape)

    def expand(self, x: Symbol, shape: Sizes) -> Symbol:
        """Axes of length 1 repeated."""
        if x.shape == shape:
            return x
        if x.merged and shape[0] != 1:
            return Symbol(self.emit("Expand", [self.stacked(x), _ints(1, *shape)])[0], shape)
        target = [abs(size) for size in Symbol("", shape, x.rows).stored]
        return self.append("Expand", [x, _ints(*target)], shape)

    def total(self, x: Symbol, axes: Sequence[int]) -> Symbol:
        """Sum over axes, kept at length 1."""
        return self.reduce("ReduceSum", x, axes)

    def reduce(self, op: str, x: Symbol, axes: Sequence[int]) -> Symbol:
        """A reduction over axes, kept at length 1, that leaves a single entry as it is."""
        axes = [axis for axis in axes if x.shape[axis] != 1]
        if not axes:
            return x
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        name = self.emit(op, [x, _ints(*(x.axis(axis) for axis in axes))], keepdims=1)[0]
        return self.settled(name, shape) if x.rows and not x.merged else Symbol(name, shape, x.rows)

    def total_rows(self, x: Symbol, shape: Sizes) -> Symbol:
        """Sum over rows and over what ``shape`` was broadcast along, without rows."""
        lead = len(x.shape) - len(shape)
        own = [axis for axis, size in enumerate(x.shape) if axis < lead or (size != 1 and shape[axis - lead] == 1)]
        axes = {x.axis(axis) for axis in own if not (x.merged and axis == 0)} | ({0} if x.rows else set())
        kept = tuple(1 if axis in axes else size for axis, size in enumerate(x.stored))
        name = self.emit("ReduceSum", [x, _ints(*sorted(axes))], keepdims=1)[0] if axes else x.name
        return Symbol(name if kept == shape else self.emit("Reshape", [name, _ints(*shape)])[0], shape, rows=False)

    def concatenate(self, parts: Sequence[Symbol], axis: int) -> Symbol:
        """Side by side along an axis."""
        if len(parts) == 1:
            return parts[0]
        shape = _resized(parts[0].shape, axis, sum(part.shape[axis] for part in parts))
        if not any(part.rows for part in parts):
            return self.append("Concat", parts, shape, axis=axis)
        parts = [part if part.rows else self.repeated(part, parts) for part in parts]
        if axis > 0:
            return self.append("Concat", parts, shape, axis=parts[0].axis(axis))
        return self.settled(self.emit("Concat", [self.stacked(part) for part in parts], axis=1)[0], shape)

    def repeated(self, x: Symbol, others: Sequence[Symbol]) -> Symbol:
        """A tensor without rows repeated for as many rows as one of the others has."""
        model = next(other for other in others if other.rows)
        count = self.emit("Shape", [model], start=0, end=1)[0]
        target = Symbol("", x.shape)
        dims = self.emit("Concat", [count, _ints(*target.stored[1:])], axis=0)[0]
        source = x.name if target.merged else self.emit("Unsqueeze", [x, _ints(0)])[0]
        return Symbol(self.emit("Expand", [source, dims])[0], x.shape)

    def cut(self, x: Symbol, axis: int, start: int, stop: int) -> Symbol:
        """A range of indices along an axis."""
        if (start, stop) == (0, x.shape[axis]):
            return x
        shape = _resized(x.shape, axis, stop - start)
        name = self.emit("Slice", [x, _ints(start), _ints(stop), _ints(x.axis(axis))])[0]
        return self.settled(name, shape) if axis == 0 and x.rows else Symbol(name, shape, x.rows)

    def embed(self, x: Symbol, axis: int, before: int, after: int) -> Symbol:
        """Zeros in front and behind along an axis; negative numbers cut off."""
        if before <= 0 and after <= 0:
            return self.cut(x, axis, -before, x.shape[axis] + after)
        shape = _resized(x.shape, axis, x.shape[axis] + before + after)
        if x.merged and axis == 0:
            return Symbol(self._pad(self.stacked(x), len(shape) + 1, 1, before, after), shape)
        return Symbol(self._pad(x.name, len(x.stored), x.axis(axis), before, after), shape, x.rows)

    def _pad(self, name: str, rank: int, axis: int, before: int, after: int) -> str:
        pads = [0] * (2 * rank)
        pads[axis], pads[rank + axis] = before, after
        return self.emit("Pad", [name, _ints(*pads)])[0]

    def gather(self, x: Symbol, index: NDArray[np.int64]) -> Symbol:
        """Entries of a vector, in the shape of ``index``."""
        if not x.rows:
            return self.append("Gather", [x, np.asarray(index, np.int64)], index.shape, axis=0)
        name = self.emit("Gather", [self.stacked(x), np.asarray(index, np.int64)], axis=1)[0]
        return self.settled(name, index.shape)

    def _negate(self, x: Symbol) -> Symbol:
        return self.append("Neg", [x], x.shape)

    def _multiply(self, x: Symbol, values: Array) -> Symbol:
        return x if values.size == 1 and values.item() == 1 else self.append("Mul", [x, self.values(values)], x.shape)

    def _add_constant(self, x: Symbol, values: Array) -> Symbol:
        return self.append("Add", [x, self.values(values)], x.shape)

    def _matmul(self, x: Symbol, matrix: Array) -> Symbol:
        return self.product(x, self.values(matrix))

    def product(self, x: Symbol, matrix: Symbol | NDArray[Any]) -> Symbol:
        """``x @ matrix``, both with at least two axes, batches of matrices as in numpy; the matrix may have rows."""
        batch = np.broadcast_shapes(x.shape[:-2], matrix.shape[:-2])
        shape = (*batch, x.shape[-2], matrix.shape[-1])
        single = len(matrix.shape) == 2 and not (isinstance(matrix, Symbol) and matrix.rows)
        if single and (x.rows or len(x.shape) == 2):  # rows may be rows of the matrix
            return self.append("MatMul", [x, matrix], shape)
        wide = shape if len(shape) > 2 and shape[0] == 1 else (1, *shape)
        return self.reshape(self.entrywise("MatMul", [x, matrix], wide), shape)

    def _convolve(self, x: Symbol, weights: Array, window: Window, size: Sizes) -> Symbol:
        return slide(self, x, self.values(weights), window, size)

    def _spread(self, x: Symbol, weights: Array, window: Window, size: Sizes) -> Symbol:
        return unslide(self, x, self.values(weights), window, size)

    def _constant(self, array: NDArray[Any]) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._weights:
            name = f"constant:{len(self._weights)}"
            self._weights[key] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        return str(self._weights[key].name)


def _ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _resized(shape: Sizes, axis: int, size: int) -> Sizes:
    return (*shape[:axis], size, *shape[axis + 1 :])
