"""Makes the certificate of an optimized model, after the fact: only for what the rewrite used."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.bounds.static import StaticGraph
from onnxprune.certificate.needs import Need, active_rows, idle, in_order, note, used_by
from onnxprune.certificate.programmes import Relaxations
from onnxprune.certificate.proving import Prover, loosened
from onnxprune.certificate.searching import Search, names
from onnxprune.certificate.showing import witnesses
from onnxprune.domain import Domain
from onnxprune.graph.files import fingerprint
from onnxprune.graph.graph import Graph
from onnxprune.operators import Interval as Known
from onnxprune.samples import input_specs
from onnxprune.verify.certificate import Certificate, Claims
from onnxprune.verify.checker import Verdict, check, without_word
from onnxprune.verify.evidence import Evidence
from onnxprune.verify.forward import Forward, Given
from onnxprune.verify.meanings import meaning
from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval
from onnxprune.verify.reasons import Rejected
from onnxprune.verify.relation import Relation
from onnxprune.verify.sides import Side, Walk
from onnxprune.verify.states import states, with_kinds
from onnxprune.verify.steps import Constraint, Step
from onnxprune.verify.terms import Indices

Floats = NDArray[np.float64]
ROOM = 1e-6
"""Share by which stated deviations are larger than computed ones."""


@dataclass(frozen=True)
class Made:
    """A certificate, what its check found, and how long both took.

    Attributes:
        certificate: The certificate.
        verdict: Of the check that it passed.
        seconds: Processor time of making it.
        checking: Processor time of checking it.
    """

    certificate: Certificate
    verdict: Verdict
    seconds: float
    checking: float


@dataclass
class Wanted:
    """What a certificate is made for.

    Attributes:
        original: The model as it was read.
        optimized: The result.
        tidied: The model that was proved things of.
        domain: Where the inputs lie.
        known: Bounds that were proved of the tidied model, a solver's word included where that counts.
        budget: Seconds of processor time for finding evidence.
        trust: Whether bounds count for which no evidence is found ("solver"), or not ("certified").
        stopped: Whether to end.
    """

    original: onnx.ModelProto
    optimized: onnx.ModelProto
    tidied: onnx.ModelProto
    domain: Domain
    known: Mapping[str, Known]
    budget: float = 60.0
    trust: str = "solver"
    stopped: Callable[[], bool] = lambda: False
    _began: float = field(default_factory=time.process_time)

    def left(self) -> float:
        """Seconds of processor time that are left."""
        return 0.0 if self.stopped() else max(0.0, self._began + self.budget - time.process_time())


def make(wanted: Wanted) -> Made:
    """Find what proves a result, and check it.

    Raises:
        Rejected: Something that the rewrite used cannot be proved anew; the text says what.
    """
    began = time.process_time()
    before, after = Network.of(wanted.original), Network.of(wanted.optimized)
    boxes = _boxes(wanted)
    inputs = {name: Interval.of(*ends) for name, ends in _ends(wanted).items()}
    plain = Forward(before, inputs).run()
    other = Forward(after, inputs, finite=False).run()
    hoped, images = _hoped(wanted, before, inputs, plain)
    try:
        search, walks, unsure = _related(before, after, hoped, other)
    except Rejected:  # a smaller model's intervals can be narrower: perhaps linear bounds are as narrow
        hoped = _sharpened(wanted, before, inputs, hoped)
        search, walks, unsure = _related(before, after, hoped, other)
    second = _prover(wanted, after, inputs, active_rows(after, unsure), wanted.optimized, finite=False)
    second.run()
    draft = Certificate(
        original=fingerprint(wanted.original),
        optimized=fingerprint(wanted.optimized),
        boxes=boxes,
        constraints=_constraints(wanted.domain),
        steps=(),
        steps_optimized=tuple(second.steps),
        anchors=dict(search.found),
        open_rows=dict(search.open_rows),
        claims=(),
        deviation={},
        rounding={},
    )
    prover = _prover(wanted, before, inputs, used_by(before, hoped, walks), wanted.original)
    prover.run()
    try:
        certificate = _with_claims(replace(draft, steps=tuple(prover.steps)), before, after, inputs)
    except Rejected:
        if prover.open:
            steps = [*prover.steps, *_taken_on_trust(prover, before, wanted, images)]
        else:  # single entries may matter where rows do not, as for inputs that a domain freezes
            prover = _prover(wanted, before, inputs, idle(before, plain, hoped), wanted.original)
            prover.run()
            steps = prover.steps
        certificate = _with_claims(replace(draft, steps=tuple(steps)), before, after, inputs)
    seconds = time.process_time() - began
    began = time.process_time()
    verdict = check(certificate, wanted.original, wanted.optimized)
    return Made(certificate, verdict, seconds, time.process_time() - began)


def _ends(wanted: Wanted) -> dict[str, tuple[Floats, Floats]]:
    return {spec.name: wanted.domain.bounds(spec) for spec in input_specs(wanted.original)}


def _boxes(wanted: Wanted) -> dict[str, tuple[Floats, Floats]]:
    """Boxes of the inputs that the domain restricts."""
    ends = _ends(wanted)
    return {name: ends[name] for name in wanted.domain.boxes if name in ends}


def _constraints(domain: Domain) -> tuple[Constraint, ...]:
    return tuple(Constraint(c.terms, c.bound) for c in domain.constraints)


def _hoped(
    wanted: Wanted, before: Network, inputs: Mapping[str, Interval], plain: Mapping[str, Interval]
) -> tuple[dict[str, Interval], dict[str, str]]:
    """Bounds on tensors of the original, taken over from the tidied model, and what they are called there."""
    tidied = Network.of(wanted.tidied)
    side = Side(tidied, Forward(tidied, inputs, finite=False).run(), False)
    search = Search(Side(before, plain, False), side, {}, {})
    with contextlib.suppress(Rejected):  # what was found before still serves
        search.run()
    images = {name: form.whole for name, form in search.forms.items() if form is not None and form.whole}
    images |= names(search.found)
    hoped = {}
    for node in before.nodes:
        for name in node.outputs:
            known = wanted.known.get(images.get(name, ""))
            hoped[name] = _met(plain[name], known) if name in plain and known is not None else plain.get(name)
    sharper = {name: found for name, found in hoped.items() if found is not None}

    def refine(name: str, _: Mapping[str, Interval]) -> Interval | None:
        return sharper.get(name)

    return Forward(before, inputs, refine=refine).run(), images


def _met(plain: Interval, known: Known) -> Interval:
    return _narrowed(plain, Interval.of(known.lower, known.upper))


def _narrowed(plain: Interval, known: Interval) -> Interval:
    """The better of two bounds, the first where they contradict each other."""
    if known.ndim not in (0, plain.ndim):
        return plain
    low, high = np.maximum(plain.low, known.low), np.minimum(plain.high, known.high)
    apart = low > high  # folded constants are rounded: a constant of the one model need not be that of the other
    return Interval.of(np.where(apart, plain.low, low), np.where(apart, plain.high, high))


@dataclass
class _Dry(Relation):
    """A walk that takes for granted what is not proved yet, and notes it down."""

    unsure: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    def unproved(self, tensor: str, source: str, rows: Indices) -> None:
        del tensor
        self.unsure[source] |= {int(row) for row in rows}


def _related(
    before: Network, after: Network, hoped: Mapping[str, Interval], other: Mapping[str, Interval]
) -> tuple[Search, list[Walk], dict[str, set[int]]]:
    """What stands for what, activations that were passed, and rows of the result that have to be stably active.

    Raises:
        Rejected: The result is not found to follow, even if the bounds hold.
    """
    search = Search(Side(before, hoped, False), Side(after, other, False), {}, {})
    try:
        search.run()
    except Rejected:
        search = Search(Side(before, hoped, False), Side(after, other, False), {}, {}, late=True)
        search.run()
    dry = _Dry(Side(before, hoped, False), Side(after, other, False), search.found, search.open_rows)
    dry.precise = np.inf
    dry.run()
    return search, dry.walks, dry.unsure


def _sharpened(
    wanted: Wanted, before: Network, inputs: Mapping[str, Interval], hoped: Mapping[str, Interval]
) -> dict[str, Interval]:
    """The better of bounds that are hoped for and linear ones."""
    needs: dict[Need, set[int]] = defaultdict(set)
    for node in before.nodes:
        told = meaning(Given(node, before, hoped, False))
        shape = before.sample(node.inputs[0]) if told is not None and told.straight is not None else None
        if told is not None and told.straight is not None and shape:
            note(needs, before, node.inputs[0], 0, np.arange(shape[0]), told.straight)
            note(needs, before, node.inputs[0], 0, np.arange(shape[0]), told.straight[::-1])
    linear = Prover(before, inputs, in_order(needs), lambda _: None, left=wanted.left, light=True).run()
    return {name: _narrowed(linear[name], found) for name, found in hoped.items()}


def _prover(
    wanted: Wanted,
    net: Network,
    inputs: Mapping[str, Interval],
    needs: Mapping[Need, Indices],
    model: onnx.ModelProto,
    *,
    finite: bool = True,
) -> Prover:
    made: list[StaticGraph] = []

    def relaxations(bounds: Mapping[str, Interval]) -> Relaxations | None:
        if not made:
            made.append(StaticGraph(Graph(model)))
        return Relaxations.over(made[0], wanted.domain, bounds)

    return Prover(net, inputs, needs, relaxations, _constraints(wanted.domain), wanted.left, finite)


def _taken_on_trust(prover: Prover, net: Network, wanted: Wanted, images: Mapping[str, str]) -> list[Step]:
    """Steps for what only a solver says.

    Raises:
        Rejected: Not even a solver says it.
    """
    steps = []
    for (tensor, upper, knot), entries in prover.open.items():
        known = wanted.known.get(images.get(tensor, tensor))
        shape = net.sample(tensor)
        if known is None or shape is None or known.ndim not in (0, len(shape)):
            raise Rejected(f"no evidence was found for {len(entries)} bounds on {tensor}")
        low, high = (np.broadcast_to(end, shape).reshape(-1)[entries] for end in (known.lower, known.upper))
        held = high <= knot if upper else low >= knot
        if not held.all() or wanted.trust == "certified":
            raise Rejected(f"no evidence was found for {len(entries)} bounds on {tensor}")
        steps.append(Step(tensor, upper, entries, np.full(len(entries), knot), "solver"))
    return steps


def _with_claims(draft: Certificate, before: Network, after: Network, inputs: Mapping[str, Interval]) -> Certificate:
    """The certificate with the claims, deviations and witnesses that a walk through both models finds."""
    evidence = [
        Evidence(net, inputs, steps, draft.constraints, strict=False)
        for net, steps in ((before, draft.steps), (after, draft.steps_optimized))
    ]
    bounds = Forward(before, inputs, refine=evidence[0].refine).run()
    other = Forward(after, inputs, finite=False, refine=evidence[1].refine).run()
    draft = replace(draft, steps=_stated(evidence[0]), steps_optimized=_stated(evidence[1]))
    side = Side(before, bounds, False)
    relation = Relation(side, Side(after, other, False), draft.anchors, draft.open_rows)
    forms = relation.run()
    trusting = any(part.solver for part in evidence)
    certified = Side(before, without_word(before, inputs, draft, exact=False), False) if trusting else side
    claims = [claim for walk in relation.walks for claim in _claims(side, certified, walk, draft.steps)]
    return replace(
        draft,
        open_rows={name: rows for name, rows in draft.open_rows.items() if name in relation.opened},
        claims=tuple(claims),
        deviation={name: float(form.deviation) * (1 + ROOM) for name, form in forms.items()},
        rounding={name: float(form.rounding) * (1 + ROOM) for name, form in forms.items()},
        witnesses=witnesses(before, inputs, relation.walks) if not draft.constraints else draft.witnesses,
    )


def _stated(evidence: Evidence) -> tuple[Step, ...]:
    """Steps with the bounds that their evidence proves."""
    found = []
    for step in evidence.steps:
        if id(step) in evidence.proved:
            signed = loosened(evidence.proved[id(step)])
            found.append(replace(step, bounds=signed if step.upper else -signed))
        else:
            found.append(step)
    return tuple(found)


def _claims(side: Side, certified: Side, walk: Walk, steps: Sequence[Step]) -> list[Claims]:
    """States of an activation's rows, by what proved them."""
    found = []
    for item in with_kinds(states(side, walk), walk, certified, steps):
        for kind in dict.fromkeys(item.kinds):
            part = item.only(np.array([k == kind for k in item.kinds]))
            sign = -1.0 if item.state == "active" else 1.0
            bounds = sign * loosened(sign * part.bounds)
            found.append(Claims(walk.source, walk.result, item.state, part.units, bounds, part.margins, *kind))
    return found
