"""The tape that writes an ONNX model: the same rules, run by ONNX Runtime on any provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.operators.interval import Array
from onnxprune.operators.tape import Sizes, Tape, Window

OPSET = 17
IR_VERSION = 8
ROWS = "rows"
"""Name of the symbolic first dimension of every input and output."""


@dataclass(frozen=True)
class Symbol:
    """A tensor of the model under construction; its shape leaves out the rows."""

    name: str
    shape: Sizes


class OnnxTape(Tape[Symbol]):
    """Appends nodes to a model.

    Args:
        dtype: Element type of all tensors. ONNX Runtime's CPU provider has convolutions in float32 only.
        absolute: As for :class:`Tape`.
        shifts: As for :class:`Tape`.
    """

    def __init__(self, dtype: DTypeLike = np.float32, *, absolute: bool = False, shifts: bool = True) -> None:
        super().__init__(absolute=absolute, shifts=shifts)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._nodes: list[NodeProto] = []
        self._inputs: dict[str, Sizes] = {}
        self._weights: dict[tuple[str, Sizes, bytes], TensorProto] = {}
        self._count = 0

    def input(self, name: str, shape: Sizes) -> Symbol:
        """A new input of the model, of shape (rows, *shape)."""
        self._inputs[name] = shape
        return Symbol(name, shape)

    def append(self, op: str, inputs: Sequence[Symbol | NDArray[Any]], shape: Sizes, **attributes: Any) -> Symbol:
        """A node with one output of the given shape (without rows); arrays become initializers as they are."""
        self._count += 1
        name = f"{op}:{self._count}"
        names = [part.name if isinstance(part, Symbol) else self._constant(part) for part in inputs]
        self._nodes.append(helper.make_node(op, names, [name], name=name, **attributes))
        return Symbol(name, shape)

    def values(self, array: NDArray[Any]) -> NDArray[Any]:
        """Constants in the element type of the model."""
        return np.asarray(array).astype(self.dtype)

    def finish(self, outputs: Mapping[str, Symbol]) -> ModelProto:
        """The model that computes some tensors under the given output names."""
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)

        def value(name: str, shape: Sizes) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, kind, [ROWS, *shape])

        nodes = [*self._nodes, *(helper.make_node("Identity", [x.name], [name]) for name, x in outputs.items())]
        graph = helper.make_graph(
            nodes,
            "tape",
            [value(name, shape) for name, shape in self._inputs.items()],
            [value(name, x.shape) for name, x in outputs.items()],
            list(self._weights.values()),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def shape(self, x: Symbol) -> Sizes:
        """Shape without rows."""
        return x.shape

    def add(self, x: Symbol, y: Symbol) -> Symbol:
        """Sum of equal shapes."""
        return self.append("Add", [x, y], x.shape)

    def reshape(self, x: Symbol, shape: Sizes) -> Symbol:
        """The same entries in another shape."""
        return x if x.shape == shape else self.append("Reshape", [x, _ints(-1, *shape)], shape)

    def transpose(self, x: Symbol, order: Sequence[int]) -> Symbol:
        """Axes in another order."""
        shape = tuple(x.shape[axis] for axis in order)
        return self.append("Transpose", [x], shape, perm=[0, *(axis + 1 for axis in order)])

    def expand(self, x: Symbol, shape: Sizes) -> Symbol:
        """Axes of length 1 repeated."""
        return x if x.shape == shape else self.append("Expand", [x, _ints(1, *shape)], shape)

    def total(self, x: Symbol, axes: Sequence[int]) -> Symbol:
        """Sum over axes, kept at length 1."""
        if not axes:
            return x
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        return self.append("ReduceSum", [x, _ints(*(axis + 1 for axis in axes))], shape, keepdims=1)

    def concatenate(self, parts: Sequence[Symbol], axis: int) -> Symbol:
        """Side by side along an axis."""
        if len(parts) == 1:
            return parts[0]
        shape = _resized(parts[0].shape, axis, sum(part.shape[axis] for part in parts))
        return self.append("Concat", parts, shape, axis=axis + 1)

    def cut(self, x: Symbol, axis: int, start: int, stop: int) -> Symbol:
        """A range of indices along an axis."""
        if (start, stop) == (0, x.shape[axis]):
            return x
        shape = _resized(x.shape, axis, stop - start)
        return self.append("Slice", [x, _ints(start), _ints(stop), _ints(axis + 1)], shape)

    def embed(self, x: Symbol, axis: int, before: int, after: int) -> Symbol:
        """Zeros in front and behind along an axis."""
        if before == after == 0:
            return x
        pads = [0] * (2 * len(x.shape) + 2)
        pads[axis + 1], pads[len(x.shape) + axis + 2] = before, after
        return self.append("Pad", [x, _ints(*pads)], _resized(x.shape, axis, x.shape[axis] + before + after))

    def gather(self, x: Symbol, index: NDArray[np.int64]) -> Symbol:
        """Entries of a vector, in the shape of ``index``."""
        return self.append("Gather", [x, np.asarray(index, np.int64)], index.shape, axis=1)

    def _negate(self, x: Symbol) -> Symbol:
        return self.append("Neg", [x], x.shape)

    def _multiply(self, x: Symbol, values: Array) -> Symbol:
        return self.append("Mul", [x, self.values(values)], x.shape)

    def _add_constant(self, x: Symbol, values: Array) -> Symbol:
        return self.append("Add", [x, self.values(values)], x.shape)

    def _matmul(self, x: Symbol, matrix: Array) -> Symbol:
        batch = np.broadcast_shapes(x.shape[:-2], matrix.shape[:-2])
        shape = (*batch, *x.shape[-2:-1], matrix.shape[-1])
        return self.append("MatMul", [x, self.values(matrix)], shape)

    def _convolve(self, x: Symbol, weights: Array, window: Window, size: Sizes) -> Symbol:
        flat = self._merged(x)
        before, after = [], []
        for axis, (first, places) in enumerate(zip(window.before, size, strict=True), start=1):
            reach = (places - 1) * window.strides[axis - 1] + _extent(weights, window, axis - 1)
            behind = reach - first - flat.shape[axis]
            flat = self.cut(flat, axis, 0, flat.shape[axis] + min(behind, 0))
            before.append(first)
            after.append(max(behind, 0))
        found = self._slide("Conv", flat, weights, window, [*before, *after], (weights.shape[0], *size))
        return self.reshape(found, (*x.shape[:1], *found.shape))

    def _spread(self, x: Symbol, weights: Array, window: Window, size: Sizes) -> Symbol:
        """ConvTranspose with equal padding on both sides (what all providers have); the rest is cut or filled."""
        places = range(len(size))
        natural = [(x.shape[k + 2] - 1) * window.strides[k] + _extent(weights, window, k) for k in places]
        behind = [natural[k] - window.before[k] - size[k] for k in places]
        both = [max(min(window.before[k], behind[k]), 0) for k in places]
        shape = (weights.shape[1] * window.groups, *(natural[k] - 2 * both[k] for k in places))
        found = self._slide("ConvTranspose", self._merged(x), weights, window, [*both, *both], shape)
        for k in places:
            start = window.before[k] - both[k]
            found = self.cut(found, k + 1, start, min(start + size[k], found.shape[k + 1]))
            found = self.embed(found, k + 1, 0, size[k] - found.shape[k + 1])
        return self.reshape(found, (*x.shape[:1], *found.shape))

    def _slide(self, op: str, x: Symbol, weights: Array, window: Window, pads: Sequence[int], shape: Sizes) -> Symbol:
        return self.append(
            op,
            [x, self.values(weights)],
            shape,
            kernel_shape=weights.shape[2:],
            strides=window.strides,
            dilations=window.dilations,
            pads=pads,
            group=window.groups,
        )

    def _merged(self, x: Symbol) -> Symbol:
        """Rows and batch in one axis."""
        return self.reshape(x, x.shape[1:])

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


def _extent(weights: Array, window: Window, k: int) -> int:
    """Length of a window."""
    return int((weights.shape[k + 2] - 1) * window.dilations[k] + 1)
