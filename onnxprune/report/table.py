"""Terminal output: at most 100 columns, plain when it is not a terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import IO, Any

import onnx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxprune.operators import operator_for

WIDTH = 100


def console(file: IO[str] | None = None) -> Console:
    """A console of at most 100 columns."""
    target = file or sys.stdout
    width = min(WIDTH, Console(file=target).width) if target.isatty() else WIDTH
    return Console(file=target, width=width, highlight=False, soft_wrap=False)


def print_summary(
    report: Mapping[str, Any], *, modified: bool, relative: float, written: str | None, layers: bool, file: IO[str]
) -> None:
    """What went, what it brought, how it was checked.

    Args:
        report: The report's content.
        modified: Whether the result differs from the original file.
        relative: Largest measured error as a share of the output range.
        written: Where the result was written, if it was.
        layers: Print the table of layers, too.
        file: Where to print.
    """
    out = console(file)
    out.print(_costs(report))
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
        print_layers(report, file=file)
    if report["kept_because"]:
        reason, count = next(iter(report["kept_because"].items()))
        out.print(f"most of the rest stays because: {reason} ({count} units)", markup=False)
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


def _costs(report: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in ("original", "tidied", "result", "change"):
        table.add_column(name, justify="right")
    rows = {
        "nodes": "nodes",
        "params": "parameters",
        "macs": "multiply-adds",
        "bytes": "bytes",
        "latency_ms": "latency (ms)",
    }
    for key, title in rows.items():
        values = [report[stage][key] for stage in ("before", "tidied", "after")]
        if any(v is None for v in values):
            continue
        shown = [f"{v:.3f}" if key == "latency_ms" else f"{v:,}" for v in values]
        change = f"{100 * (values[2] / values[0] - 1):+.1f} %" if values[0] else ""
        table.add_row(title, *shown, change)
    return table


def print_layers(report: Mapping[str, Any], *, file: IO[str]) -> None:
    """One line per layer: how many units, what is proved, what goes, and why the rest stays."""
    out = console(file)
    whole = not file.isatty()
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", overflow="fold", max_width=28, no_wrap=not whole)
    for name in ("units", "zero", "const", "active", "open", "go"):
        table.add_column(name, justify="right")
    table.add_column("the rest stays because", overflow="fold")
    for layer in report["layers"]:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in layer["kept_because"].items())
        open_units = layer["unstable"] + layer["undecided"]
        counts = (layer["total"], layer["inactive"], layer["constant"], layer["active"], open_units)
        gone = layer["total"] - len(layer["kept"])
        table.add_row(
            Text(layer["name"] if whole else _elided(layer["name"])),
            *(str(n) for n in counts),
            str(gone),
            Text(reasons),
        )
    out.print(table)
    units = report["units"]
    out.print(f"{units['removed']} of {units['total']} units can go")
    if report["kept_because"]:
        out.print("why units stay, most frequent first:")
    for reason, count in report["kept_because"].items():
        out.print(f"  {count:>7}  {reason}", markup=False)


def _elided(name: str, width: int = 28) -> str:
    """A long name with its middle left out."""
    return name if len(name) <= width else f"{name[: width // 2 - 1]}…{name[-(width // 2) :]}"


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
