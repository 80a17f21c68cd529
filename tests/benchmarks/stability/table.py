"""Rows of the table, what they are compared with, and whether they contradict each other."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

CODES = {"i": "inactive", "a": "active", "c": "constant", "u": "unstable", "?": "undecided"}
STABLE = frozenset("iac")
Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Row:
    """One method on one model and domain; ``status``: ok, timeout, or what went wrong.

    ``unproved`` counts entries of pre-activations (pixels of a channel one by one) that nothing is proved about,
    ``open`` those of them whose unit is undecided. ``layers`` holds per ReLU its tensor and a code per unit.
    """

    model: str
    domain: str
    method: str
    budget: str
    status: str
    seconds: float | None = None
    peak_mb: float | None = None
    units: int = 0
    inactive: int = 0
    active: int = 0
    constant: int = 0
    unstable: int = 0
    undecided: int = 0
    entries: int = 0
    unproved: int = 0
    open: int = 0
    stages: str = ""
    layers: tuple[Mapping[str, Any], ...] = ()
    figures: Mapping[str, Any] | None = None

    @property
    def key(self) -> Key:
        """Rows with equal keys replace each other."""
        return self.model, self.domain, self.method, self.budget

    @property
    def stable(self) -> int:
        """Units proved inactive, active or constant."""
        return self.inactive + self.active + self.constant


def row_of(key: Key, result: Mapping[str, Any], status: str = "ok") -> Row:
    """The row of a worker's result."""
    layers = tuple(result.get("layers", ()))
    counts = {name: sum(layer["states"].count(code) for layer in layers) for code, name in CODES.items()}
    sums = {name: sum(layer.get(name, 0) for layer in layers) for name in ("entries", "unproved", "open")}
    model, domain, method, budget = key
    return Row(
        model=model,
        domain=domain,
        method=method,
        budget=budget,
        status=result.get("error", status),
        seconds=result.get("seconds"),
        peak_mb=result.get("peak_mb"),
        units=sum(counts.values()),
        stages=" ".join(result.get("stages", ())),
        layers=layers,
        figures=result.get("figures"),
        **counts,
        **sums,
    )


def append(row: Row, path: Path) -> None:
    """Write a row to the end of the file."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        if new:
            writer.writeheader()
        content = asdict(row)
        content |= {name: json.dumps(content[name]) for name in ("layers", "figures")}
        writer.writerow(content)


def read(path: Path) -> dict[Key, Row]:
    """Rows of a file, the last of equal keys."""
    found: dict[Key, Row] = {}
    if path.exists():
        csv.field_size_limit(2**27)
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                row = _row(line)
                found[row.key] = row
    return found


def _row(line: Mapping[str, str]) -> Row:
    values: dict[str, Any] = dict(line)
    for f in fields(Row):
        text = line[f.name]
        if f.type == "int":
            values[f.name] = int(text)
        elif f.type == "float | None":
            values[f.name] = float(text) if text else None
    values["layers"] = tuple(json.loads(line["layers"]))
    values["figures"] = json.loads(line["figures"])
    return Row(**values)


@dataclass(frozen=True)
class Peer:
    """What auto_LiRPA left undecided per layer."""

    undecided: tuple[int, ...]
    units: tuple[int, ...]
    widths: tuple[float, ...]
    seconds: float
    peak_mb: float


Baseline = dict[tuple[str, str], dict[str, Peer]]


def read_baseline(path: Path) -> Baseline:
    """auto_LiRPA's float32 figures by (model, domain) and method; incomplete runs are left out of the methods."""
    lines: dict[tuple[str, str], dict[str, list[dict[str, str]]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            methods = lines.setdefault((line["model"], line["domain"]), {})
            if line["dtype"] == "float32":
                methods.setdefault(line["method"], []).append(line)
    found: Baseline = {}
    for key, methods in lines.items():
        found[key] = {}
        for method, rows in methods.items():
            if all(row["status"] == "ok" for row in rows):
                found[key][method] = _peer(rows)
    return found


def _peer(rows: Sequence[Mapping[str, str]]) -> Peer:
    return Peer(
        tuple(int(row["undecided"]) for row in rows),
        tuple(int(row["units"]) for row in rows),
        tuple(float(row["mean_width"] or "nan") for row in rows),
        max(float(row["method_time_s"]) for row in rows),
        max(float(row["peak_rss_mb"]) for row in rows),
    )


@dataclass(frozen=True)
class Published:
    """Seconds of the published runs of one cell (architecture and l1); ``timeouts`` of them hit the limit."""

    runs: int
    timeouts: int
    least: float
    middle: float


def published(path: Path, dataset: str, architecture: str, l1: float, method: str = "new") -> Published | None:
    """The cell of the table of published runs; None where it has none."""
    times, late = [], 0
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            same = line["dataset"] == dataset and line["arch"] == architecture and abs(float(line["l1"]) - l1) < 1e-9
            if same and line[f"{method}_time_s"]:
                times.append(float(line[f"{method}_time_s"]))
                late += line[f"{method}_timeout"] == "True"
    return Published(len(times), late, min(times), median(times)) if times else None


def architecture(described: Path) -> tuple[str, float] | None:
    """Hidden sizes and l1 weight of a model, from the file beside it."""
    about = json.loads(described.read_text(encoding="utf-8"))
    if "l1" not in about:
        return None
    return "-".join(map(str, about["architecture"][1:-1])), float(about["l1"])


@dataclass(frozen=True)
class Truth:
    """What is known of a layer: units that are stable, those that may be, and whether the lists are complete."""

    active: frozenset[int]
    inactive: frozenset[int]
    maybe: frozenset[int] = frozenset()
    proved: bool = True
    """False: the lists only limit what can be stable (units that did not switch on the training data)."""


def read_truth(described: Path) -> list[Truth]:
    """Ground truth beside a model, layer by layer; empty where there is none."""
    if not described.exists():
        return []
    about = json.loads(described.read_text(encoding="utf-8"))
    layers = about.get("our_check", {}).get("per_layer", about.get("layers", []))
    if isinstance(layers, dict):
        ordered = [layers[key] for key in sorted(layers, key=int)]
        return [
            Truth(frozenset(at["stably_active"]), frozenset(at["stably_inactive"]), frozenset(at["undecided"]))
            for at in ordered
        ]
    return [
        Truth(frozenset(at["always_active_idx"]), frozenset(at["never_active_idx"]), proved=False)
        for at in layers
        if "always_active_idx" in at
    ]


def against_truth(row: Row, truth: Sequence[Truth]) -> list[str]:
    """Units whose state the ground truth refutes."""
    found = []
    for number, (layer, known) in enumerate(zip(row.layers, truth, strict=False)):
        for unit, code in enumerate(layer["states"]):
            expected = _expected(unit, code, known)
            if expected:
                found.append(f"{row.method}: layer {number + 1} unit {unit} is {CODES[code]}, the truth is {expected}")
    return found


def _expected(unit: int, code: str, known: Truth) -> str:
    """The state the truth demands, where it is another one."""
    if code == "?" or unit in known.maybe:
        return ""
    allowed = {"a": unit in known.active, "i": unit in known.inactive, "c": unit in known.active}
    if code == "u":
        stable = known.proved and (unit in known.active or unit in known.inactive)
        return "stable" if stable else ""
    return "" if allowed[code] else "another"


def missed(row: Row, truth: Sequence[Truth]) -> int:
    """Units whose state the ground truth knows and the row leaves undecided."""
    return sum(
        code == "?" and unit not in known.maybe
        for layer, known in zip(row.layers, truth, strict=False)
        if known.proved
        for unit, code in enumerate(layer["states"])
    )


def contradictions(rows: Sequence[Row]) -> list[str]:
    """States of one method that another refutes, by its proof or by its witness."""
    found = []
    for number, one in enumerate(rows):
        for other in rows[number + 1 :]:
            for (first, second), unit in _shared(one, other):
                if first != second and "?" not in (first, second) and {first, second} != {"a", "c"}:
                    where = f"{one.method} {CODES[first]}, {other.method} {CODES[second]}"
                    found.append(f"{one.model} {one.domain} {unit}: {where}")
    return found


def _shared(one: Row, other: Row) -> Iterator[tuple[tuple[str, str], str]]:
    """States of the units both rows speak of: layers are told apart by their tensors, else by their order."""
    named = {layer["tensor"]: layer["states"] for layer in other.layers}
    same = len(one.layers) == len(other.layers)
    for number, layer in enumerate(one.layers):
        states = named.get(layer["tensor"], other.layers[number]["states"] if same else "")
        if len(states) == len(layer["states"]):
            for unit, pair in enumerate(zip(layer["states"], states, strict=True)):
                yield pair, f"{layer['tensor']}[{unit}]"


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [list(header), ["---"] * len(header), *([_text(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _text(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "**NO**"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
