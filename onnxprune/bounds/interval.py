"""Interval sweep: bounds on every tensor of a graph over a domain, one pass in execution order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.domain import Domain, InputSpec
from onnxprune.graph.graph import Graph
from onnxprune.operators import Interval, NodeView, operator_for
from onnxprune.operators.interval import LARGEST

LARGEST_OF = {"float32": (2 - 2**-23) * 2.0**127, "float16": 65504.0, "bfloat16": (2 - 2**-7) * 2.0**127}
"""Largest finite value of the shorter float types."""


Refine = Callable[[gs.Node, Mapping[str, Interval]], Interval | None]


class Bounds(Mapping[str, Interval]):
    """Bounds by tensor name; what nothing is known about is unbounded."""

    def __init__(self, known: dict[str, Interval], corners: Mapping[str, NDArray[np.float64]] | None = None) -> None:
        self._known = known
        self.corners: dict[str, NDArray[np.float64]] = dict(corners or {})
        """Per input, flattened points worth running: there a bound was attained (empty without linear bounds)."""

    def __getitem__(self, name: str) -> Interval:
        return self._known.get(name) or Interval.everything()

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def channel(self, name: str, axis: int, size: int) -> tuple[Any, Any]:
        """Bounds per index of one axis: two arrays of shape (size,), hulled over all other axes."""
        bounds = self[name]
        if bounds.ndim == 0:
            return np.full(size, bounds.lower), np.full(size, bounds.upper)
        others = tuple(a for a in range(bounds.ndim) if a != axis)
        hull = bounds.hull_over(others)
        return (
            np.broadcast_to(hull.lower.reshape(-1), (size,)),
            np.broadcast_to(hull.upper.reshape(-1), (size,)),
        )


class _Inputs(Sequence[Interval | None]):
    """Bounds of a node's inputs; those of large weights are made only when a rule asks for them."""

    def __init__(self, node: gs.Node, known: dict[str, Interval]) -> None:
        self._node = node
        self._known = known

    @overload
    def __getitem__(self, index: int) -> Interval | None: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Interval | None]: ...
    def __getitem__(self, index: int | slice) -> Interval | Sequence[Interval | None] | None:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        tensor = self._node.inputs[index]
        if not tensor.name:
            return None
        if isinstance(tensor, gs.Constant):
            return _constant(tensor)
        return self._known.get(tensor.name) or Interval.everything()

    def __len__(self) -> int:
        return len(self._node.inputs)


def _constant(tensor: gs.Constant) -> Interval:
    values = np.asarray(tensor.values)
    if values.size == 0 or values.dtype.kind not in "fiubV":
        return Interval.everything()
    return Interval.point(values)


def interval_bounds(
    graph: Graph, domain: Domain, refine: Refine | None = None, known: Mapping[str, Interval] | None = None
) -> Bounds:
    """Bounds on every intermediate tensor, in real arithmetic, given that all intermediate values are finite.

    Args:
        graph: The graph to sweep.
        domain: Where the inputs lie.
        refine: Asked after every node for better bounds on its first output, given all bounds so far.
        known: Bounds proved elsewhere, by tensor.

    Returns:
        Outward-rounded bounds; tensors behind opaque operators are limited by their element type only.
    """
    found: dict[str, Interval] = {}
    for value in graph.inputs:
        kind = graph.types.get(value.name)
        if kind is not None and kind.dtype is not None:
            lower, upper = domain.bounds(InputSpec(value.name, kind.dtype, kind.shape))
            found[value.name] = Interval.of(lower, upper)
    for node in graph.nodes:
        view = graph.view(node)
        results = _apply(view, found)
        for index, tensor in enumerate(node.outputs):
            if tensor.name:
                bounds = results[index] if results is not None and index < len(results) else Interval.everything()
                found[tensor.name] = _limit(bounds, view, tensor.name)
                if known is not None and tensor.name in known:
                    found[tensor.name] = found[tensor.name].meet(known[tensor.name])
        better = refine(node, found) if refine is not None else None
        if better is not None:
            name = node.outputs[0].name
            found[name] = found[name].meet(better)
    return Bounds(found)


def _apply(view: NodeView, known: dict[str, Interval]) -> Sequence[Interval] | None:
    operator = operator_for(view.op, view.node.domain)
    if operator is None:
        return None
    with np.errstate(all="ignore"):
        return operator.interval(view, _Inputs(view.node, known))


def _limit(found: Interval, view: NodeView, name: str) -> Interval:
    """Clip to the finite range of the element type: every intermediate value is finite by the domain's definition."""
    kind = view.types.get(name)
    if kind is not None and kind.dtype is not None and kind.dtype.kind in "iu":
        least, most = np.iinfo(kind.dtype).min, np.iinfo(kind.dtype).max
        if (found.lower < least).any() or (found.upper > most).any():
            return Interval.of(float(least), float(most))  # it may have wrapped around
    largest = LARGEST if kind is None or kind.dtype is None else LARGEST_OF.get(kind.dtype.name, LARGEST)
    if kind is not None and kind.shape is not None and found.ndim not in (0, len(kind.shape)):
        found = found.aligned(len(kind.shape)) if found.ndim < len(kind.shape) else Interval.everything()
    return found.clamp(-largest, largest)
