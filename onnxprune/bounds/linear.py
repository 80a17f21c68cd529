"""Backward linear bounds (CROWN) through dense parts of a graph, in float64 with all rounding accounted for.

From a pre-activation the coefficients are carried back through affine nodes exactly and through unstable ReLUs by
two bounding lines (Zhang et al. 2018), until the inputs or a tensor that only has interval bounds. Every lower
slope in [0, 1] is valid; the adaptive one and 0 are both tried, the better bound wins. Rounding: at each affine
step the error of the products is bounded by gamma times the absolute sums and added up (see methods of rounding
in ``operators/interval.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.bounds.interval import Bounds, interval_bounds
from onnxprune.domain import Domain
from onnxprune.graph.graph import Graph
from onnxprune.operators import Interval, op_of
from onnxprune.operators.interval import Array, gamma, up
from onnxprune.operators.linear import LinearLayer, linear_layer

WORK = 2e10
"""Multiply-adds up to which one layer is bounded this way."""
PASSED_ON = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout")
CARRIED = ("Gemm", "MatMul", "Add", "Sub")
WIDEST = 8192
"""Entries of a tensor up to which its rows of coefficients are kept in memory."""
ACTIVATIONS = ("Relu", "LeakyRelu", "Clip")


def linear_bounds(graph: Graph, domain: Domain) -> Bounds:
    """Interval bounds, tightened at every pre-activation by backward linear bounds.

    Args:
        graph: The graph to sweep.
        domain: Where the inputs lie.

    Returns:
        Outward-rounded bounds, never wider than those of intervals alone.
    """
    rough = interval_bounds(graph, domain)
    if not domain.restricts:
        return rough
    refiner = Refiner(graph)
    tight = interval_bounds(graph, domain, refiner)
    corners = {name: np.concatenate(rows) for name, rows in refiner.corners.items()}
    return Bounds({name: tight[name].meet(rough[name]) for name in rough}, corners)


class Refiner:
    """Tightens the interval of a pre-activation while a sweep goes through the graph.

    Args:
        graph: The graph swept.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._layers: dict[int, LinearLayer | None] = {}
        self._inputs = {value.name for value in graph.inputs}
        self.corners: dict[str, list[Array]] = {}
        """Per input the corners of its box where the linear bounds are attained, one row per unit and side."""

    def __call__(self, node: gs.Node, known: Mapping[str, Interval]) -> Interval | None:
        """Better bounds on the first output of a node, or None where this method does not apply.

        Args:
            node: A node whose output bounds are known already.
            known: Bounds so far, of all tensors up to this node.
        """
        tensor = node.outputs[0]
        if op_of(node) not in CARRIED or not any(op_of(reader) in ACTIVATIONS for reader in tensor.outputs):
            return None
        box = _flat(known, self._graph, tensor.name)
        if box is None or len(box[0]) > WIDEST or self._is_first(node):
            return None
        low, high = box
        open_units = np.flatnonzero((low < 0) & (high > 0))
        if not len(open_units) or not np.isfinite([low.min(), high.max()]).all():
            return None
        start = np.zeros((2 * len(open_units), len(low)))
        rows = np.arange(len(open_units))
        start[rows, open_units] = 1.0
        start[len(open_units) + rows, open_units] = -1.0
        best = np.full(len(start), -np.inf)
        for adaptive in (True, False):
            best = np.maximum(best, self._lower(tensor, start, known, adaptive=adaptive))
        low, high = low.copy(), high.copy()
        low[open_units] = np.maximum(low[open_units], best[: len(open_units)])
        high[open_units] = np.minimum(high[open_units], -best[len(open_units) :])
        shape = self._graph.types[tensor.name].shape or ()
        wide = (1, *(d for d in shape[1:] if isinstance(d, int)))
        return Interval.of(low.reshape(wide), high.reshape(wide))

    def _is_first(self, node: gs.Node) -> bool:
        """Intervals are exact in a layer that reads the inputs directly."""
        source = node.inputs[0]
        return all(not t.inputs for t in node.inputs) or (
            len(source.inputs) == 1 and op_of(source.inputs[0]) in PASSED_ON and not source.inputs[0].inputs[0].inputs
        )

    def _lower(self, tensor: gs.Tensor, start: Array, known: Mapping[str, Interval], *, adaptive: bool) -> Array:
        """Lower bounds of ``start @ tensor``, one per row."""
        walk = _Walk(self._graph, known, adaptive, {tensor.name: start}, np.zeros(len(start)), np.zeros(len(start)))
        position = {id(node): index for index, node in enumerate(self._graph.nodes)}
        producer = tensor.inputs[0]
        for node in reversed(self._graph.nodes[: position[id(producer)] + 1]):
            name = node.outputs[0].name
            if name in walk.open:
                layer = self._layer(node)
                if not walk.step(node, layer, first=name == tensor.name):
                    walk.close(name)
        for name in list(walk.open):
            box = _flat(known, self._graph, name)
            if adaptive and name in self._inputs and box is not None:
                self.corners.setdefault(name, []).append(np.where(walk.open[name] > 0, *box))
            walk.close(name)
        return walk.total - walk.error

    def _layer(self, node: gs.Node) -> LinearLayer | None:
        if id(node) not in self._layers:
            self._layers[id(node)] = linear_layer(self._graph.view(node))
        return self._layers[id(node)]


@dataclass
class _Walk:
    """Coefficients on their way back: ``total + sum open[t] @ t - error`` is a lower bound of every row."""

    graph: Graph
    known: Mapping[str, Interval]
    adaptive: bool
    open: dict[str, Array]
    total: Array
    error: Array

    def step(self, node: gs.Node, layer: LinearLayer | None, *, first: bool) -> bool:
        """Carry the coefficients of a node's output to its inputs; False where no rule applies."""
        name, op = node.outputs[0].name, op_of(node)
        if len([t for t in node.outputs if t.name]) != 1:
            return False
        if layer is not None and layer.bias is not None and op in ("Gemm", "MatMul"):
            return self._dense(name, node, layer)
        if op in PASSED_ON:
            return self._same(name, node)
        if op == "Relu":
            return self._relu(name, node)
        if op in ("Add", "Sub"):
            return self._sum(name, node, op)
        return False

    def close(self, name: str) -> None:
        """Replace a tensor by its interval."""
        coefficients = self.open.pop(name)
        box = _flat(self.known, self.graph, name)
        if box is None or len(box[0]) != coefficients.shape[1]:
            self.total = np.full_like(self.total, -np.inf)
            return
        low, high = box
        with np.errstate(invalid="ignore", over="ignore"):
            positive, negative = np.maximum(coefficients, 0.0), np.minimum(coefficients, 0.0)
            value = positive @ low + negative @ high
            size = np.abs(coefficients) @ np.maximum(np.abs(low), np.abs(high))
            self._add(value, size, coefficients.shape[1])

    def _add(self, value: Array, size: Array, terms: int) -> None:
        """Add an inexact value: ``size`` bounds the sum of the absolute products."""
        with np.errstate(invalid="ignore", over="ignore"):
            total = self.total + value
            self.error = up(self.error + up(gamma(terms) * size + gamma(1) * (np.abs(total) + np.abs(self.total))))
        self.total = np.where(np.isnan(total) | np.isnan(self.error), -np.inf, total)
        self.error = np.where(np.isnan(self.error), 0.0, self.error)

    def _pass(self, name: str, coefficients: Array) -> None:
        if name not in self.open:
            self.open[name] = coefficients
            return
        total = self.open[name] + coefficients
        magnitude = _magnitude(self.known, self.graph, name)
        self._add(np.zeros(len(total)), np.abs(total) @ magnitude, 1)
        self.open[name] = total

    def _dense(self, name: str, node: gs.Node, layer: LinearLayer) -> bool:
        source = node.inputs[0].name
        magnitude = _magnitude(self.known, self.graph, source)
        if len(magnitude) != layer.n_in or layer.bias is None:
            return False
        coefficients = self.open[name]
        if coefficients.shape[0] * layer.n_in * layer.n_out > WORK:
            return False
        del self.open[name]
        weights = layer.weights[:, :, 0]
        size = np.abs(coefficients) @ (np.abs(weights) @ magnitude + np.abs(layer.bias))
        self._add(coefficients @ layer.bias, size, layer.n_out)
        self._pass(source, coefficients @ weights)
        return True

    def _same(self, name: str, node: gs.Node) -> bool:
        source = node.inputs[0].name
        if len(_magnitude(self.known, self.graph, source)) != self.open[name].shape[1]:
            return False
        self._pass(source, self.open.pop(name))
        return True

    def _sum(self, name: str, node: gs.Node, op: str) -> bool:
        coefficients = self.open[name]
        width = coefficients.shape[1]
        parts = []
        for index, tensor in enumerate(node.inputs):
            sign = -1.0 if op == "Sub" and index == 1 else 1.0
            if isinstance(tensor, gs.Constant):
                values = np.asarray(tensor.values, dtype=np.float64)
                if values.size not in (1, width):
                    return False
                parts.append((None, sign * np.broadcast_to(values.reshape(-1), (width,))))
            elif len(_magnitude(self.known, self.graph, tensor.name)) == width:
                parts.append((tensor.name, np.full(width, sign)))
            else:
                return False
        del self.open[name]
        for source, values in parts:
            if source is None:
                self._add(coefficients @ values, np.abs(coefficients) @ np.abs(values), width)
            else:
                self._pass(source, coefficients * values[0])
        return True

    def _relu(self, name: str, node: gs.Node) -> bool:
        source = node.inputs[0].name
        box = _flat(self.known, self.graph, source)
        coefficients = self.open[name]
        if box is None or len(box[0]) != coefficients.shape[1]:
            return False
        low, high = box
        crossing = (low < 0) & (high > 0)
        on = low >= 0
        if not np.isfinite(low[crossing]).all() or not np.isfinite(high[crossing]).all():
            return False
        del self.open[name]
        with np.errstate(invalid="ignore", divide="ignore"):
            upper = np.where(crossing, high / (high - low), on.astype(np.float64))
        upper = np.clip(upper, 0.0, 1.0)
        offset = np.where(crossing, np.maximum(up(-upper * low), up(high - down_product(upper, high))), 0.0)
        flat = (high > -low).astype(np.float64) if self.adaptive else np.zeros(len(low))
        lower = np.where(crossing, flat, on.astype(np.float64))
        positive, negative = np.maximum(coefficients, 0.0), np.minimum(coefficients, 0.0)
        self._add(negative @ offset, np.abs(negative) @ np.abs(offset), len(low))
        magnitude = np.maximum(np.abs(low), np.abs(high))
        carried = positive * lower + negative * upper
        self._add(np.zeros(len(carried)), np.abs(carried) @ np.where(np.isfinite(magnitude), magnitude, 0.0), 1)
        self._pass(source, carried)
        return True


def down_product(a: Array, b: Array) -> Array:
    """A product rounded down."""
    return np.nextafter(a * b, -np.inf)


def _flat(known: Mapping[str, Interval], graph: Graph, name: str) -> tuple[Array, Array] | None:
    """Bounds per entry of one sample, row-major; None where sizes are unknown or differ along the batch."""
    kind, bounds = graph.types.get(name), known.get(name)
    if kind is None or kind.shape is None or bounds is None or not kind.shape:
        return None
    sizes = tuple(d for d in kind.shape[1:] if isinstance(d, int))
    if len(sizes) != len(kind.shape) - 1:
        return None
    aligned = bounds.aligned(len(kind.shape)) if bounds.ndim <= len(kind.shape) else bounds
    if aligned.ndim != len(kind.shape) or aligned.shape[0] != 1:
        return None
    low, high = (np.broadcast_to(v, (1, *sizes)).reshape(-1) for v in (aligned.lower, aligned.upper))
    return low, high


def _magnitude(known: Mapping[str, Interval], graph: Graph, name: str) -> NDArray[np.float64]:
    box = _flat(known, graph, name)
    return np.zeros(0) if box is None else np.maximum(np.abs(box[0]), np.abs(box[1]))
