"""The summary of a zoo on a terminal."""

from __future__ import annotations

import sys
from typing import IO

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from onnxprune.report.table import console
from onnxprune.zoo.rows import Row
from onnxprune.zoo.summary import Summary

MOST_ROWS = 100
"""Larger zoos show what failed only."""
MOST_FAILED = 20
NAME_WIDTH = 36


def print_zoo(summary: Summary, *, every: bool = False, file: IO[str] | None = None) -> None:
    """One line per model, why some failed, and the whole.

    Args:
        summary: What became of the zoo.
        every: List every model, however many there are; otherwise up to `MOST_ROWS`.
        file: Where to print; default: standard output.
    """
    out = console(file or sys.stdout)
    if every or len(summary.rows) <= MOST_ROWS:
        out.print(_table(summary))
    failed = summary.failed
    for row in failed if every else failed[:MOST_FAILED]:
        out.print(f"{row.status.value}: {row.path}: {row.reason}", markup=False)
    if len(failed) > MOST_FAILED and not every:
        out.print(f"... and {len(failed) - MOST_FAILED} more; summary.csv lists all")
    for note in summary.notes:
        out.print(f"note: {note}", markup=False)
    totals = summary.totals()
    changes = [
        f"{name} {100 * (totals['after'][figure] / totals['before'][figure] - 1):+.1f} %"
        for figure, name in (("params", "parameters"), ("macs", "multiply-adds"), ("bytes", "bytes"))
        if totals["before"][figure]
    ]
    if changes:
        out.print(f"all together: {', '.join(changes)}")
    counts = ", ".join(f"{count:,} {name}" for name, count in summary.counts().items() if count)
    out.print(f"{summary.found:,} models in {summary.seconds:.1f} s: {counts}")


def _table(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for name in ("removed", "params", "macs", "latency", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in summary.rows:
        table.add_row(escape(_end(row.path)), row.status.value, *_figures(row))
    return table


def _end(path: str) -> str:
    """The end of a long path, which tells models apart."""
    return path if cell_len(path) <= NAME_WIDTH else f"...{path[3 - NAME_WIDTH :]}"


def _figures(row: Row) -> list[str]:
    seconds = "before" if row.finished_before else f"{row.seconds:.1f}"
    if not row.status.good:
        return ["", "", "", "", seconds]
    changes = [row.change(figure) for figure in ("params", "macs", "latency_ms")]
    shown = ["-" if change is None else f"{100 * change:+.1f} %" for change in changes]
    return [f"{row.units[1]:,}", *shown, seconds]
