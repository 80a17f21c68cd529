"""Merge units that are equal, or positive multiples of one another, into one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph, label
from onnxprune.graph.groups import ChannelGroups, Units
from onnxprune.graph.rewrite import Move, Rewrite, spare_last
from onnxprune.operators.channels import Indices
from onnxprune.operators.interval import Array
from onnxprune.operators.linear import LinearLayer, linear_layer
from onnxprune.pass_api import Exactness, PassReport
from onnxprune.removal import execute

SCALABLE = frozenset(
    [
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Abs",
        "Identity",
        "Dropout",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Flatten",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Concat",
        "Split",
        "Slice",
        "Gather",
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
    ]
)
"""Operators that turn proportional channels into proportional channels (no constants of their own but weights)."""


@dataclass(frozen=True)
class MergeParallel:
    """Keep one of several parallel units and add the outgoing weights of the others to its own; exact.

    Unit i is s > 0 times unit j when its row and bias are, and everything up to the reading layers treats both
    channels alike; s different from 1 needs positively homogeneous operators on the way.
    """

    name: ClassVar[str] = "merge_parallel"
    exactness: ClassVar[Exactness] = Exactness.ALWAYS
    order: ClassVar[int | None] = 50

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Merge every family of parallel units."""
        groups = facts.groups
        places = _places(groups)
        rewrite = Rewrite()
        merged: dict[str, int] = defaultdict(int)
        busy: set[int] = set()
        for units in groups.units:
            for one, other, factor in _parallel_rows(graph, units):
                i, j = int(units.components[one]), int(units.components[other])
                free = groups.removable[i] and not facts.held[i] and i not in rewrite.remove and i not in busy
                if i == j or j in rewrite.remove or not free or not _alike(graph, groups, places, i, j, factor):
                    continue
                moves = _moves(groups, i, j, factor)
                if moves is not None:
                    rewrite.remove.add(i)
                    busy.add(j)
                    rewrite.moves += moves
                    merged[label(units.node)] += 1
        chosen = np.zeros(groups.count, dtype=bool)
        chosen[list(rewrite.remove)] = True
        if not chosen.any() or (spare_last(groups, chosen) != chosen).any():
            return PassReport()
        report = execute(graph, facts, rewrite)
        report.merged = dict(merged)
        report.needed_domain = False
        return report


def _places(groups: ChannelGroups) -> dict[int, list[tuple[str, int]]]:
    """Axes on which each removable component has indices."""
    places: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for axis in groups.axes():
        for component in np.unique(groups.of(axis)):
            if groups.removable[component]:
                places[int(component)].append(axis)
    return places


def _parallel_rows(graph: Graph, units: Units) -> Iterator[tuple[int, int, float]]:
    """Pairs (i, j, s) with row i = s * row j exactly, j the first of its family."""
    layer = linear_layer(graph.view(units.node))
    if layer is None or layer.bias is None or layer.depthwise or layer.groups > 1:
        return
    rows = np.concatenate([layer.weights.reshape(layer.n_out, -1), layer.bias[:, None]], axis=1)
    families: dict[bytes, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if np.any(row[:-1]):
            largest = np.abs(row).max()
            families[np.round(row / largest, 5).astype(np.float32).tobytes()].append(index)
    for members in families.values():
        for index in members[1:]:
            factor = _exact_factor(rows[index], rows[members[0]])
            if factor is not None:
                yield index, members[0], factor


def _exact_factor(row: Array, other: Array) -> float | None:
    """S with row = s * other in exact arithmetic: cross products of float32 numbers are exact in float64."""
    pivot = int(np.argmax(np.abs(other)))
    if other[pivot] == 0 or row[pivot] / other[pivot] <= 0:
        return None
    if not np.array_equal(row * other[pivot], other * row[pivot]):
        return None
    return float(row[pivot] / other[pivot])


def _alike(
    graph: Graph,
    groups: ChannelGroups,
    places: dict[int, list[tuple[str, int]]],
    i: int,
    j: int,
    factor: float,
) -> bool:
    """Whether both components run through the same operators with equal (or proportional) constants."""
    if places[i] != places[j]:
        return False
    at = {axis: (np.flatnonzero(groups.of(axis) == i), np.flatnonzero(groups.of(axis) == j)) for axis in places[i]}
    if any(len(a) != len(b) for a, b in at.values()):
        return False
    names = {name for name, _ in at}
    return all(
        _node_alike(graph, node, at, factor)
        for node in graph.nodes
        if any(t.name in names for t in (*node.inputs, *node.outputs))
    )


def _node_alike(graph: Graph, node: gs.Node, at: dict[tuple[str, int], tuple[Indices, Indices]], factor: float) -> bool:
    layer = linear_layer(graph.view(node))
    if factor != 1.0 and node.op not in SCALABLE and not _plain_add(node, at):
        return False
    produces = layer is not None and layer.writes in at
    if layer is not None and produces:
        ones, others = at[layer.writes]
        return layer.bias is not None and _rows_alike(layer, ones, others, factor)
    if layer is not None:
        return True
    for tensor in node.inputs:
        if isinstance(tensor, gs.Constant):
            for axis in range(np.asarray(tensor.values).ndim):
                if (tensor.name, axis) in at:
                    ones, others = at[tensor.name, axis]
                    values = np.asarray(tensor.values)
                    if not np.array_equal(np.take(values, ones, axis), np.take(values, others, axis)):
                        return False
    return True


def _rows_alike(layer: LinearLayer, ones: Indices, others: Indices, factor: float) -> bool:
    """Rows and biases are ``factor`` times each other; a depthwise row acts on an input that already is."""
    if layer.bias is None:
        return False
    rows, bias = layer.weights.reshape(layer.n_out, -1), layer.bias
    if layer.depthwise:
        straight = factor == 1.0 or not bias[ones].any()
        return bool(
            straight and np.array_equal(rows[ones], rows[others]) and np.array_equal(bias[ones], factor * bias[others])
        )
    full = np.concatenate([rows, bias[:, None]], axis=1)
    return all(_exact_factor(full[a], full[b]) == factor for a, b in zip(ones, others, strict=True))


def _plain_add(node: gs.Node, at: dict[tuple[str, int], tuple[Indices, Indices]]) -> bool:
    """A sum of computed tensors that all carry the channel."""
    carried = {name for name, _ in at}
    return node.op in ("Add", "Sum") and all(t.name in carried and not isinstance(t, gs.Constant) for t in node.inputs)


def _moves(groups: ChannelGroups, i: int, j: int, factor: float) -> list[Move] | None:
    moves = []
    for number, reader in enumerate(groups.readers):
        ones, others = np.flatnonzero(reader.components == i), np.flatnonzero(reader.components == j)
        if len(ones) != len(others) or (len(ones) and reader.layer.weight_in is None):
            return None
        moves += [Move(number, int(a), int(b), factor) for a, b in zip(ones, others, strict=True)]
    return moves
