"""The stages that ask a solver: relaxations first, then exact programmes, one layer after another."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from onnxprune.bounds import Bounds
from onnxprune.bounds.blocks import Block, Blocks
from onnxprune.bounds.static import StaticGraph
from onnxprune.bounds.substitution import without_active
from onnxprune.bounds.unroll import Unrolled, unroll
from onnxprune.domain import Domain
from onnxprune.mip import Pair, prove_jointly
from onnxprune.operators.interval import Array, down, up
from onnxprune.stability.ledger import Ledger, Place, Question
from onnxprune.stability.memory import Memory
from onnxprune.stability.proofs import Plan
from onnxprune.stability.solving import Found, Kind, Task, solve
from onnxprune.witness.evaluator import Evaluator
from onnxprune.workers import Workers

CHUNK = 8
"""Questions per task."""
WINDOWS = (1, 2, None)
TREE = 4.0
"""Seconds for the first attempt at a tree of cases; each round has four times as many."""
FIRST = 2.0
"""Seconds for the first attempt at an exact programme; each round has four times as many."""
NO_POINTS = np.zeros((0, 0))
BUILD = 7e-6
"""Seconds per coefficient that handing a programme to a solver takes, about."""
UNITS = 30_000
"""Entries of pre-activations up to which programmes are built at all."""


@dataclass
class Programmes:
    """Questions of a ledger, asked of a solver.

    Attributes:
        net: The graph.
        domain: Where the inputs lie.
        bounds: Proved bounds on all tensors.
        ledger: Open questions, and where answers go.
        memory: Where answers are kept.
        plan: Solver, processes, progress.
        stopped: Whether to end with what there is.
        deadline: When time is up, on the clock of ``time.perf_counter``.
        asked: Questions whose linear programme was solved in an earlier run.
        key: Equal only for programmes over the same network.
        workers: Who solves.
        notes: Receives sentences for the user.
    """

    net: StaticGraph
    domain: Domain
    bounds: Bounds
    ledger: Ledger
    memory: Memory
    plan: Plan
    stopped: Callable[[], bool]
    deadline: float
    asked: set[Question]
    key: str
    workers: Workers
    reach: int | None = None
    """The first place whose linear programmes take too long; it and all behind it are left alone."""
    notes: list[str] = field(default_factory=list)

    def relaxations(self) -> None:
        """The triangle relaxation: certified bounds from the duals."""
        self._layers(self._relax)

    def trees(self) -> None:
        """Cases by the phases of open units: certified bounds from the duals of every leaf, growing time."""
        seconds = TREE
        hopeless: set[Question] = set()
        while not self.stopped() and any(True for _ in self._open(hopeless)):
            self._layers(partial(self._branch, seconds=seconds, hopeless=hopeless))
            seconds *= 4
            if seconds > self.plan.budget:
                break

    def exact(self) -> None:
        """One exact programme per question, with growing windows and growing time."""
        seconds = FIRST
        hopeless: set[Question] = set()
        while not self.stopped() and any(True for _ in self._open(hopeless)):
            self._layers(partial(self._exact, seconds=seconds, hopeless=hopeless))
            seconds *= 4
            if seconds > 4 * self.plan.budget:
                break

    def joint(self) -> None:
        """One exact programme for all open questions of a layer."""
        self._layers(self._joint)

    def _open(self, hopeless: set[Question]) -> Iterator[Question]:
        for index in range(len(self.ledger.places)):
            yield from (q for q in self.ledger.questions(index) if q not in hopeless)

    def _layers(self, work: Callable[[Unrolled, int], None]) -> None:
        """Go through the places from front to back, with the tightest bounds so far."""
        if sum(len(place.low) for place in self.ledger.places) > UNITS:
            return
        unrolled = unroll(self.net, self.domain, self.bounds)
        if unrolled is None:
            return
        for index in range(len(self.ledger.places)):
            if self.stopped() or (self.reach is not None and index >= self.reach):
                return
            if self.ledger.places[index].open_units():
                work(self._refreshed(unrolled), index)

    def _refreshed(self, unrolled: Unrolled) -> Unrolled:
        """The same network with the bounds of the ledger."""
        known = {place.tensor: place for place in self.ledger.places}
        pairs = zip(unrolled.network.blocks, unrolled.places, strict=True)
        blocks = tuple(
            block if where is None else _narrowed(block, known.get(where.tensor), where.knot) for block, where in pairs
        )
        return replace(unrolled, network=replace(unrolled.network, blocks=blocks))

    def _block(self, unrolled: Unrolled, index: int) -> int | None:
        place = self.ledger.places[index]
        for number, where in enumerate(unrolled.places):
            if where is not None and where.tensor == place.tensor and np.array_equal(where.knot, place.knot):
                return number
        return None

    def _say(self, what: str, index: int) -> None:
        total = len(self.ledger.places)
        self.plan.progress(f"{what}, layer {index + 1} of {total}: {self.ledger.summary()}")

    def _relax(self, unrolled: Unrolled, index: int) -> None:
        template = self._template(unrolled, index, "relax", min(20.0, self.plan.budget / 4), None)
        if template is None:
            return
        self._say("linear programmes", index)
        for question, found in self._rounds(template, index, self.asked):
            self._take(question, found)
            if found.final and self.ledger.is_open(question):
                self.memory.claim(question, "lp", "certified")
            if not found.final:
                self.reach = index  # the layers behind have larger programmes still
                return

    def _branch(self, unrolled: Unrolled, index: int, *, seconds: float, hopeless: set[Question]) -> None:
        template = self._template(unrolled, index, "branch", seconds, None)
        if template is None:
            return
        self._say("linear programmes by cases", index)
        for question, found in self._rounds(template, index, set(hopeless)):
            self._take(question, found)
            if found.final and self.ledger.is_open(question):
                hopeless.add(question)

    def _exact(self, unrolled: Unrolled, index: int, *, seconds: float, hopeless: set[Question]) -> None:
        depth = self._block(unrolled, index)
        for window in WINDOWS:
            if depth is None or self.stopped():
                return
            if window is not None and window >= depth:
                continue
            template = self._template(unrolled, index, "exact", seconds, window)
            if template is None:
                return
            self._say("exact programmes" if window is None else f"exact programmes from {window} back", index)
            for question, found in self._rounds(template, index, set(hopeless)):
                self._take(question, found)
                if window is None and found.final and self.ledger.is_open(question):
                    hopeless.add(question)

    def _joint(self, unrolled: Unrolled, index: int) -> None:
        block = self._block(unrolled, index)
        if block is None:
            return
        self._say("one programme for all units", index)
        asked = {(block, q.entry, q.sign): q for q in self.ledger.questions(index)}

        def refuted(point: Array) -> set[Pair]:
            self._run(unrolled, point)
            return {pair for pair, question in asked.items() if not self.ledger.is_open(question)}

        left = max(0.0, self.deadline - time.perf_counter())
        result = prove_jointly(
            unrolled.network, asked, refuted, solver=self.plan.solver, seconds=left, stopped=self.stopped
        )
        for pair in result.proved:
            question = asked[pair]
            self._take(question, Found((question.entry, question.sign), 0.0, "solver", NO_POINTS, True))

    def _template(
        self, unrolled: Unrolled, index: int, kind: Kind, seconds: float, window: int | None
    ) -> tuple[Unrolled, Task] | None:
        block = self._block(unrolled, index)
        if block is None:
            return None
        needed = Blocks(
            unrolled.network.low,
            unrolled.network.high,
            unrolled.network.blocks[: block + 1],
            unrolled.network.rows,
            unrolled.network.limits,
        )
        entries = sum(int(np.diff(b.weights.indptr)[b.high > 0].sum()) for b in needed.blocks[:block])
        if entries * BUILD > self.plan.budget / 4:
            self.reach = index
            return None
        place = self.ledger.places[index]
        needed = without_active(needed, np.union1d(place.open(1), place.open(-1)))
        check = self.plan.solver_check and kind == "exact"
        parts = [end.tobytes() for b in needed.blocks[:block] for end in (b.low, b.high)]
        token = hashlib.sha256(
            b"".join([repr((block, window, kind == "exact", self.key)).encode(), *parts])
        ).hexdigest()
        return unrolled, Task(token, needed, block, (), self.plan.solver, seconds, seconds, window, kind, check)

    def _rounds(
        self, template: tuple[Unrolled, Task], index: int, skipped: set[Question]
    ) -> Iterator[tuple[Question, Found]]:
        """Ask the open questions of a place a few at a time, so that what one answer settles is not asked again."""
        unrolled, task = template
        done = set(skipped)
        while not self.stopped():
            left = self.deadline - time.perf_counter()
            questions = [q for q in self.ledger.questions(index) if q not in done]
            if not questions or left <= 0:
                return
            parallel = max(1, self.plan.jobs if self.plan.executor is None else 4)
            chosen = questions[: (CHUNK if task.kind == "relax" else 1) * parallel]
            done.update(chosen)
            size = -(-len(chosen) // parallel)
            parts = [chosen[i : i + size] for i in range(0, len(chosen), size)]
            tasks = [replace(task, pairs=[(q.entry, q.sign) for q in part], left=left) for part in parts]
            for number, results in self.workers.run(solve, tasks, stopped=self.stopped):
                if results:
                    self._run_all(unrolled, np.concatenate([found.points for found in results]))
                yield from zip(parts[number], results, strict=False)
            self.notes += [f"Some units were not decided: {lost.reason}." for lost in self.workers.lost]

    def _take(self, question: Question, found: Found) -> None:
        """Use an answer."""
        place = self.ledger.places[question.place]
        entry, knot = np.array([question.entry]), place.knot[question.entry]
        if found.note and found.note not in self.notes:
            self.notes.append(found.note)
        if np.isfinite(found.bound):
            end = question.sign * found.bound + knot
            if knot != 0:
                end = np.nextafter(end, question.sign * np.inf)
            least, most = (-np.inf, end) if question.sign > 0 else (end, np.inf)
            self.ledger.narrow(place, entry, np.array([least]), np.array([most]))
            if place.proved(question.sign)[question.entry]:
                if found.trust == "solver":
                    self.memory.claim(question, "mip", "solver")
                else:
                    self.memory.claim(question, "lp", "certified")
        if place.refuted[question.sign][place.units[question.entry]]:
            self.memory.refute(question)

    def _run(self, unrolled: Unrolled, point: Array) -> None:
        self._run_all(unrolled, point[None])

    def _run_all(self, unrolled: Unrolled, points: Array) -> None:
        """Run solutions of programmes as witnesses, those that lie in the domain."""
        network = unrolled.network
        if not len(points):
            return
        table = np.clip(points, network.low, network.high)
        starts = [*(first for _, first in unrolled.inputs[1:]), len(network.low)]
        feeds: Mapping[str, Array] = {
            name: table[:, first:stop] for (name, first), stop in zip(unrolled.inputs, starts, strict=True)
        }
        if self.domain.constraints:
            inside = [self.domain.contains({n: p[i][None] for n, p in feeds.items()}) for i in range(len(table))]
            feeds = {name: part[np.array(inside)] for name, part in feeds.items()}
            if not any(inside):
                return
        self.ledger.note(Evaluator(self.net).run(feeds))


def _narrowed(block: Block, place: Place | None, knot: Array) -> Block:
    """A block with the bounds of a place on its tensor; several activations may read it, each with knots of its own."""
    if place is None or not block.exact or len(place.low) != block.units:
        return block
    low, high = place.low - knot, place.high - knot
    if knot.any():
        low, high = down(low), up(high)
    return replace(block, low=np.maximum(block.low, low), high=np.minimum(block.high, high))
