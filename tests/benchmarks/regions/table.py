"""Rows of the benchmark, as CSV and Markdown."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

NUMBERS = ("montufar", "serra", "empirical", "found", "count", "estimate", "lower95")


@dataclass(frozen=True)
class Row:
    """One method on one network; numbers are None where the method has none.

    Attributes:
        split: Units per layer, such as "4-18".
        method: exact, mip, probe, parity or relucent.
        status: ok, time (ended early), refused, or what went wrong.
        seed: Of the training.
        montufar: Upper bound.
        serra: Upper bound.
        empirical: Upper bound.
        found: Regions met.
        count: Regions, where all were met.
        estimate: Unbiased estimate.
        lower95: Lower bound with 95 %.
        seconds: Wall time.
        cpu: Processor time.
    """

    split: str
    method: str
    status: str = "ok"
    seed: int = 0
    montufar: float | None = None
    serra: float | None = None
    empirical: float | None = None
    found: float | None = None
    count: float | None = None
    estimate: float | None = None
    lower95: float | None = None
    seconds: float | None = None
    cpu: float | None = None


def row_of(split: str, seed: int, method: str, report: Any, cpu: float | None = None) -> Row:
    """A row from a report of :func:`onnxprune.count_regions`."""
    bounds, guess = report["bounds"], report["estimate"] or {}
    early = any("time ended" in note for note in report.notes)
    searched = method in ("exact", "mip")
    return Row(
        split,
        method,
        "time" if early else "ok",
        seed,
        bounds["montufar"],
        bounds["serra"],
        bounds["empirical"],
        report["lower"] if searched else None,
        report["exact"] if searched else None,
        guess.get("value"),
        guess.get("lower95"),
        report["seconds"],
        cpu,
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
    values = {name: float(entry[name]) if entry[name] else None for name in (*NUMBERS, "seconds", "cpu")}
    return Row(entry["split"], entry["method"], entry["status"], int(entry["seed"]), **values)


def markdown(rows: Sequence[Row]) -> str:
    """Per split over all seeds; counters side by side on the first seed; and whether they agree."""
    lines = [
        "| units | networks | regions, median (range) | empirical | Serra | Montufar | estimate | probe, at least "
        "| parity, at least | CPU s exact | CPU s probe | CPU s parity |",
        "|---|--:|---|" + "--:|" * 9,
    ]
    for split in dict.fromkeys(row.split for row in rows):
        here = [row for row in rows if row.split == split]
        by = {method: [row for row in here if row.method == method] for method in ("exact", "probe", "parity")}
        cells = [split, str(len({row.seed for row in here})), _spread(row.count for row in by["exact"])]
        cells += [_middle(getattr(row, name) for row in here) for name in ("empirical", "serra", "montufar")]
        cells += [_middle(row.estimate for row in by["probe"])]
        cells += [_middle(row.lower95 for row in by[method]) for method in ("probe", "parity")]
        cells += [_seconds(row.cpu for row in by[method]) for method in by]
        lines.append(f"| {' | '.join(cells)} |")
    counters = [row for row in rows if row.method in ("exact", "mip", "relucent") and row.seed == rows[0].seed]
    lines += ["", "| units | counter | status | regions | found | CPU s |", "|---|---|---|--:|--:|--:|"]
    for row in counters:
        seconds = "" if row.cpu is None else f"{row.cpu:.2f}"
        lines.append(
            f"| {row.split} | {row.method} | {row.status} | {_text(row.count)} | {_text(row.found)} | {seconds} |"
        )
    return "\n".join([*lines, "", *verdicts(rows)]) + "\n"


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What the methods say about each other."""
    found, bounds, wrong = [], 0, 0
    for split, seed in dict.fromkeys((row.split, row.seed) for row in rows):
        here = [row for row in rows if (row.split, row.seed) == (split, seed)]
        counts = {row.method: row.count for row in here if row.count is not None}
        if len(counts) > 1:
            same = len(set(counts.values())) == 1
            told = ", ".join(f"{method} {_text(value)}" for method, value in counts.items())
            found.append(f"- {split}: {'counts agree' if same else 'COUNTS DIFFER'} ({told})")
        exact = counts.get("exact")
        for row in here:
            if exact is None:
                continue
            if row.lower95 is not None:
                bounds, wrong = bounds + 1, wrong + (row.lower95 > exact)
                if row.lower95 > exact:
                    found.append(f"- {split}: the 95 % bound of {row.method} is wrong ({_text(row.lower95)})")
            if row.empirical is not None and not exact <= row.empirical <= (row.serra or row.empirical):
                found.append(f"- {split}: UPPER BOUNDS OUT OF ORDER")
    if bounds:
        found.append(f"- {bounds - wrong} of {bounds} bounds with 95 % hold")
    return found


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _spread(values: Iterable[float | None]) -> str:
    known = _known(values)
    if not known:
        return ""
    ends = "" if len(known) == 1 else f" ({_text(min(known))} to {_text(max(known))}, {len(known)} counted)"
    return f"{_text(statistics.median(known))}{ends}"


def _middle(values: Iterable[float | None]) -> str:
    known = _known(values)
    return _text(statistics.median(known)) if known else ""


def _seconds(values: Iterable[float | None]) -> str:
    known = _known(values)
    return f"{statistics.median(known):.2f}" if known else ""


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.2e}"
