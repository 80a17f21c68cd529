"""The page of a lossless run: what went, why the rest stayed, what is proved, and how it was checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.report.page.bars import legend, stacked
from onnxprune.report.page.parts import Cell, Column, number, pill, short, table, text, tiles
from onnxprune.report.page.plots import MISSING, bounded, can_plot, drawn, intervals
from onnxprune.report.page.sections import (
    change,
    costs,
    facts,
    figure,
    identity,
    latencies,
    named,
    notes,
    reasons,
    said,
    section,
)
from onnxprune.report.table import ROWS, STATES, proved_by
from onnxprune.stability import LayerStates, State

if TYPE_CHECKING:
    from onnxprune.report.build import Report

MOST_PLOTS = 32
"""Layers whose bounds are drawn; a plot takes about 5 kB and 30 ms, and the table has the rest."""


def optimized(report: Report, name: str) -> str:
    """The body of the page.

    Args:
        report: The report, with details.
        name: What the model is called.
    """
    content = report.content
    return "\n".join(
        part
        for part in (
            f"<h1>{escape(name)}</h1>",
            said(_outcome(content)),
            tiles(_headline(content)),
            section("Before and after", costs(content, ROWS)),
            section("What went", _passes(content)),
            section("Why the rest stayed", _kept(content)),
            _layers(content["layers"]),
            _bounds(report.details.layers),
            section("Proofs", _proofs(content)),
            section("Deviation and validation", _validation(content)),
            latencies(report.details.latencies),
            section("Domain", _domain(content["domain"])),
            notes(content["notes"]),
            identity(content),
        )
        if part
    )


def _outcome(content: Mapping[str, Any]) -> str:
    check, align = content["validation"], content["align"]
    if not any(entry["modified"] for entry in content["passes"]):
        return "Nothing could go: the model is handed back as it is, byte for byte."
    rounded = f" Channel counts are multiples of {align}." if align > 1 else ""
    return f"Validated on {check['samples']} inputs; largest difference {check['max_abs_error']:.2g}.{rounded}"


def _headline(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    units = content["units"]
    found = [("units removed", f"{units['removed']:,} of {units['total']:,}")]
    for key in ("params", "macs", "bytes", "latency_ms"):
        moved = change(content["before"][key], content["after"][key])
        if moved is not None:
            found.append((ROWS[key].split(" (")[0], f"{moved:+.1f} %"))
    return found


def _passes(content: Mapping[str, Any]) -> str:
    columns = [
        Column("pass"),
        Column("units removed", numeric=True),
        Column("merged", numeric=True),
        Column("other changes"),
        Column("holds"),
        Column("deviation", numeric=True),
        Column("seconds", numeric=True),
    ]
    rows = []
    for entry in content["passes"]:
        changes = ", ".join(f"{count:,} {kind}" for kind, count in entry["changes"].items())
        if entry["rolled_back"]:
            changes = f"rolled back: {entry['rolled_back']}"
        holds = _holds(entry)
        rows.append(
            (
                short(entry["name"]),
                number(entry["removed"]),
                number(entry["merged"]),
                Cell(f'<div class="reason">{escape(changes)}</div>', changes),
                Cell(pill(holds, "good" if holds == "for every input" else ""), holds),
                number(entry["deviation"], "{:.1e}") if entry["deviation"] else number(0),
                number(entry["seconds"], "{:.2f}"),
            )
        )
    return table("Passes that ran", columns, rows) if rows else said("No pass changed anything.")


def _holds(entry: Mapping[str, Any]) -> str:
    if entry["rolled_back"] or not entry["modified"]:
        return "no change"
    words = {"ALWAYS": "for every input", "ON_DOMAIN": "on the domain", "APPROXIMATE": "changes the function"}
    return words[entry["exactness"]]


def _kept(content: Mapping[str, Any]) -> str:
    return reasons("Units that stayed, by reason", content["kept_because"]) or said("No unit is left.")


def _layers(layers: Sequence[Mapping[str, Any]]) -> str:
    """States per layer as bars and as numbers, what is left, and why."""
    if not layers:
        return ""
    columns = [Column("layer"), Column("states"), Column("units", numeric=True), Column("left", numeric=True)]
    occurring = [state for state in STATES if any(layer[state] for layer in layers)]
    columns += [Column(state, numeric=True) for state in occurring]
    columns += [Column("proved by"), Column("stays because")]
    rows = []
    for layer in layers:
        left = len(layer["kept"])
        why = "; ".join(f"{reason} ({count})" for reason, count in layer["kept_because"].items())
        kind = f"{layer['op']}, {layer['activation']}" if layer["activation"] else layer["op"]
        rows.append(
            (
                named(layer["name"], kind),
                Cell(stacked({state: layer[state] for state in STATES}, left / layer["total"]), layer["total"]),
                number(layer["total"]),
                number(left),
                *(number(layer[state]) for state in occurring),
                text(proved_by(layer)),
                Cell(f'<div class="reason">{escape(why)}</div>', why),
            )
        )
    return section(
        "Layers",
        said(
            "States of the units over the domain. Unstable: runs show both sides; undecided: neither proved nor shown."
        ),
        legend(occurring, left=True),
        table("States of units per layer", columns, rows),
    )


def _bounds(layers: Sequence[LayerStates]) -> str:
    """Bounds on the pre-activations: a plot per layer, and a table of all."""
    if not layers:
        return ""
    names = ("units", "bounded", "lowest", "highest", "stable", "least margin", "median margin")
    columns = [Column("layer"), *(Column(name, numeric=True) for name in names)]
    return section(
        "Bounds of units",
        said(
            "What is proved about the value that enters the activation. A margin is how far a bound lies on its side "
            "of the threshold, so it says how firmly a state is proved."
        ),
        _plots(layers),
        table("Bounds and margins per layer", columns, (_bounds_row(layer) for layer in layers)),
    )


def _bounds_row(layer: LayerStates) -> tuple[Cell, ...]:
    finite = bounded(layer)
    stable = np.array([state in (State.INACTIVE, State.ACTIVE) for state in layer.states])
    margins = layer.margins[stable & np.isfinite(layer.margins)]
    lowest = float(layer.lower[finite].min()) if finite.any() else None
    highest = float(layer.upper[finite].max()) if finite.any() else None
    least, median = (float(np.min(margins)), float(np.median(margins))) if len(margins) else (None, None)
    return (
        text(layer.name),
        number(len(layer.states)),
        number(int(finite.sum())),
        *(number(value, "{:.4g}") for value in (lowest, highest)),
        number(len(margins)),
        *(number(value, "{:.3g}") for value in (least, median)),
    )


def _plots(layers: Sequence[LayerStates]) -> str:
    some = [place for place, layer in enumerate(layers) if bounded(layer).any()]
    if not some:
        return said("No unit is bounded on both sides; a domain such as 0:1 bounds them.")
    if not can_plot():
        return said(MISSING)
    most = sorted(some, key=lambda place: _open(layers[place]), reverse=True)[:MOST_PLOTS]
    chosen = [layers[place] for place in sorted(most)]
    more = ""
    if len(some) > MOST_PLOTS:
        more = f"Drawn are the {MOST_PLOTS} of {len(some)} layers with the most unstable and undecided units."
    states = {state.value for layer in chosen for state in layer.states}
    figures = "".join(figure(intervals(layer), _caption(layer)) for layer in chosen)
    return f'{legend(word for word in STATES if word in states)}{said(more)}<div class="plots">{figures}</div>'


def _open(layer: LayerStates) -> int:
    return layer.count(State.UNSTABLE) + layer.count(State.UNDECIDED)


def _caption(layer: LayerStates) -> str:
    shown, known, total = len(drawn(layer)), int(bounded(layer).sum()), len(layer.states)
    several = f"{total} units" if known == total else f"{known} bounded of {total} units"
    several += f", {shown} of them drawn" if shown < known else ""
    return f"<b>{escape(layer.name)}</b> {several}"


def _proofs(content: Mapping[str, Any]) -> str:
    proof = content["proof"]
    methods: Iterable[tuple[str, str]] = ((f"by {name}", f"{n:,} units") for name, n in proof["by_method"].items() if n)
    rows = [
        *methods,
        ("re-checkable by simple arithmetic", f"{proof['trust']['certified']:,} units"),
        ("on a solver's word", f"{proof['trust']['solver']:,} units"),
        ("time", f"{proof['seconds']:.3g} s"),
    ]
    return facts("How units were proved stable or constant", rows)


def _validation(content: Mapping[str, Any]) -> str:
    check = content["validation"]
    error = check["max_abs_error"]
    rounding = max((entry["rounding"] for entry in content["passes"]), default=0.0)
    rows = [
        ("inputs that were run", f"{check['samples']:,}"),
        ("largest difference of the outputs", "nothing was run" if error is None else f"{error:.3g}"),
        ("proved deviation at the edited tensors", f"{content['deviation']:.3g}"),
        ("proved deviation at the outputs", f"{check['deviation_bound']:.3g}"),
        ("largest rounding of a constant", f"{rounding:.3g}"),
        ("execution provider", check["provider"]),
    ]
    return facts("Proved and measured differences", rows)


def _domain(domain: Mapping[str, Any]) -> str:
    if not domain["inputs"]:
        return said("Every finite input on which the original's intermediate values stay finite.")
    columns = [Column("input"), *(Column(name, numeric=True) for name in ("lower", "upper", "free", "fixed"))]
    rows = [
        (
            text(name),
            *(number(box[side], "{:.6g}") for side in ("lower", "upper")),
            *(number(box[kind]) for kind in ("free", "fixed")),
        )
        for name, box in domain["inputs"].items()
    ]
    more = f"{domain['constraints']} linear constraints hold besides." if domain["constraints"] else ""
    return table(f"Inputs for which the result is equal ({domain['origin']})", columns, rows) + said(more)
