"""Checks a certificate against two models: evidence first, then the walk through both, then what was claimed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.verify.certificate import Certificate
from onnxprune.verify.evidence import Evidence
from onnxprune.verify.float32 import Robustness, robustness
from onnxprune.verify.forward import Forward
from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval
from onnxprune.verify.reasons import Rejected
from onnxprune.verify.relation import Relation
from onnxprune.verify.sides import Side
from onnxprune.verify.states import Found, check_claims, states, with_kinds
from onnxprune.verify.steps import Step
from onnxprune.verify.witnesses import check_witnesses

if TYPE_CHECKING:
    from onnxprune.domain import Domain

Floats = NDArray[np.float64]
KEY = "onnxprune.certificate"
"""Metadata of an optimized model: the seal of its certificate."""
UNBOUNDED = 1e30
SLACK = 1e-6
"""Share by which computed deviations may exceed claimed ones: sums are rounded differently elsewhere."""


@dataclass
class Verdict:
    """What was checked.

    Attributes:
        deviation: By output how far the optimized model may be off.
        rounding: By output what rounded constants are worth.
        units: Number of units by state.
        methods: Number of units by method.
        solver: Number of bounds that rest on a solver's word.
        robust: Removals that hold for float32 execution, too; None where nothing was removed or is off.
        witnessed: Units shown to switch.
        exact: Whether nothing was rounded.
    """

    deviation: dict[str, float]
    rounding: dict[str, float]
    units: dict[str, int] = field(default_factory=dict)
    methods: dict[str, int] = field(default_factory=dict)
    solver: int = 0
    robust: Robustness | None = None
    witnessed: int = 0
    exact: bool = False


def check(
    certificate: Certificate, original: onnx.ModelProto, optimized: onnx.ModelProto, *, exact: bool = False
) -> Verdict:
    """Check everything.

    Args:
        certificate: What is claimed.
        original: The model that was optimized.
        optimized: The result.
        exact: Whether to compute with rational numbers instead of float64 rounded outward.

    Raises:
        Rejected: Something is not proved; the text is the reason.
    """
    check_fingerprints(certificate, original, optimized)
    check_signatures(original, optimized)
    before, after = Network.of(original), Network.of(optimized)
    inputs = domain(certificate, before, exact=exact)
    known, word = _bounds(before, inputs, certificate.steps, certificate, exact=exact, finite=True)
    other, word_other = _bounds(after, inputs, certificate.steps_optimized, certificate, exact=exact, finite=False)
    sides = Side(before, known, exact), Side(after, other, exact)
    trusting = bool(word or word_other)
    certified = Side(before, without_word(before, inputs, certificate, exact=exact), exact) if trusting else sides[0]
    relation = Relation(*sides, certificate.anchors, certificate.open_rows)
    forms = relation.run()
    missing = [name for name in certificate.anchors if name not in relation.forms]
    if missing:
        raise Rejected(f"the original has no tensor {missing[0]} that could be compared")
    unused = [name for name in certificate.open_rows if name not in relation.opened]
    if unused:
        raise Rejected(f"nothing depends on the rows of {unused[0]} that are said to be handed on")
    found = {
        walk.result: with_kinds(states(sides[0], walk), walk, certified, certificate.steps) for walk in relation.walks
    }
    check_claims(certificate.claims, {name: items for name, items in found.items() if items})
    verdict = Verdict({}, {}, exact=exact, solver=sum(word.values()) + sum(word_other.values()))
    for name, form in forms.items():
        verdict.deviation[name], verdict.rounding[name] = float(form.deviation), float(form.rounding)
        _within(name, verdict.deviation[name], certificate.deviation, "deviation", exact=exact)
        _within(name, verdict.rounding[name], certificate.rounding, "rounding", exact=exact)
    _count(verdict, certificate, found)
    parallel = sum(walk.parallel for walk in relation.walks)
    if parallel:
        verdict.units["parallel"] = parallel
    verdict.witnessed = check_witnesses(certificate.witnesses, before, inputs)
    off = {name: verdict.deviation[name] + verdict.rounding[name] for name in forms}
    verdict.robust = robustness((before, known), (after, other), certificate.claims, off)
    return verdict


def check_seal(seal: str, optimized: onnx.ModelProto) -> None:
    """Whether the optimized model names another certificate than this one.

    Raises:
        Rejected: It does.
    """
    named = [entry.value for entry in optimized.metadata_props if entry.key == KEY]
    if named and named != [seal]:
        raise Rejected("the optimized model belongs to another certificate")


def check_domain(certificate: Certificate, original: onnx.ModelProto, wanted: Domain) -> None:
    """Whether a certificate covers a domain.

    Raises:
        Rejected: Some inputs of the domain are not covered.
    """
    from onnxprune.samples import input_specs  # noqa: PLC0415 # slow to import

    if certificate.constraints:
        raise Rejected("the certificate holds under linear constraints only, which no box implies")
    for spec in input_specs(original):
        low, high = wanted.bounds(spec)
        least, most = certificate.boxes.get(spec.name, (np.array(-np.inf), np.array(np.inf)))
        if (low < least).any() or (high > most).any():
            raise Rejected(f"the certificate does not cover all of that domain: input {spec.name} goes beyond")


def check_fingerprints(certificate: Certificate, original: onnx.ModelProto, optimized: onnx.ModelProto) -> None:
    """Whether a certificate speaks of these models.

    Raises:
        Rejected: It speaks of others.
    """
    from onnxprune.graph.files import fingerprint  # noqa: PLC0415 # slow to import

    for what, model, expected in (
        ("original", original, certificate.original),
        ("optimized model", optimized, certificate.optimized),
    ):
        if fingerprint(model) != expected:
            raise Rejected(f"the certificate is about another {what}: fingerprints differ")


def check_signatures(original: onnx.ModelProto, optimized: onnx.ModelProto) -> None:
    """Whether two models can be fed and read alike.

    Raises:
        Rejected: They cannot.
    """
    for kind in ("input", "output"):
        values = [_values(model, kind) for model in (original, optimized)]
        if values[0] != values[1]:
            raise Rejected(f"the {kind}s of the two models differ in name, type or order")
    versions = [sorted((o.domain or "ai.onnx", o.version) for o in m.opset_import) for m in (original, optimized)]
    if versions[0] != versions[1]:
        raise Rejected("the two models import different operator sets")
    functions = [[f.SerializeToString(deterministic=True) for f in m.functions] for m in (original, optimized)]
    if functions[0] != functions[1]:
        raise Rejected("the two models have different local functions")


def _values(model: onnx.ModelProto, kind: str) -> list[tuple[str, int]]:
    stored = {tensor.name for tensor in model.graph.initializer}
    values = getattr(model.graph, kind)
    return [(v.name, v.type.tensor_type.elem_type) for v in values if kind == "output" or v.name not in stored]


def domain(certificate: Certificate, net: Network, *, exact: bool) -> dict[str, Interval]:
    """Bounds on the inputs.

    Raises:
        Rejected: The domain speaks of inputs that there are not, or is empty.
    """
    unknown = [name for name in certificate.boxes if name not in net.inputs]
    if unknown:
        raise Rejected(f"the domain bounds an input {unknown[0]} that the model does not have")
    found = {}
    for name in net.inputs:
        least, most = net.largest(name)
        low, high = certificate.boxes.get(name, (np.array(least), np.array(most)))
        low, high = np.maximum(low, least), np.minimum(high, most)
        if low.shape != high.shape or np.isnan(low).any() or np.isnan(high).any() or (low > high).any():
            raise Rejected(f"the domain leaves no values to input {name}")
        _fits(name, low.shape, net)
        found[name] = Interval.of(low, high, exact=exact)
    for constraint in certificate.constraints:
        for name, index, _ in constraint.terms:
            shape = net.sample(name) if name in net.inputs else None
            if shape is None or not 0 <= index < int(np.prod(shape)):
                raise Rejected("a constraint of the domain names an entry that no input has")
        if not np.isfinite([constraint.bound, *(coefficient for _, _, coefficient in constraint.terms)]).all():
            raise Rejected("a constraint of the domain is not finite")
    return found


def _fits(name: str, sizes: tuple[int, ...], net: Network) -> None:
    shape = net.shape(name)
    wrong = sizes and (shape is None or len(sizes) != len(shape))
    if wrong or any(a not in (1, b) for a, b in zip(sizes, shape or (), strict=False)):
        raise Rejected(f"the domain's box for input {name} has another shape")


def _bounds(
    net: Network,
    inputs: Mapping[str, Interval],
    steps: tuple[Step, ...],
    certificate: Certificate,
    *,
    exact: bool,
    finite: bool,
) -> tuple[dict[str, Interval], dict[str, int]]:
    evidence = Evidence(net, inputs, steps, certificate.constraints, exact=exact)
    bounds = Forward(net, inputs, exact, finite, evidence.refine).run()
    unused = evidence.unused(bounds)
    if unused:
        raise Rejected(f"there is no tensor {unused[0]} that could be bounded")
    return bounds, evidence.solver


def without_word(
    net: Network, inputs: Mapping[str, Interval], certificate: Certificate, *, exact: bool
) -> dict[str, Interval]:
    """Bounds on the original's tensors that do not rest on a solver's word, not even indirectly."""
    steps = [step for step in certificate.steps if step.trust == "certified"]
    evidence = Evidence(net, inputs, steps, certificate.constraints, exact=exact, strict=False)
    return Forward(net, inputs, exact, refine=evidence.refine).run()


def _within(name: str, value: float, claimed: Mapping[str, float], what: str, *, exact: bool) -> None:
    if name not in claimed:
        raise Rejected(f"the certificate does not say by how much output {name} may be off")
    limit = claimed[name]
    bounded = min(limit, UNBOUNDED)
    loose = not exact and bounded > 2 * min(value, UNBOUNDED) + 1e-300
    if not value <= limit * (1 + SLACK) + 1e-300 or loose:
        raise Rejected(f"output {name}: a {what} of {limit:.3g} is claimed, {value:.3g} is what is proved")


def _count(verdict: Verdict, certificate: Certificate, found: Mapping[str, list[Found]]) -> None:
    for items in found.values():
        for item in items:
            verdict.units[item.state] = verdict.units.get(item.state, 0) + len(item.units)
    for claim in certificate.claims:
        method = f"{claim.method} ({claim.trust})" if claim.trust == "solver" else claim.method
        verdict.methods[method] = verdict.methods.get(method, 0) + len(claim.units)
