"""Sections that the pages of several kinds of reports share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.report.page.parts import Cell, Column, number, short, table, text
from onnxprune.report.page.plots import MISSING, can_plot, latency

STAGES = {"before": "original", "tidied": "tidied", "after": "result"}
"""What the three models of a report are called."""
MOST_SHORT = 24
"""Characters of a value that is kept on one line."""


def section(title: str, *parts: str) -> str:
    """A section under a heading; empty parts are left out, and without parts so is the section."""
    present = [part for part in parts if part]
    return "\n".join(["<section>", f"<h2>{escape(title)}</h2>", *present, "</section>"]) if present else ""


def said(sentence: str) -> str:
    """A paragraph of plain text; empty if there is nothing to say."""
    return f"<p>{escape(sentence)}</p>" if sentence else ""


def figure(drawing: str, caption: str) -> str:
    """A drawing above its caption; empty without a drawing. Both are HTML already."""
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>" if drawing else ""


def change(before: float | None, after: float | None) -> float | None:
    """Percent by which a figure changed; None where that cannot be said."""
    return 100 * (after / before - 1) if before and after is not None else None


def costs(report: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Figures of the original, the tidied model and the result side by side; what was not measured is left out.

    Args:
        report: The report's content.
        names: What each figure is called.
    """
    columns = [Column("figure"), *(Column(name, numeric=True) for name in (*STAGES.values(), "change"))]
    rows = []
    for key, name in names.items():
        values = [report[stage][key] for stage in STAGES]
        if None not in values:
            pattern = "{:.3f}" if key == "latency_ms" else "{:,}"
            moved = number(change(values[0], values[2]), "{:+.1f} %")
            rows.append((short(name), *(number(value, pattern) for value in values), moved))
    return table("The model before and after", columns, rows, sortable=False)


def facts(caption: str, rows: Iterable[tuple[str, str]]) -> str:
    """A table of two columns of text."""
    shown = ((text(name), text(value) if len(value) > MOST_SHORT else short(value)) for name, value in rows)
    return table(caption, (Column("what"), Column("value")), shown, sortable=False)


def latencies(times: Mapping[str, NDArray[np.float64]]) -> str:
    """Distribution of the measured latencies; empty where nothing was measured."""
    if not times:
        return ""
    named = {STAGES[stage]: values for stage, values in times.items()}
    quantiles = {"fastest": 0.0, "20 %": 0.2, "median": 0.5, "95 %": 0.95, "slowest": 1.0}
    columns = [Column("model"), Column("runs", numeric=True), *(Column(name, numeric=True) for name in quantiles)]
    rows = [
        (
            text(name),
            number(len(values)),
            *(number(float(np.quantile(values, q)), "{:.4f}") for q in quantiles.values()),
        )
        for name, values in named.items()
    ]
    drawing = figure(latency(named), "Quartiles, 5 to 95 %, and single runs.") if can_plot() else said(MISSING)
    return section(
        "Latency",
        said("Milliseconds per run, the models run in turn. The 20 % quantile is what reports call the latency."),
        f'<div class="plots">{drawing}</div>',
        table("Quantiles of the latency, in milliseconds", columns, rows, sortable=False),
    )


def identity(report: Mapping[str, Any]) -> str:
    """Which model the report is about, and what made it."""
    model = report["model"]
    rows = [
        ("model", model["path"] or "handed over in memory"),
        ("SHA-256", model["sha256"]),
        ("opset", str(model["opset"])),
        ("report schema", str(report["schema"])),
    ]
    return section("About", facts("The original model", rows))


def reasons(caption: str, counts: Mapping[str, int], what: str = "units") -> str:
    """A table of reasons with counts; empty without any."""
    rows = [(text(reason), number(count)) for reason, count in counts.items()]
    columns = (Column("reason"), Column(what, numeric=True))
    return table(caption, columns, rows, sortable=False) if rows else ""


def notes(sentences: Sequence[str]) -> str:
    """What a reader should know besides."""
    return section("Notes", *(said(sentence) for sentence in sentences))


def named(layer: str, detail: str) -> Cell:
    """A layer's name above what it is."""
    return Cell(f"{escape(layer)}<small>{escape(detail)}</small>", layer)
