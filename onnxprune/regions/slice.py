"""Exact two-dimensional slices: the linear regions of a network on a plane through three inputs.

On the plane every tensor is an affine function of two coordinates within a region, so that three numbers per entry
describe it: its values at three points of the plane. Convex polygons go through the graph from front to back; an
affine node acts on the three points, a rectifier cuts a polygon by the lines of the units that switch inside it
(the plane slices of Novak et al. 2018, made exact). Nothing is unrolled, so that convolutional networks of many
thousand units are within reach.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.bounds.static import StaticGraph
from onnxprune.domain import Domain
from onnxprune.errors import InputError
from onnxprune.operators.interval import Array
from onnxprune.operators.relaxation import Choices, Pieces
from onnxprune.operators.tape import NumpyTape
from onnxprune.regions.plane import Plane, plane_through
from onnxprune.regions.polygon import TIE, Line, Point, Polygon, area, centre, largest, split

ORDERED = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
"""Operators behind which the largest output is the largest input."""
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
    worker = _Slicer(net, window, stopped, most)
    worker.check()
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
    return Slice(plane, window, tuple(regions), worker.thin, worker.complete, worker.ignored)


@dataclass
class _Slicer:
    net: StaticGraph
    window: Polygon
    stopped: Callable[[], bool]
    most: int
    thin: int = 0
    complete: bool = True
    ignored: tuple[str, ...] = ()
    output: str | None = None
    last: dict[str, int] = field(default_factory=dict)
    """By tensor the last node that reads it."""
    kinds: dict[int, Pieces | Choices | str] = field(default_factory=dict)

    def check(self) -> None:
        """Sort the nodes into affine, piecewise linear, and an end that is left out."""
        known, skipped = set(self.net.inputs), []
        for position, node in enumerate(self.net.graph.nodes):
            reads = _variable(node)
            for name in reads:
                self.last[name] = position
            if not reads:
                continue
            kind = self._kind(node) if all(name in known for name in reads) else None
            if kind is not None:
                self.kinds[position] = kind
                known |= {tensor.name for tensor in node.outputs}
            else:
                skipped.append(node)
        self.ignored = tuple(str(node.op) for node in skipped)
        bend = next((node for node in skipped if self._bends(node)), None)
        if bend is not None:
            what = next(n for n in skipped if all(name in known for name in _variable(n)))
            raise InputError(
                f"Operator {what.op} ({what.name}) is not piecewise linear, or its shape is open, and {bend.op} "
                f"({bend.name}) lies behind it.",
                hint="Slices need networks of affine and piecewise-linear operators.",
            )
        self.output = self._output(known)

    def _output(self, known: set[str]) -> str | None:
        """The tensor whose largest entry is the class: the first output, or what an ordered operator reads."""
        name = self.net.graph.output_names[0]
        makers = {tensor.name: node for node in self.net.graph.nodes for tensor in node.outputs}
        while name not in known:
            node = makers.get(name)
            if node is None or node.op not in ORDERED:
                return None
            name = node.inputs[0].name
        self.last[name] = len(self.net.graph.nodes)
        return name

    def _kind(self, node: gs.Node) -> Pieces | Choices | str | None:
        if any(self.net.size(tensor.name) is None for tensor in (*node.outputs, *node.inputs) if tensor.name):
            return None
        if self.net.constant_part(node) is not None:
            return "affine"
        operator, view = self.net.operator(node), self.net.view(node)
        pieces = None if operator is None else operator.pieces(view)
        if pieces is not None:
            return pieces
        choices = None if operator is None else operator.choices(view)
        return choices if choices is not None and len(_variable(node)) == len(node.inputs) else None

    def _bends(self, node: gs.Node) -> bool:
        operator = self.net.operator(node)
        if operator is None:
            return False
        view = self.net.view(node)
        return operator.pieces(view) is not None or operator.choices(view) is not None

    def advance(self, batch: _Batch, position: int) -> Iterator[Region]:
        """Send polygons through the nodes from a position on, a few at a time where they take much memory."""
        nodes = self.net.graph.nodes
        for place in range(position, len(nodes)):
            kind, node = self.kinds.get(place), nodes[place]
            if kind is None:
                continue
            if isinstance(kind, str):
                self._affine(node, batch)
                self._forget(batch, place)
                continue
            children = self._parts(node, kind, batch)
            parents = [number for number, parts in enumerate(children) for _ in parts]
            polygons = [polygon for parts in children for polygon in parts]
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
        outputs = batch.values.get(self.output) if self.output else None
        for number, (polygon, active) in enumerate(zip(batch.polygons, batch.active, strict=True)):
            yield Region(polygon, active, None if outputs is None else outputs[number])

    def _at_once(self, batch: _Batch, node: gs.Node) -> int:
        """How many polygons may go on together."""
        size = sum(v[0].nbytes for v in batch.values.values()) + 24 * (self.net.size(node.outputs[0].name) or 0)
        return max(1, int(MEMORY / (4 * size)))

    def _forget(self, batch: _Batch, place: int) -> None:
        """Drop tensors that nothing behind a place reads."""
        batch.values = {name: v for name, v in batch.values.items() if self.last.get(name, -1) > place}

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
        reads = np.concatenate([batch.values[t.name] for t in node.inputs if t.name in batch.values], axis=-1)
        for polygon, own in zip(batch.polygons, reads, strict=True):
            if count > self.most or self.stopped():
                self.complete = False
                break
            parts = self._by_knots(node, kind, polygon, own) if isinstance(kind, Pieces) else _by_choice(kind, polygon, own)
            least = THIN * area(self.window)
            solid = [part for part in parts if area(part) > least]
            self.thin += len(parts) - len(solid)
            found.append(solid)
            count += len(solid)
        return found

    def _by_knots(self, node: gs.Node, kind: Pieces, polygon: Polygon, values: Array) -> list[Polygon]:
        shape = self.net.shape(node.inputs[0].name) or ()
        lines = [np.zeros((3, 0))]
        for knot, bend in zip(kind.knots, kind.bends, strict=True):
            lines.append((values - _flat(knot, shape))[:, _flat(bend, shape) != 0])
        return self._cut(polygon, np.concatenate(lines, axis=1))

    def _cut(self, polygon: Polygon, values: Array) -> list[Polygon]:
        """A polygon cut by many lines (values at the reference points, shape (3, lines)), the most central first."""
        done: list[Polygon] = []
        waiting = [(polygon, values)]
        while waiting and len(done) <= self.most:
            part, lines = waiting.pop()
            lines, best = _crossing(part, lines)
            if best < 0:
                done.append(part)
                continue
            sides = split(part, lines_of(lines[:, best : best + 1])[0])
            rest = np.delete(lines, best, axis=1)
            waiting += [(side, rest) for side in sides]
        self.complete &= not waiting
        return done

    def _rectified(self, node: gs.Node, kind: Pieces, batch: _Batch) -> None:
        """Values behind a piecewise-linear activation none of whose units switches inside a polygon."""
        shape = self.net.shape(node.inputs[0].name) or ()
        x, weights = batch.values[node.inputs[0].name], _weights(batch.polygons)
        result, count = _flat(kind.slope, shape) * x + _flat(kind.offset, shape), np.zeros(len(x), dtype=np.int64)
        for at, weight in zip(kind.knots, kind.bends, strict=True):
            knot, bend = _flat(at, shape), _flat(weight, shape)
            on = (_at(weights, x - knot) > 0) & (bend != 0)
            result += np.where(on[:, None, :], bend * (x - knot), 0.0)
            count += on.sum(axis=1)
        batch.values[node.outputs[0].name] = result
        batch.active = [a + int(c) for a, c in zip(batch.active, count, strict=True)]

    def _chosen(self, node: gs.Node, kind: Choices, batch: _Batch) -> None:
        """Values behind a maximum that the same entry attains all over a polygon."""
        sign = 1.0 if kind.largest else -1.0
        joined = sign * np.concatenate([batch.values[t.name] for t in node.inputs], axis=-1)
        middle = _at(_weights(batch.polygons), joined)
        best = np.where(kind.indices < 0, -np.inf, middle[:, kind.indices]).argmax(axis=-1)
        places = np.broadcast_to(kind.indices, (len(batch), *kind.indices.shape))
        picked = np.take_along_axis(places, best[..., None], axis=-1)[..., 0]
        batch.values[node.outputs[0].name] = sign * np.take_along_axis(joined, picked[:, None, :], axis=-1)


def _by_choice(kind: Choices, polygon: Polygon, values: Array) -> list[Polygon]:
    """A polygon cut where another entry becomes the largest."""
    own = values if kind.largest else -values
    done, waiting = [], [(polygon, kind.indices)]
    while waiting:
        part, windows = waiting.pop()
        windows = _contested(part, own, windows)
        if not len(windows):
            done.append(part)
            continue
        first = windows[0]
        waiting += [(piece, windows[1:]) for _, piece in largest(part, lines_of(own[:, first[first >= 0]]))]
    return done


def lines_of(values: Array) -> list[Line]:
    """Affine functions from their values at the reference points, shape (3, functions)."""
    first, right, up = values
    return [(a, b - a, c - a) for a, b, c in zip(first.tolist(), right.tolist(), up.tolist(), strict=True)]


def _variable(node: gs.Node) -> list[str]:
    return [t.name for t in node.inputs if t.name and not isinstance(t, gs.Constant)]


def _flat(values: Array, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(values, shape).reshape(-1)


def _weights(polygons: Sequence[Polygon]) -> Array:
    """What a value at each polygon's centre takes of the values at the reference points, shape (polygons, 3)."""
    x, y = np.array([centre(polygon) for polygon in polygons]).T
    return np.stack([1.0 - x - y, x, y], axis=1)


def _at(weights: Array, values: Array) -> Array:
    """Values at one point per polygon, shape (polygons, entries)."""
    return np.asarray(np.einsum("pk,pke->pe", weights, values), dtype=np.float64)


def _corner_values(polygon: Polygon, values: Array) -> tuple[Array, Array]:
    """Values at the corners, shape (corners, entries), and what counts as 0 there, shape (entries,)."""
    x, y = np.array(polygon).T
    right, up = values[1] - values[0], values[2] - values[0]
    at = values[0] + np.outer(x, right) + np.outer(y, up)
    return at, TIE * (np.abs(values[0]) + np.abs(right) + np.abs(up))


def _crossing(polygon: Polygon, values: Array) -> tuple[Array, int]:
    """The functions that change sign inside a polygon, and which of them cuts it most evenly (-1 for none)."""
    if not values.shape[1]:
        return values, -1
    at, tie = _corner_values(polygon, values)
    low, high = at.min(axis=0), at.max(axis=0)
    which = np.flatnonzero((low < -tie) & (high > tie))
    if not len(which):
        return values[:, which], -1
    balance = np.minimum(-low[which], high[which]) / (high[which] - low[which])
    return values[:, which], int(balance.argmax())


def _contested(polygon: Polygon, values: Array, windows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The windows (rows of candidates, -1 for none) whose largest entry changes inside a polygon."""
    used, inverse = np.unique(np.maximum(windows, 0), return_inverse=True)
    at, tie = _corner_values(polygon, values[:, used])
    places = inverse.reshape(windows.shape)
    candidates = np.where(windows < 0, -np.inf, at[:, places])
    least = candidates.max(axis=-1, keepdims=True) - tie[places]
    return windows[~(candidates >= least).all(axis=0).any(axis=-1)]


def point_in(plane: Plane, corner: Point) -> Array:
    """The network's input at a point of the plane."""
    return plane.points(np.array([corner]))[0]
