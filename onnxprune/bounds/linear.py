"""Backward linear bounds (CROWN) in float64 with all rounding accounted for.

From a pre-activation the coefficients are carried back through affine nodes and, by two bounding lines, through
activations (Zhang et al. 2018), until the inputs or a tensor that only has interval bounds. Two choices of lines
are tried, the better bound wins; rows that stay open may have their slopes optimised (Xu et al. 2021).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.bounds.backward import Backward, Box, Shared, first_lines, second_lines
from onnxprune.bounds.interval import Bounds, interval_bounds
from onnxprune.bounds.slopes import optimise
from onnxprune.bounds.static import StaticGraph
from onnxprune.domain import Domain
from onnxprune.graph.graph import Graph
from onnxprune.operators import Interval, Operator
from onnxprune.operators.interval import Array
from onnxprune.operators.linear import linear_layer

PASSES, TOUCH = 3, 30
"""Rough counts: walks per row for each entry, operations per coefficient beside products."""
RATE, SETTLED = 1e9, 0.2
"""Operations per second that are expected until so many seconds were measured."""
FREELY = 0.75
"""Share of the time that entries which are not essential may take."""
MEMORY = 2**24
"""Bytes of coefficients on the widest tensor that one chunk of rows may take."""


@dataclass(frozen=True)
class Effort:
    """How much work linear bounds may be.

    Attributes:
        seconds: Time for all tensors together; a tensor that is expected to exceed it keeps its intervals.
        steps: Steps of slope optimisation for rows that stay open (0: none).
        stopped: Asked between chunks; once true, the rest keeps its intervals.
        wanted: By tensor the entries to bound; None for all whose bounds have both signs.
        essential: By tensor the entries to bound where all are too many; None for all.
    """

    seconds: float = 20.0
    steps: int = 0
    stopped: Callable[[], bool] = lambda: False
    wanted: Mapping[str, NDArray[np.int64]] | None = None
    essential: Mapping[str, NDArray[np.int64]] | None = None


DEFAULT = Effort()


def linear_bounds(
    graph: Graph, domain: Domain, effort: Effort = DEFAULT, known: Mapping[str, Interval] | None = None
) -> Bounds:
    """Interval bounds, tightened at every pre-activation by backward linear bounds.

    Args:
        graph: The graph to sweep.
        domain: Where the inputs lie.
        effort: How much work it may be.
        known: Bounds proved before, by tensor; they are used from the start.

    Returns:
        Outward-rounded bounds, never wider than those of intervals alone.
    """
    rough = interval_bounds(graph, domain, known=known)
    if not domain.restricts:
        return rough
    refiner = Refiner(StaticGraph(graph), effort)
    tight = interval_bounds(graph, domain, refiner, known)
    corners = {name: np.concatenate(rows) for name, rows in refiner.corners.items()}
    return Bounds({name: tight[name].meet(rough[name]) for name in rough}, corners)


@dataclass
class Refiner:
    """Tightens the interval of a pre-activation while a sweep goes through the graph."""

    net: StaticGraph
    effort: Effort = DEFAULT
    corners: dict[str, list[Array]] = field(default_factory=dict)
    """Per input the corners of its box where the linear bounds are attained, one row per unit and side."""
    _depths: dict[str, int] = field(default_factory=dict)
    _cost: float = 0.0
    _spent: float = 0.0
    _busy: float = 0.0
    _boxes: dict[str, Box] = field(default_factory=dict)
    _shared: Shared = field(default_factory=Shared)

    def __call__(self, node: gs.Node, known: Mapping[str, Interval]) -> Interval | None:
        """Better bounds on the first output of a node, or None where this method does not apply.

        Args:
            node: A node whose output bounds are known already.
            known: Bounds so far, of all tensors up to this node.
        """
        tensor = node.outputs[0]
        self._note(node)
        shape = self.net.shape(tensor.name)
        if shape is None or self._depths.get(tensor.name, 0) < 2 or not self._switches(tensor):
            return None
        box = self.net.flat(known, tensor.name)
        if box is None or self.effort.stopped():
            return None
        low, high = (end.copy() for end in box)
        crossing = self._bends(tensor, low, high)
        if self.effort.wanted is not None:
            chosen = np.zeros(len(low), dtype=bool)
            chosen[self.effort.wanted.get(tensor.name, [])] = True
            crossing &= chosen
        open_units = self._affordable(tensor.name, np.flatnonzero(crossing))
        if not len(open_units):
            return None
        self._gather(known)
        size = max(1, int(MEMORY / (8 * max(1, self.net.widest))) // 2)
        for start in range(0, len(open_units), size):
            part = open_units[start : start + size]
            if self.effort.stopped() or self._busy > self.effort.seconds:
                break
            began = time.perf_counter()
            least, most = self._ends(tensor, part, len(low))
            self._busy += time.perf_counter() - began
            low[part] = np.maximum(low[part], least)
            high[part] = np.minimum(high[part], most)
        self._boxes[tensor.name] = (low[None], high[None])
        return Interval.of(low.reshape(shape), high.reshape(shape))

    def _affordable(self, tensor: str, entries: NDArray[np.int64]) -> NDArray[np.int64]:
        """All of some entries, the essential ones among them, or none, as the time allows."""
        fewer = entries
        if self.effort.essential is not None:
            fewer = np.intersect1d(entries, self.effort.essential.get(tensor, []))
        for chosen, share in ((entries, FREELY if len(fewer) < len(entries) else 1.0), (fewer, 1.0)):
            work = PASSES * len(chosen) * self._cost
            expected = work / (self._spent / self._busy if self._busy > SETTLED else RATE)
            if self._busy + expected <= share * self.effort.seconds:
                self._spent += work
                return chosen
        return np.zeros(0, dtype=np.int64)

    def _ends(self, tensor: gs.Tensor, units: NDArray[np.int64], width: int) -> tuple[Array, Array]:
        """Bounds on some entries of a tensor."""
        count = len(units)
        rows = np.zeros((2 * count, width))
        rows[np.arange(count), units] = 1.0
        rows[count + np.arange(count), units] = -1.0
        best = self._lower(tensor.name, rows, first=True)
        again = self._still(tensor, units, best)
        if len(again):
            best[again] = np.maximum(best[again], self._lower(tensor.name, rows[again], first=False))
        again = self._still(tensor, units, best)
        if self.effort.steps and len(again):
            better = optimise(
                self.net, tensor.name, rows[again], self._boxes, self._shared, self.effort.steps, self.corners
            )
            best[again] = np.maximum(best[again], better)
        return best[:count], -best[count:]

    def _still(self, tensor: gs.Tensor, units: NDArray[np.int64], best: Array) -> NDArray[np.int64]:
        """Rows of entries over whose new bounds an activation still bends."""
        low, high = (end[0].copy() for end in self._boxes[tensor.name])
        below, above = np.split(best, 2)
        low[units], high[units] = np.maximum(low[units], below), np.minimum(high[units], -above)
        bends = self._bends(tensor, low, high)[units]
        return np.flatnonzero(np.tile(bends, 2))

    def _lower(self, tensor: str, rows: Array, *, first: bool) -> Array:
        """Lower bounds of ``rows @ tensor``, one per row."""
        lines = first_lines if first else second_lines
        walk = Backward.start(self.net, tensor, rows, self._boxes, lines, self._shared)
        walk.run()
        for name in self.net.inputs:
            if first and name in walk.open and name in self._boxes:
                self.corners.setdefault(name, []).append(np.where(walk.open[name][0] > 0, *self._boxes[name]))
        return np.asarray(walk.lower()[0], dtype=np.float64)

    def _gather(self, known: Mapping[str, Interval]) -> None:
        """Flat bounds of all tensors seen since the last call."""
        for name in known:
            if name not in self._boxes:
                box = self.net.flat(known, name) if self.net.is_float(name) else None
                if box is not None:
                    self._boxes[name] = (box[0][None], box[1][None])

    def _note(self, node: gs.Node) -> None:
        """Count the affine layers in front of a tensor, and the work of going back through them."""
        layer = linear_layer(self.net.graph.view(node))
        variable = [t for t in node.inputs if t.name and not isinstance(t, gs.Constant)]
        depth = max((self._depths.get(t.name, 0) for t in variable), default=0)
        mixing = layer is not None or len(variable) > 1 or has(self.net.operator(node), "relax")
        for tensor in node.outputs:
            self._depths[tensor.name] = depth + mixing
        self._cost += self.net.work(node) + TOUCH * (self.net.size(node.outputs[0].name) or 0)

    def _bends(self, tensor: gs.Tensor, low: Array, high: Array) -> NDArray[np.bool_]:
        """Entries over whose bounds an activation behind the tensor is not straight."""
        bends = np.zeros(len(low), dtype=bool)
        shape = self.net.shape(tensor.name) or ()
        for reader in tensor.outputs:
            operator = self.net.operator(reader)
            if operator is None or not has(operator, "relax"):
                continue
            pieces = operator.pieces(self.net.view(reader))
            if pieces is None:
                bends |= low < high
                continue
            for knot in pieces.knots:
                at = np.broadcast_to(knot, shape).reshape(-1)
                bends |= (low < at) & (high > at)
        return bends

    def _switches(self, tensor: gs.Tensor) -> bool:
        """Whether an operator behind a tensor depends on more than its sign or size."""
        return any(has(self.net.operator(reader), "relax") for reader in tensor.outputs)


def has(operator: Operator | None, ability: str) -> bool:
    """Whether an operator overrides an ability."""
    return operator is not None and getattr(type(operator), ability) is not getattr(Operator, ability)
