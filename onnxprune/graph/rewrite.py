"""The one routine that removes channels, folds constants into biases and moves columns onto one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.graph.graph import Graph, label
from onnxprune.graph.groups import ChannelGroups
from onnxprune.operators import Axis, Resized, op_of, operator_for
from onnxprune.operators.interval import Array
from onnxprune.operators.linear import LinearLayer


@dataclass(frozen=True)
class Fold:
    """A read channel that always has this value: its contribution goes into the layer's bias."""

    reader: int
    channel: int
    value: float


@dataclass(frozen=True)
class Move:
    """A read channel that always is ``factor`` times another one: its column is added onto the other's."""

    reader: int
    channel: int
    onto: int
    factor: float


@dataclass
class Rewrite:
    """What is to be done: components to remove, and where their contributions go."""

    remove: set[int] = field(default_factory=set)
    folds: list[Fold] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)


@dataclass
class Applied:
    """What was done.

    Attributes:
        removed: Unit indices per layer.
        kept: Per axis that became shorter, the indices that stayed.
        rounding: The largest rounding of a new constant.
        moved: Per tensor, by how much that rounding may change its entries (inf: no bound is known).
    """

    removed: dict[str, list[int]] = field(default_factory=dict)
    kept: dict[Axis, NDArray[np.int64]] = field(default_factory=dict)
    rounding: float = 0.0
    moved: dict[str, float] = field(default_factory=dict)


def spare_last(groups: ChannelGroups, remove: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Take back removals that would leave an axis without any index (tensors of size 0 are not removed)."""
    remove = remove.copy()
    changed = True
    while changed:
        changed = False
        for axis in groups.axes():
            components = groups.of(axis)
            if remove[components].all():
                remove[components[0]] = False
                changed = True
    return remove


def apply(graph: Graph, groups: ChannelGroups, rewrite: Rewrite) -> Applied:
    """Carry out a rewrite; the graph's groups and types are stale afterwards."""
    applied = Applied()
    gone = np.zeros(groups.count, dtype=bool)
    gone[list(rewrite.remove)] = True
    kept = {axis: np.flatnonzero(~gone[of]) for axis in groups.axes() if gone[of := groups.of(axis)].any()}
    applied.kept = kept
    shifts = _shifts(groups, rewrite)
    aliases = _move_columns(graph, groups, rewrite, applied)
    _record(groups, gone, applied)
    _slice_constants(graph, kept, aliases)
    for (name, axis), indices in kept.items():
        graph.resized(name, axis, len(indices))
    _resize_nodes(graph, kept)
    for reader, shift in shifts.items():
        layer = groups.readers[reader].layer
        rounding = shift_bias(graph, layer, shift, kept.get(layer.writes))
        applied.rounding = max(applied.rounding, rounding)
        applied.moved[layer.writes[0]] = max(applied.moved.get(layer.writes[0], 0.0), rounding)
    return applied


def _record(groups: ChannelGroups, gone: NDArray[np.bool_], applied: Applied) -> None:
    for units in groups.units:
        removed = np.flatnonzero(gone[units.components])
        if len(removed):
            applied.removed[label(units.node)] = [int(i) for i in removed]


def _shifts(groups: ChannelGroups, rewrite: Rewrite) -> dict[int, Array]:
    """What constant channels add to the outputs of the layers that read them."""
    by_reader: dict[int, list[Fold]] = {}
    for fold in rewrite.folds:
        if fold.value != 0.0:
            by_reader.setdefault(fold.reader, []).append(fold)
    shifts = {}
    for reader, folds in by_reader.items():
        columns = groups.readers[reader].layer.columns()
        channels = [fold.channel for fold in folds]
        shifts[reader] = columns[:, channels] @ np.array([fold.value for fold in folds])
    return shifts


def _move_columns(graph: Graph, groups: ChannelGroups, rewrite: Rewrite, applied: Applied) -> dict[str, str]:
    by_reader: dict[int, list[Move]] = {}
    for move in rewrite.moves:
        by_reader.setdefault(move.reader, []).append(move)
    aliases: dict[str, str] = {}
    for reader, moves in by_reader.items():
        layer = groups.readers[reader].layer
        if layer.weight_in is None:
            raise AssertionError("columns of grouped layers are never moved")
        before = layer.node.inputs[1].name
        constant = graph.own(layer.node, 1)
        aliases[constant.name] = before
        raw = np.asarray(constant.values)
        wide = np.moveaxis(raw.astype(np.float64), layer.weight_in, 0)
        exact = wide.copy()
        for move in moves:
            exact[move.onto] += move.factor * wide[move.channel]
        rounded = np.moveaxis(exact, 0, layer.weight_in).astype(raw.dtype)
        rounding = _rounding(np.moveaxis(exact, 0, layer.weight_in), rounded)
        applied.rounding = max(applied.rounding, rounding)
        if rounding:
            applied.moved[layer.writes[0]] = np.inf
        graph.set_values(constant, rounded)
    return aliases


def _rounding(exact: NDArray[Any], rounded: NDArray[Any]) -> float:
    return float(np.abs(rounded.astype(np.float64) - exact).max(initial=0.0))


def _slice_constants(graph: Graph, kept: dict[Axis, NDArray[np.int64]], aliases: dict[str, str]) -> None:
    by_name: dict[str, list[tuple[int, NDArray[np.int64]]]] = {}
    for (name, axis), indices in kept.items():
        by_name.setdefault(name, []).append((axis, indices))
    for name, constant in graph.constants().items():
        for axis, indices in by_name.get(aliases.get(name, name), []):
            graph.set_values(constant, np.take(np.asarray(constant.values), indices, axis=axis))


def _resize_nodes(graph: Graph, kept: dict[Axis, NDArray[np.int64]]) -> None:
    changed = {name for name, _ in kept}
    sizes = Resized(kept)
    for node in graph.nodes:
        if any(t.name in changed for t in (*node.inputs, *node.outputs)):
            operator = operator_for(str(node.op), node.domain)
            if operator is not None:
                operator.resize(graph.view(node), sizes)


def shift_bias(graph: Graph, layer: LinearLayer, shift: Array, rows: NDArray[np.int64] | None = None) -> float:
    """Add a vector to the bias of a layer, giving it one where it has none.

    Args:
        graph: The graph of the layer.
        layer: The layer as it was before units were removed; its bias must be constant.
        shift: What to add, for all units it had.
        rows: The units it still has (default: all).

    Returns:
        The largest rounding of a bias entry.
    """
    if layer.bias is None:
        raise AssertionError("constants are only folded into constant biases")
    rows = np.arange(layer.n_out) if rows is None else rows
    node, index, base = layer.node, 2, layer.bias[rows]
    dtype = np.asarray(node.inputs[1].values).dtype
    if layer.node.op == "MatMul" and layer.in_axis == 1:
        node.op = "Gemm"
    elif layer.node.op == "MatMul":
        node, index, base = _bias_of_matmul(graph, layer, len(rows), dtype)
    elif layer.node.op == "Gemm":
        node.attrs.pop("beta", None)  # the normal form has it multiplied in
    exact = base + shift[rows]
    values = exact.astype(dtype)
    fresh = gs.Constant(graph.fresh(f"{label(layer.node)}_bias"), values)
    if index < len(node.inputs):
        node.inputs[index] = fresh
    else:
        node.inputs.append(fresh)
    return _rounding(exact, values)


def _bias_of_matmul(graph: Graph, layer: LinearLayer, size: int, dtype: np.dtype[Any]) -> tuple[gs.Node, int, Array]:
    """The Add behind a MatMul that carries its bias; a new one is inserted where there is none."""
    node = layer.node
    output = node.outputs[0]
    readers = list(output.outputs)
    plain = output.name not in graph.output_names and output.name not in graph.captured
    if plain and len(readers) == 1 and op_of(readers[0]) == "Add":
        index = 1 if readers[0].inputs[0] is output else 0
        other = readers[0].inputs[index]
        if isinstance(other, gs.Constant) and np.asarray(other.values).shape == (size,):
            return readers[0], index, np.asarray(other.values).astype(np.float64)
    before = gs.Variable(graph.fresh(f"{output.name}_unbiased"))
    node.outputs[0] = before
    zeros = gs.Constant(graph.fresh(f"{output.name}_zero"), np.zeros(size, dtype))
    add = gs.Node("Add", f"{label(node)}_bias", inputs=[before, zeros], outputs=[output])
    graph.insert_after(node, add)
    return add, 1, np.zeros(size)
