"""The result table: rows, CSV in and out, Markdown with a summary on top."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median

ORIGINAL = "original"
WRONG = 1e-3
"""A relative difference above this is a wrong answer, unless the original is that sensitive to rounding."""
OURS = ("onnxprune", "onnxprune-size")


@dataclass(frozen=True)
class Row:
    """One tool on one model; the tool ``original`` is the model as found. None: not measured, or no meaning.

    ``status``: ok, wrong, crashed, timeout, no load, no run, unchecked (the original itself does not run).
    """

    model: str
    tool: str
    status: str
    version: str = ""
    domain: str = ""
    nodes: int | None = None
    params: int | None = None
    macs: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    latency_ms: float | None = None
    latency_ratio: float | None = None
    max_abs_diff: float | None = None
    max_rel_diff: float | None = None
    loads: bool | None = None
    mutated: bool | None = None
    metadata: bool | None = None
    message: str = ""

    def is_wrong(self, original: Row) -> bool:
        """Whether the answers differ by more than rounding explains.

        Above ``WRONG``, and above ten times the difference the original shows against itself with ONNX Runtime's
        optimizations on (a saturated output has a tiny range). More than 0.1 is never excused.
        """
        noise = min(10 * (original.max_rel_diff or 0.0), 0.1)
        return (self.max_rel_diff or 0.0) > max(WRONG, noise)

    @property
    def counts(self) -> bool:
        """Whether the result can be used: it loads, and its answers are right as far as they were checked."""
        return self.status in ("ok", "unchecked", ORIGINAL)


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """One line per row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _to_text(value) for name, value in asdict(row).items()})


def read_csv(path: Path) -> list[Row]:
    """Rows of an earlier run; none when there was none."""
    if not path.exists():
        return []
    kinds = {field.name: str(field.type) for field in fields(Row)}
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(**{name: _from_text(text, kinds[name]) for name, text in line.items()})  # type: ignore[arg-type] # by kind
            for line in csv.DictReader(file)
        ]


def _to_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _from_text(text: str, kind: str) -> object:
    if kind == "str":
        return text
    if not text:
        return None
    readers: dict[str, Callable[[str], object]] = {"int": int, "float": float, "bool": "yes".__eq__}
    return readers[kind.removesuffix(" | None")](text)


def merge(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Rows of both, new ones replacing old ones; sorted by model, the original first."""
    found = {(row.model, row.tool): row for row in (*old, *new)}
    return sorted(found.values(), key=lambda r: (r.model, r.tool != ORIGINAL, r.tool in OURS, r.tool))


def markdown(rows: Sequence[Row]) -> str:
    """Summary, comparison and full table."""
    return "\n".join([*_summary(rows), *_comparison(rows), *_failures(rows), *_full(rows), ""])


def _summary(rows: Sequence[Row]) -> list[str]:
    originals = {row.model: row for row in rows if row.tool == ORIGINAL}
    tools = dict.fromkeys(row.tool for row in rows if row.tool != ORIGINAL)
    lines = [
        "# onnxprune and its peers, side by side",
        "",
        f"{len(originals)} models. Written by `python -m tests.benchmarks.peers`; its README.md says what is "
        "measured and how.",
        "A failed or wrong result counts as nothing removed. Latency: median over models, result / original.",
        "",
        "| tool | version | models | loaded | wrong | crashed | timeouts | params removed | nodes removed "
        "| MACs removed | latency | input mutated | metadata lost | seconds, median | seconds, max |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for tool in tools:
        mine = [row for row in rows if row.tool == tool and row.model in originals]
        count = {s: sum(r.status == s for r in mine) for s in ("wrong", "crashed", "timeout")}
        removed = [_removed(mine, originals, what) for what in ("params", "nodes", "macs")]
        ratios = [r.latency_ratio for r in mine if r.counts and r.latency_ratio is not None]
        seconds = [r.seconds for r in mine if r.seconds is not None]
        cells = [
            tool,
            next((r.version for r in mine if r.version), ""),
            len(mine),
            sum(r.loads is True for r in mine),
            *count.values(),
            *(f"{share:.2f} %" for share in removed),
            f"{median(ratios):.3f}" if ratios else "",
            sum(r.mutated is True for r in mine),
            sum(r.metadata is False for r in mine),
            f"{median(seconds):.2f}" if seconds else "",
            f"{max(seconds):.2f}" if seconds else "",
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def _removed(rows: Iterable[Row], originals: dict[str, Row], what: str) -> float:
    """Percentage of nodes, params or macs removed, summed over models where both numbers are known."""
    before = after = 0
    for row in rows:
        first = getattr(originals[row.model], what)
        last = getattr(row, what) if row.counts else first
        if first is not None and last is not None:
            before, after = before + first, after + last
    return 100 * (before - after) / before if before else 0.0


def params_removed(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Parameters removed per model and tool, 0 for a result that does not count."""
    rows = list(rows)
    before = {row.model: row.params for row in rows if row.tool == ORIGINAL}
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        first = before.get(row.model)
        if row.tool != ORIGINAL and first is not None:
            last = row.params if row.counts and row.params is not None else first
            found.setdefault(row.model, {})[row.tool] = first - last
    return found


def _comparison(rows: Sequence[Row]) -> list[str]:
    """On how many models onnxprune removed strictly more parameters than every peer, and where it did not."""
    lines = ["", "## Parameters: onnxprune against the best peer", ""]
    for name in OURS:
        runs = {model: tools for model, tools in params_removed(rows).items() if name in tools}
        if not runs:
            continue
        touched = {model: tools for model, tools in runs.items() if max(tools.values()) > 0}
        best = {m: max([0, *(v for t, v in tools.items() if t not in OURS)]) for m, tools in touched.items()}
        more = sum(tools[name] > best[model] for model, tools in touched.items())
        lines.append(
            f"* `{name}` removed strictly more than every peer on {more} of the {len(touched)} models "
            f"from which any tool removed a parameter ({len(runs)} models in all)."
        )
        for model, tools in touched.items():
            if tools[name] < best[model]:
                winner = max((t for t in tools if t not in OURS), key=lambda t: tools[t])
                lines.append(f"    * less than {winner} on {model}: {tools[name]:,} against {best[model]:,}")
    return lines


def _failures(rows: Iterable[Row]) -> list[str]:
    bad = [row for row in rows if not row.counts]
    lines = [
        "",
        "## Failures",
        "",
        "| model | tool | status | relative difference | message |",
        "|---|---|---|--:|---|",
    ]
    for row in bad:
        message = row.message.replace("|", "\\|")
        lines.append(f"| {row.model} | {row.tool} | {row.status} | {_cell(row.max_rel_diff)} | {message} |")
    return lines if bad else []


def _full(rows: Iterable[Row]) -> list[str]:
    names = [field.name for field in fields(Row) if field.name not in ("version", "message")]
    lines = ["", "## All results", "", "| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        values = asdict(row)
        lines.append("| " + " | ".join(_cell(values[name]) for name in names) + " |")
    return lines


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _to_text(value)
