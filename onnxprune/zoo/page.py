"""The summary of a zoo as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from onnxprune.report.page import Cell, Column, document, number, pill, table, text, tiles
from onnxprune.zoo.finding import is_file
from onnxprune.zoo.job import report_path
from onnxprune.zoo.rows import Row, Status

if TYPE_CHECKING:
    from onnxprune.zoo.summary import Summary

MOST_ROWS = 2000
"""A page with more is slow to open; ``summary.csv`` holds all."""

_TONES = {Status.OPTIMIZED: "good", Status.UNCHANGED: "", Status.TIMED_OUT: "warn", Status.OUT_OF_MEMORY: "warn"}
_COLUMNS = (
    Column("model"),
    Column("status"),
    Column("units removed", numeric=True),
    Column("parameters", numeric=True),
    Column("multiply-adds", numeric=True),
    Column("bytes", numeric=True),
    Column("latency", numeric=True),
    Column("largest difference", numeric=True),
    Column("seconds", numeric=True),
    Column("memory, MB", numeric=True),
    Column("domain"),
    Column("note"),
)


def page(summary: Summary) -> str:
    """A self-contained page: figures of the whole, then one line per model, sortable.

    Of more than `MOST_ROWS` models those that failed come first, then those that lost the most bytes.
    """
    rows, shown = summary.rows, "Each model's name leads to its report. A click on a head sorts."
    if len(rows) > MOST_ROWS:
        rows = sorted(rows, key=_interest)[:MOST_ROWS]
        shown += f" Of {len(summary.rows):,} models these are {MOST_ROWS:,}; summary.csv holds all."
    parts = [
        "<h1>Models optimized by onnxprune</h1>",
        f'<p class="quiet">{escape(summary.folder)}</p>',
        tiles(_figures(summary)),
        *(f"<p>{escape(note)}</p>" for note in summary.notes),
        f'<p class="quiet">{escape(shown)}</p>',
        table("Models", _COLUMNS, (_cells(row) for row in rows)),
    ]
    return document("Zoo summary", "\n".join(parts))


def _interest(row: Row) -> tuple[bool, float]:
    return row.status.good, row.change("bytes") or 0.0


def _figures(summary: Summary) -> list[tuple[str, str]]:
    counts = {name: count for name, count in summary.counts().items() if count or name in ("optimized", "failed")}
    figures = [("models", f"{summary.found:,}"), *((name, f"{count:,}") for name, count in counts.items())]
    totals = summary.totals()
    for figure, name in (("params", "parameters"), ("macs", "multiply-adds"), ("bytes", "bytes")):
        if before := totals["before"][figure]:
            figures.append((f"{name} of all", f"{100 * (totals['after'][figure] / before - 1):+.1f} %"))
    return figures


def _cells(row: Row) -> Sequence[Cell]:
    name = f'<span class="path">{escape(row.path).replace("/", "/<wbr>")}</span>'
    if row.status.good and row.files:
        name = f'<a href="{escape(quote(report_path(row.path)))}">{name}</a>'
    good = row.status.good
    return (
        Cell(name, row.path),
        Cell(pill(row.status.value, _TONES.get(row.status, "bad")), row.status.value),
        number(row.units[1] if good else None),
        *(_change(row, figure) for figure in ("params", "macs", "bytes", "latency_ms")),
        number(row.error, "{:.1e}"),
        number(row.seconds, "{:.1f}"),
        number(row.peak / 1e6 if row.peak else None, "{:,.0f}"),
        text(_domain(row)),
        Cell(f'<div class="reason">{escape(_note(row))}</div>', _note(row)),
    )


def _domain(row: Row) -> str:
    """The domain's texts, of files the names alone."""
    return " ".join(Path(part).name if is_file(part) else part for part in row.domain) or "every finite input"


def _change(row: Row, figure: str) -> Cell:
    change = row.change(figure)
    return number(None if change is None else 100 * change, "{:+.1f} %")


def _note(row: Row) -> str:
    parts = [row.reason, f"the same as {row.same_as}" if row.same_as else "", "ended early" if row.early else ""]
    parts.append("finished before" if row.finished_before else "")
    return "; ".join(part for part in parts if part)
