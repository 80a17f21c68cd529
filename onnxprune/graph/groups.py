"""Channel groups: which indices of which tensor axes must be kept or removed together.

Every index of every tensor axis of known size is an element; what the operators say links elements; the
connected components are the smallest sets that can be removed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxprune.graph.graph import Graph, label
from onnxprune.operators import Axis, ChannelMap, op_of, operator_for
from onnxprune.operators.linear import LinearLayer, linear_layer

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Reader:
    """A linear layer and, per input channel, the component that channel belongs to."""

    layer: LinearLayer
    components: Labels


@dataclass(frozen=True)
class Units:
    """A node that computes units and, per unit, its component."""

    node: gs.Node
    axis: Axis
    components: Labels


class ChannelGroups:
    """The components of a graph, what reads them, what computes them, and what keeps them."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._sizes = _axis_sizes(graph)
        self._offset: dict[Axis, int] = {}
        total = 0
        for axis, size in self._sizes.items():
            self._offset[axis] = total
            total += size
        self._reasons: list[str] = [""]
        self._lock = np.zeros(total, dtype=np.int32)
        self.links: dict[Axis, list[tuple[Axis, Labels, Labels]]] = defaultdict(list)
        """Per axis: another axis, indices here, and the indices there they belong to."""
        self._edges: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        read_axes: list[tuple[gs.Node, Axis]] = []
        unit_axes: list[tuple[gs.Node, Axis]] = []
        for node in graph.nodes:
            links = self._statements(node)
            read_axes += [(node, axis) for axis in links.reads]
            unit_axes += [(node, axis) for axis in links.units]
        self._lock_ends()
        self._components = self._connect(total)
        self.count: int = int(self._components.max()) + 1 if total else 0
        self.reason: NDArray[np.int32] = self._component_reasons()
        self.locked: NDArray[np.bool_] = self.reason > 0
        self.readers: list[Reader] = [
            Reader(layer, self.of(axis))
            for node, axis in read_axes
            if axis in self._offset and (layer := linear_layer(graph.view(node))) is not None
        ]
        self.units: list[Units] = [Units(node, axis, self.of(axis)) for node, axis in unit_axes if axis in self._offset]
        has_units = np.zeros(self.count, dtype=bool)
        for units in self.units:
            has_units[units.components] = True
        self.removable: NDArray[np.bool_] = has_units & ~self.locked

    def of(self, axis: Axis) -> Labels:
        """Component of every index of an axis."""
        start = self._offset[axis]
        return self._components[start : start + self._sizes[axis]]

    def axes(self) -> dict[Axis, int]:
        """All axes with elements, and their sizes."""
        return self._sizes

    def why_locked(self, component: int) -> str:
        """Why a component stays ("" if nothing locks it)."""
        return self._reasons[int(self.reason[component])]

    def lock_counts(self, components: Labels) -> Counter[str]:
        """How often each reason keeps one of the components."""
        return Counter(self.why_locked(int(c)) for c in components if self.locked[c])

    def _statements(self, node: gs.Node) -> ChannelMap:
        names = {t.name for t in (*node.inputs, *node.outputs) if t.name}
        sizes: dict[Axis, int] = {}
        for name in names:
            shape = self._shape(name)
            for number, _ in enumerate(shape):
                if (name, number) in self._sizes:
                    sizes[name, number] = self._sizes[name, number]
        links = ChannelMap(sizes)
        operator = operator_for(str(node.op), node.domain)
        known = operator is not None and operator.channels(self._graph.view(node), links)
        if not known:
            links = ChannelMap(sizes)
        for axis in sizes:
            if axis not in links.mentioned:
                what = "mixes this axis" if known else "is opaque"
                self._lock_axis(axis, f"{op_of(node)} {what}")
        if op_of(node) == "Shape" and node.outputs[0].name in self._graph.output_names:
            for axis in sizes:
                self._lock_axis(axis, "its size is a graph output")
        for axis, reason in links.locks.items():
            self._lock_axis(axis, f"{op_of(node)}: {reason}")
        for link in links.links:
            left, right = self._offset[link.left], self._offset[link.right]
            self._edges.append((left + link.left_index, right + link.right_index))
            self.links[link.left].append((link.right, link.left_index, link.right_index))
            self.links[link.right].append((link.left, link.right_index, link.left_index))
        return links

    def _shape(self, name: str) -> tuple[object, ...]:
        known = self._graph.types.get(name)
        return known.shape if known is not None and known.shape is not None else ()

    def _lock_axis(self, axis: Axis, reason: str) -> None:
        if axis not in self._offset:
            return
        start = self._offset[axis]
        part = self._lock[start : start + self._sizes[axis]]
        if reason not in self._reasons:
            self._reasons.append(reason)
        part[part == 0] = self._reasons.index(reason)

    def _lock_ends(self) -> None:
        graph = self._graph
        ends = dict.fromkeys(graph.output_names, "graph output")
        ends |= {value.name: "graph input" for value in graph.inputs}
        ends |= dict.fromkeys(graph.captured, "read by a sub-graph")
        ends |= dict.fromkeys(graph.sparse, "stored sparse")
        for name, reason in ends.items():
            for number, _ in enumerate(self._shape(name)):
                self._lock_axis((name, number), reason)

    def _connect(self, total: int) -> Labels:
        if not self._edges:
            return np.arange(total, dtype=np.int64)
        left = np.concatenate([edge[0] for edge in self._edges])
        right = np.concatenate([edge[1] for edge in self._edges])
        matrix = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(total, total))
        return np.asarray(connected_components(matrix, directed=False)[1], dtype=np.int64)

    def _component_reasons(self) -> NDArray[np.int32]:
        """Per component the reason that was stated first, 0 where there is none."""
        none = np.iinfo(np.int32).max
        reasons = np.full(self.count, none, dtype=np.int32)
        np.minimum.at(reasons, self._components, np.where(self._lock == 0, none, self._lock))
        reasons[reasons == none] = 0
        return reasons


def _axis_sizes(graph: Graph) -> dict[Axis, int]:
    used = {t.name for node in graph.nodes for t in (*node.inputs, *node.outputs) if t.name}
    sizes: dict[Axis, int] = {}
    for name in sorted(used):
        known = graph.types.get(name)
        for number, size in enumerate(known.shape if known is not None and known.shape is not None else ()):
            if isinstance(size, int) and size > 0:
                sizes[name, number] = size
    return sizes


def unit_name(units: Units) -> str:
    """Name of the layer a set of units belongs to, for reports."""
    return label(units.node)
