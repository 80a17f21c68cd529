"""Rows of the benchmark, as CSV, Markdown and a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

NUMBERS = ("montufar", "serra", "empirical", "found", "count", "estimate", "lower95")
COLOURS = {"empirical": "#e15759", "serra": "#f28e2b", "montufar": "#bab0ac", "exact": "#4e79a7"}
COLOURS |= {"probe": "#59a14f", "parity": "#b07aa1"}


@dataclass(frozen=True)
class Row:
    """One method on one network; numbers are None where the method has none.

    Attributes:
        split: Units per layer, such as "4-18".
        method: exact, mip, probe, parity or relucent.
        status: ok, time (ended early), refused, or what went wrong.
        montufar: Upper bound.
        serra: Upper bound.
        empirical: Upper bound.
        found: Regions met.
        count: Regions, where all were met.
        estimate: Unbiased estimate.
        lower95: Lower bound with 95 %.
        seconds: Wall time.
    """

    split: str
    method: str
    status: str = "ok"
    montufar: float | None = None
    serra: float | None = None
    empirical: float | None = None
    found: float | None = None
    count: float | None = None
    estimate: float | None = None
    lower95: float | None = None
    seconds: float | None = None


def row_of(split: str, method: str, report: Any) -> Row:
    """A row from a report of :func:`onnxprune.count_regions`."""
    bounds, guess = report["bounds"], report["estimate"] or {}
    early = any("time ended" in note for note in report.notes)
    searched = method in ("exact", "mip")
    return Row(
        split,
        method,
        "time" if early else "ok",
        bounds["montufar"],
        bounds["serra"],
        bounds["empirical"],
        report["lower"] if searched else None,
        report["exact"] if searched else None,
        guess.get("value"),
        guess.get("lower95"),
        report["seconds"],
    )


def write_csv(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        writer.writeheader()
        writer.writerows({k: "" if v is None else v for k, v in asdict(row).items()} for row in rows)


def read_csv(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [_row(entry) for entry in csv.DictReader(file)]


def _row(entry: dict[str, str]) -> Row:
    values = {name: float(entry[name]) if entry[name] else None for name in (*NUMBERS, "seconds")}
    return Row(entry["split"], entry["method"], entry["status"], **values)


def markdown(rows: Sequence[Row]) -> str:
    """A table, and whether counts agree."""
    lines = [
        "| units | method | status | regions | found | estimate | at least (95 %) | Montufar | Serra | empirical | s |"
    ]
    lines.append("|---|---|---|" + "--:|" * 8)
    for row in rows:
        cells = [row.count, row.found, row.estimate, row.lower95, row.montufar, row.serra, row.empirical]
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        lines.append(f"| {row.split} | {row.method} | {row.status} | {' | '.join(map(_text, cells))} | {seconds} |")
    return "\n".join([*lines, "", *verdicts(rows)]) + "\n"


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What the methods say about each other."""
    found = []
    for split in dict.fromkeys(row.split for row in rows):
        here = [row for row in rows if row.split == split]
        counts = {row.method: row.count for row in here if row.count is not None}
        if len(counts) > 1:
            same = len(set(counts.values())) == 1
            told = ", ".join(f"{method} {_text(value)}" for method, value in counts.items())
            found.append(f"- {split}: {'counts agree' if same else 'COUNTS DIFFER'} ({told})")
        exact = counts.get("exact")
        for row in here:
            if exact is not None and row.lower95 is not None and row.lower95 > exact:
                found.append(f"- {split}: the 95 % bound of {row.method} is wrong ({_text(row.lower95)})")
    return found


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.2e}"


def plot(rows: Sequence[Row], path: Path) -> None:
    """Upper bounds, counts and lower bounds per split, on a logarithmic axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 # an optional extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    splits = list(dict.fromkeys(row.split for row in rows))
    figure = Figure(figsize=(9, 5), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, kind, method in (
        ("montufar", "v", "exact"),
        ("serra", "v", "exact"),
        ("empirical", "v", "exact"),
        ("count", "o", "exact"),
        ("estimate", "x", "probe"),
        ("lower95", "^", "probe"),
        ("lower95", "^", "parity"),
    ):
        points = [(splits.index(r.split), getattr(r, name)) for r in rows if r.method == method and getattr(r, name)]
        label = {"count": "regions (exact)", "estimate": "estimate", "lower95": f"{method}, at least (95 %)"}.get(
            name, f"{name}, at most"
        )
        colour = COLOURS.get(name, COLOURS[method])
        axes.plot([x for x, _ in points], [y for _, y in points], kind, label=label, color=colour, markersize=7)
    axes.set_yscale("log")
    axes.set_xticks(range(len(splits)), splits)
    axes.set_xlabel("units per layer")
    axes.set_ylabel("linear regions over [0, 1]^784")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
