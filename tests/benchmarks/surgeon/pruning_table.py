"""Rows of the benchmark of pruning in a JSONL file, and their means over seeds as Markdown and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .cases import Case
from .references import best_paper, reference

TITLES = {"mlpnet": "MLPNet, MNIST", "resnet": "ResNet-20, CIFAR-10", "transformer": "Transformer, MNIST by rows"}
SAME = ("group", "model", "images", "goal", "method", "labels")
"""What rows of one mean have in common."""
AVERAGED = (
    "accuracy",
    "agreement",
    "cosine",
    "sparsity",
    "macs_left",
    "latency_left",
    "compressed_bytes",
    "seconds",
    "processor_seconds",
)
Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """Rows of a JSONL file; none if there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def append(path: Path, row: Row) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def key_of(row: Row) -> str:
    """The key of the row's case."""
    return Case(**{name: row[name] for name in Case.__dataclass_fields__}).key


def means(rows: Iterable[Row]) -> list[Row]:
    """Means over seeds, with the least and the greatest accuracy, beside published figures."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in SAME), []).append(row)
    return [_mean(found) for found in groups.values()]


def _mean(rows: Sequence[Row]) -> Row:
    first = rows[0]
    accuracies = [row["accuracy"] for row in rows]
    return {
        **{name: first[name] for name in SAME},
        "seeds": len(rows),
        **{name: float(np.mean([row[name] for row in rows])) for name in AVERAGED},
        "least": min(accuracies),
        "greatest": max(accuracies),
        "dense_accuracy": first["dense_accuracy"],
        "weights": first["weights"],
        "threads": first["threads"],
        "published": reference(first["model"], first["method"], first["goal"], first["images"]),
        "best_paper": best_paper(first["model"], first["goal"]),
    }


def markdown(rows: Sequence[Row]) -> str:
    """Tables of means, one per group, model and number of images."""
    found = means(rows)
    lines: list[str] = []
    for place in dict.fromkeys((row["group"], row["model"], row["images"]) for row in found):
        here = [row for row in found if (row["group"], row["model"], row["images"]) == place]
        lines += [*_section(place, here), ""]
    return "\n".join(lines)


def _section(place: tuple[str, str, int], rows: Sequence[Row]) -> list[str]:
    group, model, images = place
    dense = rows[0]["dense_accuracy"]
    threads = "threads of the machine" if rows[0]["threads"] == 0 else "1 thread"
    weights = ", ".join(f"{count:,}" for count in sorted({row["weights"] for row in rows}))
    lines = [
        f"## {TITLES[model]} ({group}): {images:,} calibration images",
        "",
        f"Dense {dense:.2f} %; share of {weights} weights; {threads}. Mean over seeds, with the range.",
        "",
        "| goal | method | accuracy % | published | best paper | agreement % | cosine | zeros % | MACs % | latency % | "
        "kB compressed | CPU s | wall s | seeds |",
        "|---|---|--:|" + "--:|" * 11,
    ]
    order = {row["goal"]: number for number, row in enumerate(rows)}
    for row in sorted(rows, key=lambda row: order[row["goal"]]):
        labels = " with labels" if row["labels"] else ""
        spread = f" ({row['least']:.2f}-{row['greatest']:.2f})" if row["seeds"] > 1 else ""
        cells = [
            row["goal"],
            row["method"] + labels,
            f"{row['accuracy']:.2f}{spread}",
            _figure(row["published"]),
            _figure(row["best_paper"]),
            f"{row['agreement']:.2f}",
            f"{row['cosine']:.4f}",
            f"{100 * row['sparsity']:.2f}",
            f"{100 * row['macs_left']:.1f}",
            f"{100 * row['latency_left']:.0f}",
            f"{row['compressed_bytes'] / 1000:,.0f}",
            f"{row['processor_seconds']:.1f}",
            f"{row['seconds']:.1f}",
            row["seeds"],
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """The means."""
    found = means(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(found[0]) if found else [])
        writer.writeheader()
        writer.writerows(found)
