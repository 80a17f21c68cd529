"""The report: what went, why the rest stayed, what it cost, how it was checked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.alignment import Kept
from onnxprune.domain import Domain
from onnxprune.facts import Facts
from onnxprune.graph.files import Source, fingerprint, standard_opset
from onnxprune.graph.graph import Graph, label
from onnxprune.graph.groups import Units
from onnxprune.removable import Status
from onnxprune.report.details import Details
from onnxprune.stability import LayerStates, Proofs, Stage, State, unit_states

if TYPE_CHECKING:
    from onnxprune.graph.cost import Cost
    from onnxprune.pipeline import PassEntry, Reduced
    from onnxprune.validate import Outcome

SCHEMA = 1
STATES = tuple(state.value for state in State)
METHODS = ("interval", "linear", "split", "lp", "mip")
TRUST = ("certified", "solver")


@dataclass(frozen=True)
class Report:
    """A report as plain data (``content``, the JSON of ``--report``), with details for pages."""

    content: dict[str, Any]
    details: Details = field(default_factory=Details, compare=False, repr=False)

    def to_json(self) -> str:
        """Indented JSON text."""
        return json.dumps(self.content, indent=1, allow_nan=False) + "\n"

    def to_html(self) -> str:
        """A self-contained page: the file of ``--html``."""
        from onnxprune.report.page.report_page import report_page  # noqa: PLC0415 # only where a page is wanted

        return report_page(self)

    def _repr_html_(self) -> str:
        """A summary for notebooks."""
        from onnxprune.report.page.notebook import notebook_summary  # noqa: PLC0415 # as above

        return notebook_summary(self.content)

    def __getitem__(self, key: str) -> Any:
        return self.content[key]


def build_report(
    *,
    source: Source,
    domain: Domain,
    costs: Mapping[str, Cost],
    latencies: Mapping[str, NDArray[np.float64]],
    baseline: Facts,
    proofs: Proofs,
    final: Reduced,
    align: int,
    outcome: Outcome | None,
    provider: str,
    notes: Sequence[str],
) -> Report:
    """Put a report together.

    Args:
        source: The model as it was read.
        domain: Where equivalence is promised.
        costs: Under ``before``, ``tidied``, ``after``.
        latencies: Milliseconds of single runs under the same names; empty where nothing was measured.
        baseline: Facts of the tidied model, whose units are counted.
        proofs: What was proved of the tidied model.
        final: The result.
        align: Multiple that channel counts were rounded up to.
        outcome: Of the last validation; None if nothing was run.
        provider: Execution provider of the validation.
        notes: Sentences for the user.
    """
    stages = [unit_states(baseline.graph, baseline.groups, s.bounds, proofs.switching) for s in proofs.stages]
    layers = _layers(stages, baseline, proofs, final)
    units = {key: sum(layer[key] for layer in layers) for key in ("total", *STATES)}
    units["removed"] = sum(layer["total"] - len(layer["kept"]) for layer in layers)
    units["merged"] = sum(entry.merged for entry in final.entries.values())
    reasons: Counter[str] = Counter()
    for layer in layers:
        reasons.update(layer["kept_because"])
    return Report(
        {
            "schema": SCHEMA,
            "model": {
                "path": str(source.path) if source.path else None,
                "sha256": fingerprint(source.model),
                "opset": standard_opset(source.model),
            },
            "domain": domain.to_json(),
            "before": costs["before"].to_json(),
            "tidied": costs["tidied"].to_json(),
            "after": costs["after"].to_json(),
            "units": units,
            "layers": layers,
            "kept_because": dict(reasons.most_common()),
            "passes": [_pass(entry) for entry in final.entries.values()],
            "deviation": final.deviation,
            "align": max(align, 1),
            "proof": {
                "by_method": {method: sum(layer["by_method"][method] for layer in layers) for method in METHODS},
                "trust": {kind: sum(layer["trust"][kind] for layer in layers) for kind in TRUST},
                "seconds": round(proofs.seconds, 4),
            },
            "validation": {
                "samples": outcome.samples if outcome else 0,
                "max_abs_error": outcome.max_abs_error if outcome else None,
                "deviation_bound": final.bound,
                "provider": provider.removesuffix("ExecutionProvider").lower(),
            },
            "notes": list(notes),
        },
        Details(stages[-1], latencies),
    )


def _pass(entry: PassEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "exactness": _needed(entry),
        "modified": entry.modified,
        "removed": entry.removed,
        "merged": entry.merged,
        "deviation": entry.deviation,
        "rounding": entry.rounding,
        "changes": dict(entry.changes),
        "rolled_back": entry.rolled_back,
        "seconds": round(entry.seconds, 4),
    }


def _needed(entry: PassEntry) -> str:
    """What the changes of a pass needed, which may be less than the pass may need."""
    if entry.exactness.value != "ON_DOMAIN":
        return entry.exactness.value
    return "ON_DOMAIN" if entry.needed_domain else "ALWAYS"


def _layers(
    stages: Sequence[Sequence[LayerStates]], baseline: Facts, proofs: Proofs, final: Reduced
) -> list[dict[str, Any]]:
    graph = Graph(final.model)
    after = Facts(graph, baseline.domain, known=final.known)
    remaining = {label(units.node): units for units in after.groups.units}
    states_after = {s.name: s for s in unit_states(graph, after.groups, after.bounds)}
    found = []
    for number, states in enumerate(stages[-1]):
        layer = _layer(states, final.kept, remaining.get(states.name), states_after, after)
        found.append(layer | _provenance([stage[number] for stage in stages], proofs.stages))
    return found


def _provenance(history: Sequence[LayerStates], stages: Sequence[Stage]) -> dict[str, Any]:
    """By which method, and on whose word, the units of a layer were proved stable or constant."""
    by_method, trust = dict.fromkeys(METHODS, 0), dict.fromkeys(TRUST, 0)
    before = 0
    for states, stage in zip(history, stages, strict=True):
        proved = sum(state not in (State.UNSTABLE, State.UNDECIDED) for state in states.states)
        by_method[stage.method] += proved - before
        trust[stage.trust] += proved - before
        before = proved
    return {"by_method": by_method, "trust": trust}


def _layer(
    states: LayerStates,
    kept: Kept,
    units: Units | None,
    states_after: Mapping[str, LayerStates],
    after: Facts,
) -> dict[str, Any]:
    total = len(states.states)
    stays = kept.get(states.name, np.arange(total))
    before = [states.states[int(i)] for i in stays]
    reasons = _reasons(units, states_after[states.name], before, after) if units is not None else Counter[str]()
    return {
        "name": states.name,
        "op": states.op,
        "activation": states.activation,
        "total": total,
        **{key: states.count(State(key)) for key in STATES},
        "kept": [int(i) for i in stays],
        "kept_because": dict(reasons.most_common()),
    }


def _reasons(units: Units, states: LayerStates, before: Sequence[State], after: Facts) -> Counter[str]:
    reasons: Counter[str] = Counter()
    status = after.removable.status
    for component, state, earlier in zip(units.components, states.states, before, strict=True):
        if after.groups.locked[component]:
            reasons[after.groups.why_locked(int(component))] += 1
        elif status[component] < Status.CARRIED:
            reasons["removable, but kept (alignment, last unit of its layer, or a pass rolled back)"] += 1
        elif status[component] == Status.CARRIED:
            reasons["constant that enters a padded convolution"] += 1
        elif state in (State.INACTIVE, State.CONSTANT):
            reasons["constant here, but not where it is read"] += 1
        elif state is State.ACTIVE:
            reasons["stably active" if states.activation else "affine output that varies"] += 1
        elif state is State.UNDECIDED and earlier is State.UNSTABLE:
            reasons["switches on the domain"] += 1
        elif state is State.UNDECIDED:
            reasons["not proved stable"] += 1
        else:
            reasons["its output varies"] += 1
    return reasons
