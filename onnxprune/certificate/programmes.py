"""Multipliers from linear programmes: duals of the triangle relaxation, alone or per case of a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.bounds import Bounds
from onnxprune.bounds.blocks import Blocks
from onnxprune.bounds.static import StaticGraph
from onnxprune.bounds.substitution import without_active
from onnxprune.bounds.unroll import Unrolled, unroll
from onnxprune.domain import Domain
from onnxprune.mip import LayerLP, branch
from onnxprune.operators import Interval as Known
from onnxprune.verify.cases import Phase
from onnxprune.verify.numbers import Interval
from onnxprune.verify.steps import Leaf, Multipliers, Step

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
UNITS = 30_000
"""Entries of pre-activations up to which programmes are built."""
SECONDS = 20.0
"""For one programme."""
TREE = 30.0
"""For one tree of cases."""


@dataclass
class Relaxations:
    """Programmes over a model, with the bounds that hold so far.

    Attributes:
        unrolled: The model as layers of rectified affine maps.
        domain: Where the inputs lie.
    """

    unrolled: Unrolled
    domain: Domain
    trees: bool = True

    @staticmethod
    def over(net: StaticGraph, domain: Domain, bounds: Mapping[str, Interval]) -> Relaxations | None:
        """The programmes of a model; None where it is too large or cannot be written as layers."""
        if sum(net.size(name) or 0 for name in net.bends) > UNITS:
            return None
        known = Bounds({name: Known.of(*found.floats()) for name, found in bounds.items()})
        unrolled = unroll(net, domain, known)
        return None if unrolled is None else Relaxations(unrolled, domain)

    def prove(
        self, tensor: str, upper: bool, entries: Indices, knot: float, stopped: Callable[[], bool]
    ) -> Iterator[Step]:
        """Steps for those entries that the programmes settle, one by one."""
        index = next(
            (n for n, place in enumerate(self.unrolled.places)
             if place is not None and place.tensor == tensor and (place.knot == knot).all()), None
        )  # fmt: skip
        if index is None:
            return
        network = self.unrolled.network
        blocks = Blocks(network.low, network.high, network.blocks[: index + 1], network.rows, network.limits)
        layer = LayerLP(without_active(blocks, entries), index, units=entries)
        for entry in entries.tolist():
            if stopped():
                return
            step = self._settled(layer, tensor, upper, entry, knot)
            if step is not None:
                yield step

    def _settled(self, layer: LayerLP, tensor: str, upper: bool, entry: int, knot: float) -> Step | None:
        sign = 1 if upper else -1
        result = layer.bound(entry, sign, SECONDS)
        if result.bound <= 0:
            leaves = (Leaf((), self._multipliers(layer, result.duals)),)
            return self._step(tensor, upper, entry, knot, leaves)
        if not self.trees or not result.optimal:
            return None
        found = branch(layer, entry, sign, TREE)
        if not np.isfinite(found.bound):
            return None
        cases = tuple(
            Leaf(tuple(self._phase(phase) for phase in phases), self._multipliers(layer, duals))
            for phases, duals in zip(found.leaves, found.duals, strict=True)
        )
        return self._step(tensor, upper, entry, knot, cases)

    def _step(self, tensor: str, upper: bool, entry: int, knot: float, leaves: tuple[Leaf, ...]) -> Step:
        return Step(tensor, upper, np.array([entry]), np.array([knot]), rule="boxed", leaves=leaves)

    def _phase(self, phase: tuple[int, int, bool]) -> Phase:
        place = self.unrolled.places[phase[0]]
        assert place is not None
        return place.tensor, phase[1], phase[2]

    def _multipliers(self, layer: LayerLP, duals: Floats) -> Multipliers:
        """The multiplier of a unit is the dual of the row that says what its pre-activation is."""
        chosen: dict[str, dict[int, float]] = {}
        for (block, unit), row in layer.encoding.equations.items():
            place = self.unrolled.places[block]
            if place is not None and block < layer.index:
                found = chosen.setdefault(place.tensor, {})
                found[unit] = found.get(unit, 0.0) + float(duals[row])
        units = {name: np.array(sorted(values), dtype=np.int64) for name, values in chosen.items()}
        table = {
            name: np.array([[chosen[name][int(unit)] for unit in entries]], dtype=np.float32).astype(np.float64)
            for name, entries in units.items()
        }
        return Multipliers(units, table, self._prices(duals))

    def _prices(self, duals: Floats) -> Floats | None:
        count = self.unrolled.network.rows.shape[0]
        return np.maximum(duals[:count], 0.0)[None] if count else None
