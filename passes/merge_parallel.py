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
from onnxprune.operators import Axis, op_of
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
        rewrite = Rewrite()
        merged: dict[str, int] = defaultdict(int)
        targets: set[int] = set()
        for units in groups.units:
            for one, other, factor in _parallel_rows(graph, units):
                i, j = int(units.components[one]), int(units.components[other])
                movable = groups.removable[i] and not facts.held[i] and i not in targets
                if i == j or not movable or {i, j} & rewrite.remove:
                    continue
                pairs = _pair(groups, (units.axis, one, other))
                if pairs is None or not _alike(graph, pairs, factor):
                    continue
                moves = _moves(groups, pairs, factor)
                if moves is not None:
                    rewrite.remove.add(i)
                    targets.add(j)
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


def _parallel_rows(graph: Graph, units: Units) -> Iterator[tuple[int, int, float]]:
    """Pairs (i, j, s) with row i = s * row j exactly, j the first of its family."""
    layer = linear_layer(graph.view(units.node))
    if layer is None or layer.bias is None or layer.groups > 1:
        return
    rows = np.concatenate([layer.weights.reshape(layer.n_out, -1), layer.bias[:, None]], axis=1)
    families: dict[bytes, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if np.any(row[:-1]):
            largest = np.abs(row).max()
            families[(np.round(row / largest, 5).astype(np.float32) + 0.0).tobytes()].append(index)
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


Pairs = dict[Axis, dict[int, int]]
"""Per axis: which index of the one component plays the role of which index of the other."""


def _pair(groups: ChannelGroups, start: tuple[Axis, int, int]) -> Pairs | None:
    """Follow two units side by side through everything they are linked to; None where the ways differ."""
    pairs: Pairs = defaultdict(dict)
    pairs[start[0]][start[1]] = start[2]
    queue = [start]
    while queue:
        axis, one, other = queue.pop()
        for far, here, there in groups.links[axis]:
            ones, others = there[here == one], there[here == other]
            if len(ones) != len(others):
                return None
            for a, b in zip(ones.tolist(), others.tolist(), strict=True):
                if a not in pairs[far]:
                    pairs[far][a] = b
                    queue.append((far, a, b))
                elif pairs[far][a] != b:
                    return None
    return pairs


def _alike(graph: Graph, pairs: Pairs, factor: float) -> bool:
    """Whether both components run through the same operators with equal (or proportional) constants."""
    names = {name for name, _ in pairs}
    return all(
        _node_alike(graph, node, pairs, factor)
        for node in graph.nodes
        if any(t.name in names for t in (*node.inputs, *node.outputs))
    )


def _node_alike(graph: Graph, node: gs.Node, pairs: Pairs, factor: float) -> bool:
    layer = linear_layer(graph.view(node))
    if layer is not None:
        return layer.writes not in pairs or _rows_alike(layer, pairs[layer.writes], factor)
    if factor != 1.0 and op_of(node) not in SCALABLE and not _plain_sum(node, pairs):
        return False
    for tensor in node.inputs:
        if isinstance(tensor, gs.Constant):
            values = np.asarray(tensor.values)
            for axis in range(values.ndim):
                along = pairs.get((tensor.name, axis), {})
                ones, others = (np.take(values, list(indices), axis) for indices in (along.keys(), along.values()))
                scaled = factor != 1.0 and op_of(node) != "PRelu" and bool(np.any(ones) or np.any(others))
                if scaled or not np.array_equal(ones, others):
                    return False
    return True


def _rows_alike(layer: LinearLayer, pairs: dict[int, int], factor: float) -> bool:
    """Rows and biases are ``factor`` times each other; a grouped row acts on an input that already is."""
    if layer.bias is None:
        return False
    ones, others = list(pairs.keys()), list(pairs.values())
    rows, bias = layer.weights.reshape(layer.n_out, -1), layer.bias
    if layer.groups > 1:
        shifted = np.array_equal(bias[ones], factor * bias[others])
        exact = factor == 1.0 or np.log2(factor).is_integer() or not bias[ones].any()
        return bool(shifted and exact and np.array_equal(rows[ones], rows[others]))
    full = np.concatenate([rows, bias[:, None]], axis=1)
    return all(_exact_factor(full[a], full[b]) == factor for a, b in pairs.items())


def _plain_sum(node: gs.Node, pairs: Pairs) -> bool:
    """A sum of computed tensors that all carry the channel."""
    carried = {name for name, _ in pairs}
    computed = all(t.name in carried and not isinstance(t, gs.Constant) for t in node.inputs)
    return computed and op_of(node) in ("Add", "Sub", "Sum")


def _moves(groups: ChannelGroups, pairs: Pairs, factor: float) -> list[Move] | None:
    moves = []
    for number, reader in enumerate(groups.readers):
        along = pairs.get(reader.layer.reads, {})
        if along and reader.layer.weight_in is None:
            return None
        moves += [Move(number, a, b, factor) for a, b in along.items()]
    return moves
