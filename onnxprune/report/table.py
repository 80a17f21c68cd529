"""Terminal output: at most 100 columns, plain when it is not a terminal."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import IO, Any

import onnx
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxprune.operators import operator_for

WIDTH = 100
STATES = ("inactive", "active", "constant", "unstable", "undecided")
COLUMNS = ("units", *STATES, "go")
ROWS = {
    "nodes": "nodes",
    "params": "parameters",
    "macs": "multiply-adds",
    "bytes": "bytes",
    "latency_ms": "latency (ms)",
}
"""Figures of a model, as they are called in reports and in tables."""
SPENT = 0.95
"""Share of the budget from which on it counts as spent."""


def console(file: IO[str] | None = None) -> Console:
    """A console of at most 100 columns."""
    target = file or sys.stdout
    width = min(WIDTH, Console(file=target).width) if target.isatty() else WIDTH
    return Console(file=target, width=width, highlight=False, soft_wrap=False)


def print_summary(
    report: Mapping[str, Any],
    *,
    modified: bool,
    relative: float,
    written: str | None,
    budget: float,
    layers: bool,
    file: IO[str],
) -> None:
    """What went, what it brought, how it was checked.

    Args:
        report: The report's content.
        modified: Whether the result differs from the original file.
        relative: Largest measured error as a share of the output range.
        written: Where the result was written, if it was.
        budget: Seconds of search that were granted.
        layers: Print the table of layers, too.
        file: Where to print.
    """
    out = console(file)
    out.print(cost_table(report))
    units, check = report["units"], report["validation"]
    out.print(
        f"{units['removed']} of {units['total']} units removed, {units['merged']} of them by merging; "
        f"channel counts in multiples of {report['align']}"
    )
    for entry in report["passes"]:
        if entry["rolled_back"]:
            out.print(f"rolled back: {entry['name']}: {entry['rolled_back']}", markup=False)
        elif entry["modified"]:
            out.print(f"  {entry['name']:<22}{_did(entry)} [{entry['exactness']}]", markup=False)
    if layers:
        _print_table(out, report["layers"], whole=not file.isatty())
    if report["kept_because"]:
        reason, count = next(iter(report["kept_because"].items()))
        out.print(f"most of the rest stays because: {reason} ({count} units)", markup=False)
    _print_proofs(out, report, budget)
    for note in report["notes"]:
        out.print(f"note: {note}", markup=False)
    if not modified:
        out.print("unchanged: the model is handed back as it is, byte for byte")
    else:
        if check["deviation_bound"]:
            out.print(f"proved deviation of the outputs: at most {check['deviation_bound']:.1e}", markup=False)
        out.print(
            f"PASSED: {check['samples']} inputs, largest difference {check['max_abs_error']:.2g} "
            f"({relative:.0e} of the output range)",
            markup=False,
        )
    if written:
        out.print(f"written: {written}", markup=False)


def _did(entry: Mapping[str, Any]) -> str:
    parts = []
    if entry["removed"]:
        parts.append(f"{entry['removed']} units")
    parts += [f"{count} {kind}" for kind, count in entry["changes"].items()]
    return ", ".join(parts)


def cost_table(report: Mapping[str, Any], rows: Mapping[str, str] = ROWS) -> Table:
    """The original, the tidied and the resulting model side by side; figures that were not measured are left out."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("original", "tidied", "result", "change"):
        table.add_column(name, justify="right")
    for key, title in rows.items():
        values = [report[stage][key] for stage in ("before", "tidied", "after")]
        if any(v is None for v in values):
            continue
        shown = [f"{v:.3f}" if key == "latency_ms" else f"{v:,}" for v in values]
        change = f"{100 * (values[2] / values[0] - 1):+.1f} %" if values[0] else ""
        table.add_row(title, *shown, change)
    return table


def print_layers(report: Mapping[str, Any], *, budget: float, file: IO[str]) -> None:
    """Per layer how many units are in which state, what proved it, what goes, and why the rest stays.

    Args:
        report: The report's content.
        budget: Seconds of search that were granted.
        file: Where to print.
    """
    out = console(file)
    _print_table(out, report["layers"], whole=not file.isatty())
    units = report["units"]
    out.print(f"{units['removed']} of {units['total']} units can go")
    _print_proofs(out, report, budget)
    if report["kept_because"]:
        out.print("why units stay, most frequent first:")
    for reason, count in report["kept_because"].items():
        out.print(f"  {count:>7}  {reason}", markup=False)


def _print_table(out: Console, layers: Sequence[Mapping[str, Any]], *, whole: bool) -> None:
    """A line of counts per layer, and below it where they come from; names are cut short unless ``whole``."""
    room = out.width - sum(len(name) + 2 for name in COLUMNS)
    names = min(room, max([len("layer"), *(cell_len(_one_line(layer["name"])) for layer in layers)]))
    _print_line(out, set_cell_size("layer", names) + "".join(f"  {name}" for name in COLUMNS))
    for layer in layers:
        name = _one_line(layer["name"])
        if cell_len(name) > names:
            if whole:
                _print_line(out, name)
            name = "" if whole else _elided(name, names)
        counts = (layer["total"], *(layer[state] for state in STATES), layer["total"] - len(layer["kept"]))
        cells = [f"{count or '-':>{len(column) + 2}}" for count, column in zip(counts, COLUMNS, strict=True)]
        _print_line(out, set_cell_size(name, names) + "".join(cells))
        _print_detail(out, "proved by: ", proved_by(layer))
        reasons = (f"{reason} ({count})" for reason, count in layer["kept_because"].items())
        _print_detail(out, "stays because: ", "; ".join(reasons))


def proved_by(layer: Mapping[str, Any]) -> str:
    """Methods, with the number of units that each of them proved."""
    counts = dict(layer["by_method"])
    if not layer["activation"]:
        counts["interval"] -= layer["active"]  # without an activation there is nothing to prove of them
    parts = [f"{method} {count}" for method, count in counts.items() if count > 0]
    words = layer["trust"]["solver"]
    return ", ".join(parts) + (f" ({words} on the solver's word)" if words else "")


def _print_proofs(out: Console, report: Mapping[str, Any], budget: float) -> None:
    """What rests on a solver's word, what is not decided, and what to do about either."""
    words, undecided = report["proof"]["trust"]["solver"], report["units"]["undecided"]
    if words:
        out.print(f"{_units(words)} proved on the solver's word; --trust certified does without", markup=False)
    if not undecided:
        return
    advice = ""
    if report["domain"]["kind"] == "everything":
        advice = " on all inputs; a --domain such as 0:1 may decide them"
    elif report["proof"]["seconds"] >= SPENT * budget:
        advice = f" after {report['proof']['seconds']:.3g} s of search; a larger --budget may decide them"
    out.print(f"{_units(undecided)} undecided{advice}", markup=False)


def _units(count: int) -> str:
    return "1 unit is" if count == 1 else f"{count} units are"


def _print_line(out: Console, text: str) -> None:
    out.print(Text(text, overflow="fold"))


def _print_detail(out: Console, title: str, text: str) -> None:
    """A line below a layer, wrapped at blanks, if there is anything to say."""
    if text:
        for line in textwrap.wrap(title + text, out.width - 2):
            _print_line(out, f"  {line}")


def _one_line(name: str) -> str:
    return " ".join(name.splitlines())


def _elided(name: str, width: int) -> str:
    """A long name with its middle left out."""
    half = (width - 1) // 2
    end = name
    while cell_len(end) > width - 1 - half:
        end = end[1:]
    return f"{set_cell_size(name, half)}…{end}"


def print_operators(model: onnx.ModelProto, *, file: IO[str]) -> None:
    """Operators of the model nothing is known about."""
    counts = Counter(
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for node in model.graph.node
        if operator_for(node.op_type, node.domain) is None
    )
    if counts:
        names = ", ".join(f"{name} ({count})" for name, count in counts.most_common())
        console(file).print(f"opaque operators, left as they are: {names}", markup=False)
