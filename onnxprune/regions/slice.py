"""Exact two-dimensional slices: the linear regions of a network on a plane through three inputs.

On the plane every tensor is an affine function of two coordinates within a region, so that three numbers per entry
describe it: its values at three points of the plane. Convex polygons go through the graph from front to back; an
affine node acts on the three points, a rectifier cuts a polygon by the lines of the units that switch inside it
(the plane slices of Novak et al. 2018, made exact). Nothing is unrolled, so that convolutional networks of many
thousand units are within reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.bounds.static import StaticGraph
from onnxprune.domain import Domain
from onnxprune.errors import InputError
from onnxprune.operators.interval import Array
from onnxprune.operators.relaxation import Choices, Pieces
from onnxprune.operators.tape import NumpyTape
from onnxprune.regions.plan import Plan, plan_of
from onnxprune.regions.plane import Plane, plane_through
from onnxprune.regions.polygon import Polygon, area, largest
from onnxprune.regions.slice_cuts import at_centres, centres, cut_by_choice, cut_by_lines, lines_of, may_cross

MEMORY = 2**26
"""Bytes of values that a batch of polygons may take."""
THIN = 1e-13
"""Polygons with less than this share of the window's area are rounding and left out."""
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
"""Where the three values of each entry are taken."""


@dataclass(frozen=True)
class Region:
    """One polygon on which the network is affine.

    Attributes:
        corners: Counter-clockwise, in the coordinates of the window.
        active: Number of rectified units above their knots.
        outputs: Values of the outputs at the three reference points, shape (3, outputs); None where unknown.
    """

    corners: Polygon
    active: int
    outputs: Array | None


@dataclass(frozen=True)
class Slice:
    """The regions of a network on a window of a plane.

    Attributes:
        plane: The plane; coordinates are its own.
        window: The part of the plane that was looked at: inside the picture and the domain.
        regions: They cover the window.
        thin: Polygons left out because their area is within rounding.
        complete: False where the limit on regions or time ended the work; the regions then do not cover the window.
        ignored: Operators at the end that were not followed (such as Softmax).
    """

    plane: Plane
    window: Polygon
    regions: tuple[Region, ...]
    thin: int
    complete: bool
    ignored: tuple[str, ...] = ()

    def classes(self) -> list[tuple[int, Polygon]]:
        """Where each output is the largest (for a single output: 0 where it is negative, 1 elsewhere)."""
        found = []
        for region in self.regions:
            if region.outputs is None:
                raise InputError(
                    "The outputs are not piecewise linear, so that the class of a point is not known.",
                    hint="Colour the slice by cell.",
                )
            lines = lines_of(region.outputs)
            if len(lines) == 1:
                lines = [(0.0, 0.0, 0.0), *lines]
            found += largest(region.corners, lines)
        return found


@dataclass
class _Batch:
    """Polygons with the values of all live tensors at the three reference points."""

    polygons: list[Polygon]
    active: list[int]
    values: dict[str, Array]
    """Per tensor, shape (polygons, 3, entries)."""

    def __len__(self) -> int:
        return len(self.polygons)

    def grown(self, parents: list[int], polygons: list[Polygon]) -> _Batch:
        """Polygons that are parts of those here, with the values of these."""
        values = {name: v[parents] for name, v in self.values.items()}
        return _Batch(polygons, [self.active[p] for p in parents], values)


def slice_network(
    net: StaticGraph,
    points: Sequence[Array],
    domain: Domain | None = None,
    *,
    margin: float = 0.25,
    most: int = 200_000,
    stopped: Callable[[], bool] = lambda: False,
) -> Slice:
    """The regions of a network on the plane through three inputs.

    Args:
        net: The graph.
        points: Three inputs, flat; several inputs of a graph follow one another.
        domain: The window stays inside it.
        margin: How far the window reaches beyond the three points, as a share of their extent.
        most: Regions after which the work ends.
        stopped: Asked now and then; True ends the work.

    Raises:
        InputError: The points span no plane, or an operator between rectifiers is not piecewise linear.
    """
    plane, window = plane_through(net, points, domain, margin)
    worker = _Slicer(net, window, stopped, most, plan_of(net))
    references = plane.points(CORNERS)
    values, start = {}, 0
    for name in net.inputs:
        size = net.size(name) or 0
        values[name] = references[None, :, start : start + size]
        start += size
    regions: list[Region] = []
    for region in worker.advance(_Batch([window], [0], values), 0):
        regions.append(region)
        if len(regions) >= most:
            worker.complete = False
            break
    return Slice(plane, window, tuple(regions), worker.thin, worker.complete, worker.plan.ignored)


@dataclass
class _Slicer:
    net: StaticGraph
    window: Polygon
    stopped: Callable[[], bool]
    most: int
    plan: Plan
    thin: int = 0
    complete: bool = True

    def advance(self, batch: _Batch, position: int) -> Iterator[Region]:
        """Send polygons through the nodes from a position on, a few at a time where they take much memory."""
        nodes = self.net.graph.nodes
        for place in range(position, len(nodes)):
            kind, node = self.plan.kinds.get(place), nodes[place]
            if kind is None:
                continue
            if isinstance(kind, str):
                self._affine(node, batch)
                self._forget(batch, place)
                continue
            children = self._parts(node, kind, batch)
            parents = [number for number, parts in enumerate(children) for _ in parts]
            polygons = [polygon for parts in children for polygon in parts]
            if not polygons:
                return
            step = self._at_once(batch, node)
            for start in range(0, len(polygons), step):
                following = batch.grown(parents[start : start + step], polygons[start : start + step])
                if isinstance(kind, Pieces):
                    self._rectified(node, kind, following)
                else:
                    self._chosen(node, kind, following)
                self._forget(following, place)
                if len(polygons) > step:
                    yield from self.advance(following, place + 1)
            if len(polygons) > step:
                return
            batch = following
        outputs = batch.values.get(self.plan.output) if self.plan.output else None
        for number, (polygon, active) in enumerate(zip(batch.polygons, batch.active, strict=True)):
            yield Region(polygon, active, None if outputs is None else outputs[number])

    def _at_once(self, batch: _Batch, node: gs.Node) -> int:
        """How many polygons may go on together."""
        size = sum(v[0].nbytes for v in batch.values.values()) + 24 * (self.net.size(node.outputs[0].name) or 0)
        return max(1, int(MEMORY / (4 * size)))

    def _forget(self, batch: _Batch, place: int) -> None:
        """Drop tensors that nothing behind a place reads."""
        batch.values = {name: v for name, v in batch.values.items() if self.plan.last.get(name, -1) > place}

    def _affine(self, node: gs.Node, batch: _Batch) -> None:
        given: list[Array | None] = []
        for tensor in node.inputs:
            constant = not tensor.name or isinstance(tensor, gs.Constant)
            rows = None if constant else batch.values[tensor.name]
            given.append(None if rows is None else rows.reshape(-1, rows.shape[-1]))
        results = self.net.apply(node, given, NumpyTape())
        assert results is not None  # decided by check
        for tensor, result in zip(node.outputs, results, strict=False):
            batch.values[tensor.name] = np.asarray(result, dtype=np.float64).reshape(len(batch), 3, -1)

    def _parts(self, node: gs.Node, kind: Pieces | Choices, batch: _Batch) -> list[list[Polygon]]:
        """Each polygon cut where a node bends."""
        found, count = [], 0
        reads = self._switching(node, kind, batch) if isinstance(kind, Pieces) else _operands(node, batch)
        for polygon, own in zip(batch.polygons, reads, strict=True):
            if count > self.most or self.stopped():
                self.complete = False
                break
            if isinstance(kind, Pieces):
                parts, complete = cut_by_lines(polygon, own, self.most)
                self.complete &= complete
            else:
                parts = cut_by_choice(kind, polygon, own)
            least = THIN * area(self.window)
            solid = [part for part in parts if area(part) > least]
            self.thin += len(parts) - len(solid)
            found.append(solid)
            count += len(solid)
        return found

    def _switching(self, node: gs.Node, kind: Pieces, batch: _Batch) -> list[Array]:
        """Per polygon the functions whose zeros are where units may switch, shape (3, functions)."""
        x, shape = batch.values[node.inputs[0].name], self.net.shape(node.inputs[0].name) or ()
        found = [np.zeros((3, 0)) for _ in batch.polygons]
        for at, weight in zip(kind.knots, kind.bends, strict=True):
            values = _less(x, _flat(at, shape))
            near = may_cross(batch.polygons, values) & (_flat(weight, shape) != 0)
            found = [
                np.concatenate([lines, own[:, which]], axis=1)
                for lines, own, which in zip(found, values, near, strict=True)
            ]
        return found

    def _rectified(self, node: gs.Node, kind: Pieces, batch: _Batch) -> None:
        """Values behind a piecewise-linear activation none of whose units switches inside a polygon."""
        shape = self.net.shape(node.inputs[0].name) or ()
        x, weights = batch.values[node.inputs[0].name], centres(batch.polygons)
        result, count = _flat(kind.slope, shape) * x + _flat(kind.offset, shape), np.zeros(len(x), dtype=np.int64)
        for at, weight in zip(kind.knots, kind.bends, strict=True):
            values, bend = _less(x, _flat(at, shape)), _flat(weight, shape)
            on = (at_centres(weights, values) > 0) & (bend != 0)
            result += values * np.where(on, bend, 0.0)[:, None, :]
            count += on.sum(axis=1)
        batch.values[node.outputs[0].name] = result
        batch.active = [a + int(c) for a, c in zip(batch.active, count, strict=True)]

    def _chosen(self, node: gs.Node, kind: Choices, batch: _Batch) -> None:
        """Values behind a maximum that the same entry attains all over a polygon."""
        sign = 1.0 if kind.largest else -1.0
        joined = sign * _operands(node, batch)
        middle = at_centres(centres(batch.polygons), joined)
        best = np.where(kind.indices < 0, -np.inf, middle[:, kind.indices]).argmax(axis=-1)
        places = np.broadcast_to(kind.indices, (len(batch), *kind.indices.shape))
        picked = np.take_along_axis(places, best[..., None], axis=-1)[..., 0]
        batch.values[node.outputs[0].name] = sign * np.take_along_axis(joined, picked[:, None, :], axis=-1)


def _operands(node: gs.Node, batch: _Batch) -> Array:
    """Values of all entries of a node's operands, constant ones included, shape (polygons, 3, entries)."""
    parts = []
    for tensor in node.inputs:
        if isinstance(tensor, gs.Constant):
            constant = np.asarray(tensor.values, dtype=np.float64).reshape(-1)
            parts.append(np.broadcast_to(constant, (len(batch), 3, len(constant))))
        elif tensor.name:
            parts.append(batch.values[tensor.name])
    return np.concatenate(parts, axis=-1)


def _less(values: Array, knot: Array) -> Array:
    """What is above a knot, without a copy where that is 0."""
    return values - knot if knot.any() else values


def _flat(values: Array, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(values, shape).reshape(-1)
