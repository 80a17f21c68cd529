"""Finds what proves the bounds that a rewrite rests on: slopes first, then duals, sub-boxes and cases.

Nothing here is trusted: the checker goes through every step again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune.certificate.needs import Need
from onnxprune.certificate.programmes import Relaxations
from onnxprune.certificate.splitting import cuts_for
from onnxprune.verify.backward import RULES, Backward, bent
from onnxprune.verify.cases import Cuts
from onnxprune.verify.curves import CURVES, curve
from onnxprune.verify.evidence import Evidence, one_hot
from onnxprune.verify.forward import Forward, Given
from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval
from onnxprune.verify.sides import touch
from onnxprune.verify.steps import Constraint, Step
from onnxprune.verify.subboxes import bending, swept

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


ROWS = 3e10
"""Multiply-adds that bounding all open entries of one tensor may take; beyond that only the needed ones are bounded."""
LINEAR = ("adaptive", "flat", "opposite")
"""Rules that are tried, the last where the others do not do."""
CUTTING = 0.5
"""Share of the time that is left in which sub-boxes are sought."""
CHUNK = 2**23
"""Coefficients on the widest tensor that are held at once."""


@dataclass
class Prover:
    """Makes the steps of a certificate for one model.

    Attributes:
        net: The model.
        inputs: Bounds on its inputs.
        needs: Entries, by what is needed of them.
        relaxations: Linear programmes over the model; None where it cannot be written as one.
        constraints: Of the domain.
        left: Seconds of processor time that are left.
        finite: Whether every value is known to be finite.
        light: Whether to stop at linear bounds, and at those where they take long.
        steps: The result.
        open: Needs that nothing proved.
    """

    net: Network
    inputs: Mapping[str, Interval]
    needs: Mapping[Need, Indices]
    relaxations: Callable[[Mapping[str, Interval]], Relaxations | None]
    constraints: Sequence[Constraint] = ()
    left: Callable[[], float] = lambda: math.inf
    finite: bool = True
    light: bool = False
    steps: list[Step] = field(default_factory=list)
    open: dict[Need, Indices] = field(default_factory=dict)
    sparing: bool = False
    """Whether to bound nothing but what is needed, as long as that does."""
    seconds: float = 0.0
    """Processor time that was spent."""

    def run(self) -> dict[str, Interval]:
        """Bounds on all tensors, with the steps that prove them."""
        began = time.process_time()
        self._last = self._last_need()
        self._cuts: Cuts | None = None
        self._split: dict[str, tuple[Floats, Floats]] = {}
        for sparing in (not self.light, False):
            self.sparing, self.steps, self.open = sparing, [], {}
            bounds = Forward(self.net, self.inputs, finite=self.finite, refine=self.refine).run()
            if not self.open or not self.sparing:
                break
        self.seconds = time.process_time() - began
        return bounds

    def stopped(self) -> bool:
        """Whether time is up."""
        return self.left() <= 0

    def _last_need(self) -> int:
        """Place of the last node whose output has to be bounded."""
        self._plain = Forward(self.net, self.inputs, finite=self.finite).run()
        wanted = {need.tensor for need in self._missing(self._plain)}
        places = [i for i, node in enumerate(self.net.nodes) if any(name in wanted for name in node.outputs)]
        return max(places, default=-1)

    def _missing(self, bounds: Mapping[str, Interval]) -> dict[Need, Indices]:
        """Needed entries that some bounds do not settle."""
        found = {}
        for need, entries in self.needs.items():
            left = entries[~self._settled(need, entries, bounds[need.tensor])]
            if len(left):
                found[need] = left
        return found

    def _settled(self, need: Need, entries: Indices, bounds: Interval) -> NDArray[np.bool_]:
        shape = self.net.sample(need.tensor)
        if shape is None or bounds.ndim not in (0, len(shape)):
            return np.zeros(len(entries), dtype=bool)
        low, high = (np.broadcast_to(end, shape).reshape(-1)[entries] for end in bounds.floats())
        slack = touch(low, high) / 2
        return np.asarray(high <= need.knot + slack if need.upper else low >= need.knot - slack)

    def refine(self, name: str, known: Mapping[str, Interval]) -> Interval | None:
        """Better bounds on a pre-activation, where later needs make them worth it."""
        node = self.net.producer.get(name)
        shape = self.net.sample(name)
        if node is None or shape is None or self.net.nodes.index(node) > self._last or known[name].ndim != len(shape):
            return None
        readers = self.net.readers.get(name, [])
        knots = {k for r in readers for k in self._knots(r)}
        smooth = any(curve(Given(r, self.net, {}, False)) is not None for r in readers)
        if not (knots or smooth) or self._first_layer(name):
            return None
        low, high = (np.array(np.broadcast_to(end, shape)).reshape(-1) for end in known[name].floats())
        self._linear(name, known, shape, low, high, knots, smooth=smooth)
        if not self.light and not self.sparing:
            self._by_cuts(name, known, shape, low, high)
            self._by_duals(name, {**known, name: _interval(known[name], low, high, shape)}, low, high)
        left = self._missing({name: _interval(known[name], low, high, shape), **_others(self.needs, name, known)})
        self.open |= {need: entries for need, entries in left.items() if need.tensor == name}
        return _interval(known[name], low, high, shape)

    def _knots(self, reader: object) -> tuple[float, ...]:
        from onnxprune.verify.network import Node  # noqa: PLC0415

        assert isinstance(reader, Node)
        found = bent(Given(reader, self.net, {}, False))
        return () if found is None or reader.inputs[0] == "" else tuple(k for k in found.knots if np.isfinite(k))

    def _first_layer(self, name: str) -> bool:
        """Whether no activation lies in front of a tensor: then intervals are as good as it gets."""
        todo, seen = [name], {name}
        while todo:
            node = self.net.producer.get(todo.pop())
            if node is None:
                continue
            if node.op in ("Relu", "LeakyRelu", "Clip", "PRelu", "MaxPool", *CURVES):
                return False
            fresh = [n for n in node.inputs if n and n not in seen]
            seen.update(fresh)
            todo += fresh
        return True

    def _linear(
        self,
        name: str,
        known: Mapping[str, Interval],
        shape: tuple[int, ...],
        low: Floats,
        high: Floats,
        knots: set[float],
        *,
        smooth: bool,
    ) -> None:
        """Linear bounds, with the best of several rules for every entry."""
        crossing = (low < high) & smooth
        for knot in knots:
            crossing |= (low < knot) & (high > knot)
        if not self.sparing and self._cost(name) * crossing.sum() > ROWS:
            if self.light:
                return
            crossing &= self._needed(name, True, len(low)) | self._needed(name, False, len(low))
        for upper in (True, False):
            entries = np.flatnonzero(crossing & self._needed(name, upper, len(low)) if self.sparing else crossing)
            best, choice = np.full(len(entries), np.inf), np.zeros(len(entries), dtype=np.int64)
            for number, rule in enumerate(LINEAR):
                if self.stopped():
                    return
                tried = np.arange(len(entries)) if number < 2 else self._unsettled(name, upper, entries, best)
                found = self._walk(name, known, shape, entries[tried], upper, rule)
                better = tried[found < best[tried]]
                choice[better] = number
                best[tried] = np.minimum(best[tried], found)
            good = best < (high if upper else -low)[entries] - 1e-9 * np.abs((high if upper else -low)[entries])
            for number, rule in enumerate(LINEAR):
                chosen = np.flatnonzero(good & (choice == number))
                if len(chosen):
                    bounds = loosened(best[chosen]) * (1 if upper else -1)
                    self.steps.append(Step(name, upper, entries[chosen], bounds, rule=rule))
                    _tighten(low, high, entries[chosen], best[chosen], upper)

    def _needed(self, name: str, upper: bool, count: int) -> NDArray[np.bool_]:
        """Entries of which an upper or a lower bound is needed."""
        mask = np.zeros(count, dtype=bool)
        for need, entries in self.needs.items():
            if need.tensor == name and need.upper == upper:
                mask[entries] = True
        return mask

    def _unsettled(self, name: str, upper: bool, entries: Indices, best: Floats) -> Indices:
        """Places of entries of which more is needed than bounds say, upper ones of the negative for lower ones."""
        left = np.zeros(len(entries), dtype=bool)
        for need, wanted in self.needs.items():
            if need.tensor == name and need.upper == upper:
                left |= np.isin(entries, wanted) & (best > (need.knot if upper else -need.knot))
        return np.flatnonzero(left)

    def _cost(self, name: str) -> float:
        """Multiply-adds of a walk back for one entry, about."""
        total = 0.0
        for node in self.net.nodes:
            weights = [self.net.constants[n] for n in node.inputs[1:2] if n in self.net.constants]
            shape = self.net.sample(node.outputs[0])
            if node.op in ("Conv", "ConvTranspose") and weights and shape is not None:
                total += float(weights[0].size) * float(np.prod(shape[2:]))
            elif node.op in ("Gemm", "MatMul") and weights:
                total += float(weights[0].size)
            elif shape is not None:
                total += 10.0 * float(np.prod(shape))
            if name in node.outputs:
                break
        return total

    def _walk(
        self, name: str, known: Mapping[str, Interval], shape: tuple[int, ...], entries: Indices, upper: bool, rule: str
    ) -> Floats:
        backward = Backward(self.net, known)
        widest = max(int(np.prod(self.net.sample(n) or (1,))) for node in self.net.nodes for n in node.outputs[:1])
        size, parts = max(1, CHUNK // widest), []
        for start in range(0, len(entries), size):
            if self.stopped():
                parts.append(np.full(len(entries) - start, np.inf))
                break
            rows = one_hot(entries[start : start + size], shape, 1.0 if upper else -1.0)
            parts.append(np.nextafter(backward.upper(name, rows, RULES[rule]), np.inf))
        return np.concatenate(parts) if parts else np.zeros(0)

    def _by_cuts(
        self, name: str, known: Mapping[str, Interval], shape: tuple[int, ...], low: Floats, high: Floats
    ) -> None:
        """Sub-boxes, where inputs are few."""
        left = self._missing({name: _interval(known[name], low, high, shape), **_others(self.needs, name, known)})
        if self._cuts is None:
            if not any(need.tensor == name for need in left) or self.stopped():
                return
            rest = self.left() * (1 - CUTTING)  # what cutting does not settle a programme may
            self._cuts = cuts_for(self.net, self.inputs, self.needs, lambda: self.left() <= rest)
            if self._cuts is None:
                self._cuts = Cuts("", np.zeros(0, np.int64), np.zeros(0))
            elif self._cuts.source:
                refined = {**known, name: _interval(known[name], low, high, shape)}
                last = next(n for n in reversed(bending(self.net)) if any(need.tensor == n for need in self.needs))
                self._split = swept(self.net, self.inputs, self._cuts, last, refined, False)
        if not self._cuts.source or name not in self._split:
            return
        least, most = self._split[name]
        for upper, found, now in ((True, most, high), (False, -least, -low)):
            entries = np.flatnonzero(found < now - 1e-9 * np.abs(now))
            if len(entries):
                bounds = loosened(found[entries]) * (1 if upper else -1)
                self.steps.append(Step(name, upper, entries, bounds, cuts=self._cuts))
                _tighten(low, high, entries, found[entries], upper)

    def _by_duals(self, name: str, known: Mapping[str, Interval], low: Floats, high: Floats) -> None:
        """Linear programmes and trees of cases for what is still needed."""
        left = {need: e for need, e in self._missing({**_others(self.needs, "", known), name: known[name]}).items()
                if need.tensor == name}  # fmt: skip
        if not left or self.stopped():
            return
        programmes = self.relaxations({**self._plain, **known})
        if programmes is None:
            return
        for need, entries in left.items():
            for step in programmes.prove(need.tensor, need.upper, entries, need.knot, self.stopped):
                signed = step.bounds if need.upper else -step.bounds
                proved = Evidence(self.net, self.inputs, (), self.constraints).bound(step, known)
                size = np.maximum(np.abs(low[step.entries]), np.abs(high[step.entries]))
                if (proved <= signed + touch(-size, size) / 2).all():
                    self.steps.append(step)
                    _tighten(low, high, step.entries, proved, need.upper)


def loosened(bounds: Floats) -> Floats:
    """Upper bounds with room for another order of summation; what is not positive stays so."""
    room = bounds + 1e-9 * np.abs(bounds)
    return np.where(bounds <= 0, np.minimum(room, 0.0), room)


def _tighten(low: Floats, high: Floats, entries: Indices, signed: Floats, upper: bool) -> None:
    if upper:
        high[entries] = np.minimum(high[entries], signed)
    else:
        low[entries] = np.maximum(low[entries], -signed)


def _interval(like: Interval, low: Floats, high: Floats, shape: tuple[int, ...]) -> Interval:
    return like.like(low.reshape(shape), high.reshape(shape))


def _others(needs: Mapping[Need, Indices], name: str, known: Mapping[str, Interval]) -> dict[str, Interval]:
    """Bounds on other tensors with needs; those not reached yet count as unbounded."""
    nothing = Interval.of(np.array(-np.inf), np.array(np.inf))
    return {need.tensor: known.get(need.tensor, nothing) for need in needs if need.tensor != name}
