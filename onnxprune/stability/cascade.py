"""The cascade: cheap proofs first, one pool of witnesses, one ledger of claims; anytime, and always sound."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.bounds import Bounds, interval_bounds, linear_bounds
from onnxprune.bounds.backward import Box
from onnxprune.bounds.linear import Effort
from onnxprune.bounds.split import Splitter, Target
from onnxprune.bounds.static import StaticGraph
from onnxprune.domain import Domain
from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups
from onnxprune.operators import Axis
from onnxprune.operators.interval import Array
from onnxprune.operators.tape import NumpyTape
from onnxprune.stability.ledger import SIDES, Ledger, Question
from onnxprune.stability.memory import Memory
from onnxprune.stability.programmes import Programmes
from onnxprune.stability.proofs import Plan, Proofs, Stage
from onnxprune.witness import Observed
from onnxprune.witness.ascent import Goal, ascend
from onnxprune.witness.evaluator import HELD, Evaluator, Values
from onnxprune.workers import Workers

Look = Callable[[Sequence[Axis], Mapping[str, Array]], Mapping[Axis, Observed]]
"""Runs the model on samples and on the given corners, and watches these axes."""

HUGE = 1e30
"""Inputs without a bound are left to intervals."""
FEW = 24
"""Free inputs up to which splitting the box is tried."""
LEAVES = 1 << 13
"""Most sub-boxes."""
STARTS = 256
"""Random points that starts of an ascent are chosen from."""
MOST = 512
"""Corners of linear bounds that are run exactly."""
MANY, CLIMBERS = 48, 256
"""Starts for each question that stays open, and for all of them together."""
QUICK = 2e8
"""Multiply-adds up to which a network is always run exactly, to compare, and a sub-box is bounded."""
FEWEST = 8
"""Points that a first run times; where no more than these are affordable, nothing is climbed."""
SHARE, FIRST_SHARE = 0.2, 0.4
"""Shares of the budget that an ascent may take and later linear bounds, and the first linear bounds."""
SLOPES = 16
"""Steps of slope optimisation."""


def prove(graph: Graph, groups: ChannelGroups, domain: Domain, plan: Plan, look: Look) -> Proofs:
    """Prove as many units stable, and show as many unstable, as the plan allows.

    Args:
        graph: The graph.
        groups: Its channel groups.
        domain: Where the inputs lie.
        plan: Method, budget, and the rest.
        look: Runs the real model.

    Raises:
        ProofError: A proof and a run contradict each other.
    """
    return _Cascade(graph, groups, domain, plan, look).run()


class _Cascade:
    def __init__(self, graph: Graph, groups: ChannelGroups, domain: Domain, plan: Plan, look: Look) -> None:
        self.graph = graph
        self.domain = domain
        self.plan = plan
        self.look = look
        self.net = StaticGraph(graph)
        self.ledger = Ledger(self.net, groups)
        self.memory = Memory(self.ledger, plan.store)
        self.rng = np.random.default_rng(plan.seed)
        self.began = time.perf_counter()
        self.workers = Workers(plan.jobs, plan.executor)
        self.reach: int | None = None
        self.key = uuid.uuid4().hex
        self.stages: list[Stage] = []
        self.notes: list[str] = []
        self.bounds = Bounds({})
        self.box: dict[str, tuple[Array, Array]] = {}
        self.asked: set[Question] = set()

    def run(self) -> Proofs:
        """All stages."""
        self._commit("interval", interval_bounds(self.graph, self.domain))
        if self.domain.restricts:
            self.asked = self.memory.recall("certified")
            self._witnesses()
            if self.plan.method == "cascade":
                self._linear()
            if self._searchable():
                self._compare()
                with self.workers:
                    self._search()
        else:
            self._witnesses()
        return Proofs(self.bounds, self.stages, self.ledger.switching(), time.perf_counter() - self.began, self.notes)

    def stopped(self) -> bool:
        """Out of time, or told to stop."""
        return self.plan.stopped() or time.perf_counter() - self.began > self.plan.budget

    def _search(self) -> None:
        """The stages that cost more than a moment."""
        if self.plan.method == "cascade":
            for stage in (self._ascend, self._slopes, self._split, self._lp, self._trees):
                if self.ledger.open and not self.stopped():
                    stage()
        if self.plan.trust == "solver" and self.ledger.open and not self.stopped():
            self._mip()

    def _say(self, what: str) -> None:
        self.plan.progress(f"{what}: {self.ledger.summary()}")

    def _commit(self, method: str, bounds: Bounds, trust: str = "certified") -> None:
        """A method has done its work."""
        self.bounds = bounds
        self.ledger.tighten(bounds)
        self.stages.append(Stage(method, trust, bounds))

    def _sweep(self, method: str, effort: Effort, trust: str = "certified") -> None:
        """Bounds on everything from what is proved by now."""
        bounds = linear_bounds(self.graph, self.domain, effort, self.ledger.known())
        self._commit(method, Bounds(dict(bounds), {**self.bounds.corners, **bounds.corners}), trust)

    def _linear(self) -> None:
        self._say("linear bounds")
        effort = Effort(FIRST_SHARE * self.plan.budget, stopped=self.stopped, essential=self._open())
        self._sweep("linear", effort)
        self._witnesses()

    def _open(self) -> dict[str, NDArray[np.int64]]:
        """Entries with an open side, by tensor."""
        found: dict[str, NDArray[np.int64]] = {}
        for place in self.ledger.places:
            entries = np.union1d(place.open(1), place.open(-1))
            found[place.tensor] = np.union1d(found.get(place.tensor, entries), entries)
        return found

    def _witnesses(self) -> None:
        self._say("looking for units that switch")
        self.ledger.see(self.look(self.ledger.watched, self.bounds.corners), self._floors())

    def _floors(self) -> dict[str, float]:
        """Per pre-activation how large its terms can be, where cancellation could hide that from its values."""
        floors = {}
        for name in self.ledger.axes:
            node = self.ledger.producer(name)
            boxes = [] if node is None else [self.net.flat(self.bounds, t.name) for t in node.inputs]
            if node is None or self.net.constant_part(node) is None:
                continue
            inputs = [None if box is None else np.maximum(*map(np.abs, box))[None] for box in boxes]
            constant = [isinstance(t, gs.Constant) or not t.name for t in node.inputs]
            if any(given is None and not fixed for given, fixed in zip(inputs, constant, strict=True)):
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                size = self.net.apply(node, inputs, NumpyTape(absolute=True))
            if size is not None:
                floors[name] = float(size[0].max(initial=0.0))
        return floors

    def _compare(self) -> None:
        """Hold what is proved against a few exact runs, even where nothing is left to find."""
        if self._cost() <= QUICK:
            points = self._draw(FEWEST)
            if points:
                self.note(points)

    def _cost(self) -> float:
        """Multiply-adds of one run."""
        return sum(self.net.work(node) for node in self.graph.nodes)

    def _searchable(self) -> bool:
        """Whether points of the domain can be made: every input has a finite box."""
        self.box = self.net.input_box(self.domain)
        finite = all((np.abs(end) < HUGE).all() for pair in self.box.values() for end in pair)
        floats = all(self.net.is_float(name) for name in self.net.inputs)
        return finite and floats and len(self.box) == len(self.net.inputs)

    def note(self, points: Mapping[str, Array]) -> dict[str, Values]:
        """Run points of the domain, take over what they show, and return the values where activations bend."""
        evaluator, parts = Evaluator(self.net), list[dict[str, Values]]()
        count = len(next(iter(points.values()), ()))
        size = evaluator.batch(self.net.bends)
        for start in range(0, count, size):
            if parts and self.stopped():
                break
            part = {name: rows[start : start + size] for name, rows in points.items()}
            parts.append(evaluator.run(part, self.net.bends))
            self.ledger.note(parts[-1])
        names = parts[0] if parts else {}
        return {
            name: Values(np.concatenate([p[name].value for p in parts]), np.max([p[name].error for p in parts], axis=0))
            for name in names
        }

    def _inside(self, points: dict[str, Array]) -> dict[str, Array]:
        """Points of the box that meet the linear constraints, too."""
        if not self.domain.constraints or not points:
            return points
        count = len(next(iter(points.values())))
        rows = [i for i in range(count) if self.domain.contains({n: p[i][None] for n, p in points.items()})]
        return {name: p[rows] for name, p in points.items()}

    def _draw(self, count: int) -> dict[str, Array]:
        """Random points and corners."""
        drawn = {}
        for name, (low, high) in self.box.items():
            share = self.rng.random((count, len(low)))
            share[::2] = share[::2] < 0.5
            drawn[name] = np.clip(low + share * (high - low), low, high)
        return self._inside(drawn)

    def _ascend(self) -> None:
        """Climb towards the other side of every open unit, from the best of some random points."""
        self._say("gradient ascent")
        began = time.perf_counter()
        first = self._draw(FEWEST)
        if not first or not len(next(iter(first.values()))) or self.domain.constraints:
            return
        self.note(first)
        each, share = (time.perf_counter() - began) / FEWEST, SHARE * self.plan.budget
        held = max(1, HELD // max(1, sum(self.net.size(name) or 0 for name in self.net.bends)))
        count = int(min(STARTS, share / 4 / each, held))
        if count < FEWEST:
            return  # one run takes too long
        starts = self._draw(count)
        values = self.note(starts)
        known = self._goals(values)[: int(share / (40 * each))]

        def enough() -> bool:
            return self.stopped() or time.perf_counter() - began > share

        self._climb(known, starts, values, 1, enough)
        rest = [question for question in known if self.ledger.is_open(question)]
        if rest and not enough():
            self._climb(rest, starts, values, min(MANY, max(1, CLIMBERS // len(rest))), enough)

    def _goals(self, values: Mapping[str, Values]) -> list[Question]:
        """For every open side of a unit the entry that came nearest to refuting it."""
        found = []
        for index, place in enumerate(self.ledger.places):
            for sign in SIDES:
                entries = place.open(sign) if place.tensor in values else np.zeros(0, dtype=np.int64)
                if not len(entries):
                    continue
                reached = (sign * (values[place.tensor].value[:, entries] - place.knot[entries])).max(axis=0)
                order = np.argsort(-reached, kind="stable")
                _, firsts = np.unique(place.units[entries[order]], return_index=True)
                found += [(float(-reached[order[k]]), Question(index, int(entries[order[k]]), sign)) for k in firsts]
        return [question for _, question in sorted(found, key=lambda pair: pair[0])]

    def _climb(
        self,
        known: Sequence[Question],
        starts: Mapping[str, Array],
        values: Mapping[str, Values],
        count: int,
        enough: Callable[[], bool],
    ) -> None:
        """Climb from the best ``count`` of some points for each question."""
        best, asked = [], []
        for question in known:
            tensor = self.ledger.places[question.place].tensor
            order = (-question.sign * values[tensor].value[:, question.entry]).argsort()[:count]
            best += [int(row) for row in order]
            asked += [question] * len(order)
        points = {name: rows[best] for name, rows in starts.items()}
        wanted = [Goal(self.ledger.places[q.place].tensor, q.entry, q.sign) for q in asked]
        remaining = dict(zip(wanted, asked, strict=True))

        def note(seen: Mapping[str, Values], asked: Sequence[Goal]) -> NDArray[np.bool_]:
            self.ledger.note(seen)
            return np.array([self.ledger.is_open(remaining[goal]) for goal in asked], dtype=bool)

        ascend(self.net, wanted, points, self.box, note, enough)

    def _slopes(self) -> None:
        self._say("optimising slopes")
        effort = Effort(SHARE * self.plan.budget, SLOPES, self.stopped, self._open())
        self._sweep("linear", effort)
        if set(self.box) <= set(self.bounds.corners):
            self.note(self._inside({name: self.bounds.corners[name][-MOST:] for name in self.box}))

    def _split(self) -> None:
        """Cut the box where inputs are few."""
        names = [name for name, (low, high) in self.box.items() if (low < high).any()]
        if len(names) != 1:
            return
        source = names[0]
        low, high = self.box[source]
        if not 0 < int((low < high).sum()) <= FEW:
            return
        self._say("splitting the domain")
        boxes: dict[str, Box] = {}
        for name in self.bounds:
            flat = self.net.flat(self.bounds, name) if self.net.is_float(name) else None
            if flat is not None:
                boxes[name] = (flat[0][None], flat[1][None])
        targets = [
            Target(place.tensor, place.low, place.high, place.open(1), place.open(-1))
            for place in self.ledger.places
            if place.name == place.tensor and place.tensor in boxes and not place.knot.any()
        ]
        rows = sum(2 * int(((t.low < 0) & (t.high > 0)).sum()) for t in targets)
        if not targets or rows * self._cost() > QUICK:
            return  # one sub-box takes too long, let alone hundreds
        splitter = Splitter(self.net, source, (low, high), targets, boxes)
        share = self.plan.budget / 2

        def enough() -> bool:
            return self.stopped() or time.perf_counter() - self.began > share

        leaves = splitter.run(LEAVES, enough)
        middle = leaves.low / 2 + leaves.high / 2
        others = {n: np.repeat(self.box[n][0][None], len(middle), axis=0) for n in self.box if n != source}
        self.note(self._inside({source: np.clip(middle, low, high), **others}))
        before = {
            place.name: replace(place, low=place.low.copy(), high=place.high.copy()) for place in self.ledger.places
        }
        for target in targets:
            place = next(p for p in self.ledger.places if p.name == target.tensor)
            self.ledger.narrow(place, np.arange(len(place.low)), *leaves.hull(target.tensor))
        self.memory.proved("split", "certified", before)
        self._sweep("split", Effort(SHARE * self.plan.budget, 0, self.plan.stopped, self._open()))

    def _programmes(self) -> Programmes:
        """As they stand now; what took too long once is not tried again."""
        deadline = self.began + self.plan.budget
        return Programmes(
            self.net,
            self.domain,
            self.bounds,
            self.ledger,
            self.memory,
            self.plan,
            self.stopped,
            deadline,
            self.asked,
            self.key,
            self.workers,
            self.reach,
            self.notes,
        )

    def _lp(self) -> None:
        programmes = self._programmes()
        programmes.relaxations()
        self.reach = programmes.reach
        self._sweep("lp", Effort(SHARE * self.plan.budget, 0, self.plan.stopped, self._open()))

    def _trees(self) -> None:
        self._programmes().trees()
        self._sweep("lp", Effort(SHARE * self.plan.budget, 0, self.plan.stopped, self._open()))

    def _mip(self) -> None:
        self.memory.recall("solver")
        programmes = self._programmes()
        if self.plan.method == "single":
            programmes.joint()
        else:
            programmes.exact()
        known = dict(self.bounds)
        for name, bounds in self.ledger.known().items():
            known[name] = known[name].meet(bounds)
        self._commit(
            "mip", Bounds(dict(interval_bounds(self.graph, self.domain, known=known)), self.bounds.corners), "solver"
        )
