"""What is proved and what is refuted of every unit, while the stages of a proof go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.bounds import Bounds
from onnxprune.bounds.static import StaticGraph
from onnxprune.errors import ProofError
from onnxprune.graph.groups import ChannelGroups
from onnxprune.operators import Axis, Interval
from onnxprune.operators.interval import Array
from onnxprune.witness import Observed
from onnxprune.witness.evaluator import Values

FLOOR = 3e-6
"""Share of the largest terms of a sum that counts as rounding in single precision."""
SIDES = (1, -1)
"""1 asks whether an entry never exceeds its knot, -1 whether it never falls below it."""

MANY = 8
"""Layers up to which a summary names each."""


@dataclass(frozen=True)
class Question:
    """Whether ``sign * (entry - knot) <= 0`` on the whole domain."""

    place: int
    entry: int
    sign: int


@dataclass
class Place:
    """The entries of one pre-activation at one knot of its activation.

    Attributes:
        name: Name of the place: that of the tensor, with a number from its second knot on.
        tensor: Name of the pre-activation.
        knot: Per entry, where the activation bends.
        units: Per entry the unit (channel) it belongs to.
        low: Per entry the proved lower bound.
        high: Per entry the proved upper bound.
        refuted: Per side (1, -1) and unit, whether a run or a bound shows the opposite somewhere.
        reached: Smallest and largest values that runs have certainly taken, per entry.
    """

    name: str
    tensor: str
    knot: Array
    units: NDArray[np.int64]
    low: Array
    high: Array
    refuted: dict[int, NDArray[np.bool_]]
    reached: tuple[Array, Array]

    def proved(self, sign: int) -> NDArray[np.bool_]:
        """Per entry."""
        return self.high <= self.knot if sign > 0 else self.low >= self.knot

    def settled(self, sign: int) -> NDArray[np.bool_]:
        """Per unit, whether a side is proved for all its entries."""
        result = np.ones(len(self.refuted[sign]), dtype=bool)
        np.logical_and.at(result, self.units, self.proved(sign))
        return result

    def open(self, sign: int) -> NDArray[np.int64]:
        """Entries that are neither proved nor hopeless, of units that are not decided."""
        alive = ~self.refuted[sign] & ~self.settled(1) & ~self.settled(-1)
        return np.flatnonzero(alive[self.units] & ~self.proved(sign))

    def open_units(self) -> int:
        """Units with an open side."""
        decided = self.settled(1) | self.settled(-1) | (self.refuted[1] & self.refuted[-1])
        return int((~decided).sum())


class Ledger:
    """All places of a graph.

    Args:
        net: The graph.
        groups: Its channel groups: they say which axis of a tensor runs over units.
    """

    def __init__(self, net: StaticGraph, groups: ChannelGroups) -> None:
        self.net = net
        axes = {units.axis[0]: units.axis[1] for units in groups.units}
        self.places: list[Place] = []
        self.axes: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for node in net.graph.nodes:
            self._add(node, axes)

    def _add(self, node: gs.Node, axes: Mapping[str, int]) -> None:
        operator, tensor = self.net.operator(node), node.inputs[0].name if node.inputs else ""
        kind = self.net.graph.types.get(tensor)
        pieces = None if operator is None or kind is None else operator.pieces(self.net.view(node))
        if pieces is None or kind is None or not kind.shape:
            return
        axis = axes.get(tensor, 1 if len(kind.shape) == 4 else len(kind.shape) - 1)
        size, shape = kind.shape[axis], self.net.shape(tensor)
        if not isinstance(size, int):
            return
        if shape is None:  # sizes are open: one entry stands for a whole unit
            shape = tuple(size if a == axis else 1 for a in range(len(kind.shape)))
        units = np.broadcast_to(
            np.arange(size).reshape([-1 if a == axis else 1 for a in range(len(shape))]), shape
        ).reshape(-1)
        if any(not _broadcasts(knot, shape) for knot in pieces.knots):
            return
        self.axes[tensor], self.shapes[tensor] = axis, shape
        if any(place.tensor == tensor for place in self.places):
            return  # a second reader: the entries are the same, and so mostly are the knots
        for number, knot in enumerate(pieces.knots):
            name = tensor if number == 0 else f"{tensor}#{number}"
            at = np.broadcast_to(knot, shape).reshape(-1)
            free = {sign: np.zeros(size, dtype=bool) for sign in SIDES}
            whole = np.full(units.size, np.inf)
            ends = (-whole, whole.copy())
            self.places.append(Place(name, tensor, at, units, *ends, free, (whole.copy(), -whole)))

    @property
    def watched(self) -> list[Axis]:
        """Tensors to look at in runs, with their axes of units."""
        return list(self.axes.items())

    def tighten(self, bounds: Bounds) -> None:
        """Take over proved bounds."""
        for place in self.places:
            found = self.net.flat(bounds, place.tensor)
            if found is None and len(place.low) == len(place.refuted[1]):
                found = bounds.channel(place.tensor, self.axes[place.tensor], len(place.low))
            if found is not None:
                self.narrow(place, np.arange(len(place.low)), *found)

    def narrow(self, place: Place, entries: NDArray[np.int64], low: Array, high: Array) -> None:
        """Bounds of some entries."""
        place.low[entries] = np.maximum(place.low[entries], low)
        place.high[entries] = np.minimum(place.high[entries], high)
        self._check(place)
        for sign, beyond in ((1, place.low > place.knot), (-1, place.high < place.knot)):
            place.refuted[sign][place.units[beyond]] = True

    def see(self, seen: Mapping[Axis, Observed], sizes: Mapping[str, float]) -> None:
        """Take over what runs in single precision showed, with room for their rounding.

        Args:
            seen: Values by tensor and axis of units.
            sizes: Per tensor how large the terms of its sums can be, where that is known.
        """
        for place in self.places:
            found = seen.get((place.tensor, self.axes[place.tensor]))
            if found is None or len(found.low) != len(place.refuted[1]):
                continue
            knot = np.zeros(len(found.low))
            knot[place.units] = place.knot
            noise = max(found.noise, FLOOR * sizes.get(place.tensor, 0.0))
            place.refuted[1] |= found.high > knot + noise
            place.refuted[-1] |= found.low < knot - noise

    def producer(self, tensor: str) -> gs.Node | None:
        """The node that computes a tensor."""
        return next((n for n in self.net.graph.nodes if any(t.name == tensor for t in n.outputs)), None)

    def note(self, values: Mapping[str, Values]) -> None:
        """Take over what runs with proved errors showed."""
        for place in self.places:
            found = values.get(place.tensor)
            if found is None:
                continue
            rows = ~np.isnan(found.value).any(axis=1)
            if not rows.any():
                continue
            value, error = found.value[rows], found.error[0]
            least, most = value.min(axis=0) + error, value.max(axis=0) - error
            place.reached = (np.fmin(place.reached[0], least), np.fmax(place.reached[1], most))
            self._check(place)
            place.refuted[1][place.units[place.reached[1] > place.knot]] = True
            place.refuted[-1][place.units[place.reached[0] < place.knot]] = True

    def _check(self, place: Place) -> None:
        """Compare what is proved with what was seen.

        Raises:
            ProofError: They contradict each other.
        """
        wrong = np.flatnonzero((place.reached[1] > place.high) | (place.reached[0] < place.low))
        if len(wrong):
            entry = int(wrong[0])
            raise ProofError(
                f"A proof is wrong: entry {entry} of {place.tensor} was proved to lie in "
                f"[{float(place.low[entry])}, {float(place.high[entry])}], and a run reached "
                f"[{float(place.reached[0][entry])}, {float(place.reached[1][entry])}].",
                hint="Please report this with the model and the domain; nothing was written.",
            )

    def questions(self, index: int) -> Iterator[Question]:
        """Open questions of a place, the most promising first: little missing beside what is proved."""
        place = self.places[index]
        asked: list[tuple[float, Question]] = []
        for sign in SIDES:
            missing = place.high - place.knot if sign > 0 else place.knot - place.low
            width = np.maximum(place.high - place.low, 1e-300)
            for entry in place.open(sign):
                asked.append((float(missing[entry] / width[entry]), Question(index, int(entry), sign)))
        asked.sort(key=lambda pair: pair[0])
        return (question for _, question in asked)

    def is_open(self, question: Question) -> bool:
        """Whether a question still needs an answer."""
        place = self.places[question.place]
        unit = place.units[question.entry]
        if place.refuted[question.sign][unit] or place.proved(question.sign)[question.entry]:
            return False
        entries = place.units == unit
        return not any(place.proved(sign)[entries].all() for sign in SIDES)

    @property
    def open(self) -> int:
        """Units with an open side, over all places."""
        return sum(place.open_units() for place in self.places)

    def known(self) -> dict[str, Interval]:
        """Proved bounds by tensor, in their shapes."""
        result: dict[str, Interval] = {}
        for place in self.places:
            shape = self.shapes[place.tensor]
            bounds = Interval.of(place.low.reshape(shape), place.high.reshape(shape))
            result[place.tensor] = bounds.meet(result[place.tensor]) if place.tensor in result else bounds
        return result

    def switching(self) -> dict[Axis, NDArray[np.bool_]]:
        """Per pre-activation the units that are certainly neither stable nor constant behind their activation."""
        found: dict[Axis, NDArray[np.bool_]] = {}
        for tensor, axis in self.axes.items():
            places = [place for place in self.places if place.tensor == tensor]
            if not places:
                continue  # a straight line
            first, last = places[0], places[-1]
            bends = np.any([p.refuted[1] & p.refuted[-1] for p in places], axis=0)
            found[tensor, axis] = bends & first.refuted[1] & last.refuted[-1]
        return found

    def summary(self) -> str:
        """Open units, and how many are decided: per layer, front to back, or in all where layers are many."""
        totals = [len(place.refuted[1]) for place in self.places]
        decided = [total - place.open_units() for total, place in zip(totals, self.places, strict=True)]
        if len(totals) > MANY:
            shown = f"{sum(decided)}/{sum(totals)} in {len(totals)} layers"
        else:
            shown = " ".join(f"{done}/{total}" for done, total in zip(decided, totals, strict=True))
        still = sum(totals) - sum(decided)
        return f"{still} unit{'' if still == 1 else 's'} open ({shown} decided)"


def _broadcasts(values: Array, shape: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(values.shape, shape) == shape
    except ValueError:
        return False
