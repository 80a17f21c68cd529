"""A graph seen at one sample: static shapes, flat vectors, and what carries coefficients through its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.bounds.interval import LARGEST_OF
from onnxprune.domain import Domain, InputSpec
from onnxprune.graph.graph import Graph
from onnxprune.operators import Interval, NodeView, Operator, TensorType, op_of, operator_for
from onnxprune.operators.batching import samples_apart
from onnxprune.operators.elementwise import Elementwise
from onnxprune.operators.interval import LARGEST, Array
from onnxprune.operators.linear import linear_layer
from onnxprune.operators.tape import NumpyTape

PLAIN = (
    "Add Concat Dropout Flatten Identity Neg Reshape Slice Split Squeeze Sub Transpose Unsqueeze"  # entries 0, 1, -1
).split()


class StaticGraph:
    """The nodes of a graph as maps between flat vectors, for a single sample of the batch.

    A leading axis of unknown length that an input of the graph has too is the batch: its length is 1 here.

    Args:
        graph: The graph; not changed.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        batch = {_leading(kind) for name, kind in graph.types.items() if name in {v.name for v in graph.inputs}}
        self._batched = {name for name, kind in graph.types.items() if _is_batched(kind, batch)}
        self._types = {name: _sized(kind, 1) if name in self._batched else kind for name, kind in graph.types.items()}
        self._apart: dict[int, bool] = {}
        self._views: dict[int, NodeView] = {}
        self._constants: dict[int, list[Array] | None] = {}
        self._grains: dict[int, tuple[float, float]] = {}
        self._sizes: dict[str, int | None] = {}
        self.position: dict[int, int] = {id(node): index for index, node in enumerate(graph.nodes)}

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph's inputs."""
        return tuple(value.name for value in self.graph.inputs)

    @cached_property
    def bends(self) -> frozenset[str]:
        """Inputs of the nodes that are not affine."""
        bent = [node for node in self.graph.nodes if self.constant_part(node) is None]
        return frozenset(t.name for node in bent for t in node.inputs if t.name and not isinstance(t, gs.Constant))

    @cached_property
    def widest(self) -> int:
        """Entries of the largest computed tensor of static size."""
        names = [tensor.name for node in self.graph.nodes for tensor in node.outputs]
        return max((self.size(name) or 0 for name in (*self.inputs, *names)), default=0)

    def view(self, node: gs.Node) -> NodeView:
        """The node with static shapes."""
        if id(node) not in self._views:
            self._views[id(node)] = NodeView(node, self._types, self.graph.opset, self.graph.sparse)
        return self._views[id(node)]

    def operator(self, node: gs.Node) -> Operator | None:
        """The class that speaks for a node."""
        return operator_for(str(node.op), node.domain)

    def apart(self, node: gs.Node) -> bool:
        """Whether a node treats every sample of the batch by itself, as one row of a flat vector."""
        if id(node) not in self._apart:
            self._apart[id(node)] = self._keeps_apart(node)
        return self._apart[id(node)]

    def _keeps_apart(self, node: gs.Node) -> bool:
        variable = [t.name for t in node.inputs if t.name and not isinstance(t, gs.Constant)]
        batched = [name in self._batched for name in variable]
        outputs = [t.name in self._batched for t in node.outputs if t.name]
        if not any(batched):
            return not any(outputs)
        operator = self.operator(node)
        if not all(outputs) or operator is None:
            return False
        if linear_layer(self.view(node)) is not None or isinstance(operator, Elementwise):
            return all(batched)
        twice = {name: _sized(kind, 2) if name in self._batched else kind for name, kind in self._types.items()}
        return samples_apart(operator, self.view(node), NodeView(node, twice, self.graph.opset, self.graph.sparse))

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Static shape of a tensor, None where a size is open."""
        kind = self._types.get(name)
        if kind is None or kind.shape is None:
            return None
        sizes = tuple(d for d in kind.shape if isinstance(d, int))
        return sizes if len(sizes) == len(kind.shape) else None

    def size(self, name: str) -> int | None:
        """Number of entries of a tensor, None where open."""
        if name not in self._sizes:
            shape = self.shape(name)
            self._sizes[name] = None if shape is None else int(np.prod(shape))
        return self._sizes[name]

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floating-point numbers."""
        kind = self._types.get(name)
        return kind is not None and kind.dtype is not None and kind.dtype.kind in "fV"

    def largest(self, name: str) -> float:
        """Largest finite value of a tensor's element type."""
        kind = self._types.get(name)
        return LARGEST if kind is None or kind.dtype is None else LARGEST_OF.get(kind.dtype.name, LARGEST)

    def flat(self, known: Mapping[str, Interval], name: str) -> tuple[Array, Array] | None:
        """Bounds per entry of one sample, shape (entries,); None where sizes are open or differ along the batch."""
        shape, bounds = self.shape(name), known.get(name)
        if shape is None or bounds is None or bounds.ndim > len(shape):
            return None
        aligned = bounds.aligned(len(shape))
        if any(a not in (1, b) for a, b in zip(aligned.shape, shape, strict=True)):
            return None
        return (
            np.broadcast_to(aligned.lower, shape).reshape(-1),
            np.broadcast_to(aligned.upper, shape).reshape(-1),
        )

    def constant_part(self, node: gs.Node) -> list[Array] | None:
        """Outputs of an affine node for zero inputs, flat; None where the node is not affine."""
        if id(node) not in self._constants:
            self._constants[id(node)] = self.apply(node, [None] * len(node.inputs), NumpyTape(), zeros=True)
        return self._constants[id(node)]

    def apply(
        self, node: gs.Node, inputs: list[Array | None], tape: NumpyTape, *, zeros: bool = False
    ) -> list[Array] | None:
        """An affine node on flat rows: inputs and outputs of shape (rows, entries).

        Args:
            node: The node.
            inputs: One array per input; None for constants.
            tape: How to compute.
            zeros: Take zeros for all variable inputs (one row, dropped from the result).
        """
        operator = self.operator(node)
        given: list[Array | None] = []
        for tensor, rows in zip(node.inputs, inputs, strict=True):
            shape = self.shape(tensor.name) if tensor.name else None
            if not tensor.name or isinstance(tensor, gs.Constant):
                given.append(None)
            elif shape is None or not self.is_float(tensor.name):
                return None
            else:
                given.append(np.zeros((1, *shape)) if zeros or rows is None else rows.reshape(-1, *shape))
        if operator is None or not self.apart(node):
            return None
        results = operator.affine(self.view(node), tape, given)
        if results is None or not self._fits(node.outputs, results):
            return None
        return [r.reshape(-1) if zeros else r.reshape(r.shape[0], -1) for r in results]

    def adjoint(self, node: gs.Node, coefficients: list[Array | None]) -> list[Array | None] | None:
        """Coefficients on the inputs of an affine node from those on its outputs, both of shape (rows, entries)."""
        operator = self.operator(node)
        shaped: list[Array | None] = []
        for tensor, rows in zip(node.outputs, coefficients, strict=True):
            shape = self.shape(tensor.name)
            if rows is not None and shape is None:
                return None
            shaped.append(None if rows is None or shape is None else rows.reshape(-1, *shape))
        if operator is None:
            return None
        results = operator.adjoint(self.view(node), NumpyTape(), shaped)
        if results is None or not self._fits(node.inputs, results):
            return None
        return [None if r is None else r.reshape(r.shape[0], -1) for r in results]

    def _fits(self, tensors: Sequence[gs.Tensor], rows: Sequence[Array | None]) -> bool:
        """Whether results have the sizes that the graph's types promise."""
        pairs = zip(tensors, rows, strict=False)
        return all(r is None or r[0].size == self.size(t.name) for t, r in pairs)

    def work(self, node: gs.Node) -> float:
        """Multiply-adds of a node for one row."""
        layer, size = linear_layer(self.view(node)), self.size(node.outputs[0].name) or 0
        return float(size) if layer is None else float(layer.weights.size) * size / layer.n_out

    def grain(self, node: gs.Node) -> tuple[float, float]:
        """A power of two that all entries of an affine node's matrix are multiples of (0: unknown), and the largest."""
        if id(node) not in self._grains:
            layer = linear_layer(self.view(node))
            plain = all(float(node.attrs.get(name, 1.0)) == 1.0 for name in ("alpha", "beta"))
            found = (0.0, 0.0)
            if layer is not None and plain:
                found = (grain(layer.weights), float(np.abs(layer.weights).max()))
            elif op_of(node) in PLAIN:
                found = (1.0, 1.0)
            self._grains[id(node)] = found
        return self._grains[id(node)]

    def input_box(self, domain: Domain) -> dict[str, tuple[Array, Array]]:
        """Ends of the domain's box per input, flat, for the inputs of static size."""
        found = {}
        for name in self.inputs:
            kind, shape = self.graph.types.get(name), self.shape(name)
            if kind is None or kind.dtype is None or shape is None:
                continue
            ends = domain.bounds(InputSpec(name, kind.dtype, kind.shape))
            low, high = (np.broadcast_to(end, shape).reshape(-1) for end in ends)
            found[name] = (low, high)
        return found


def _leading(kind: TensorType) -> object:
    return kind.shape[0] if kind.shape else 0


def _is_batched(kind: TensorType, batch: set[object]) -> bool:
    return bool(kind.shape) and kind.shape is not None and not isinstance(kind.shape[0], int) and kind.shape[0] in batch


def _sized(kind: TensorType, batch: int) -> TensorType:
    return kind if not kind.shape else TensorType(kind.dtype, (batch, *kind.shape[1:]))


def grain(values: Array) -> float:
    """The largest power of two that all values are multiples of; 1 for zeros, 0 where it would underflow."""
    mantissa, exponent = np.frexp(values[values != 0])
    if not mantissa.size:
        return 1.0
    whole = (mantissa * 2.0**53).astype(np.int64)
    place = np.log2((whole & -whole).astype(np.float64)) + exponent - 53
    lowest = int(place.min())
    return 2.0**lowest if lowest > -400 else 0.0
