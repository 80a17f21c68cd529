"""Pictures of the benchmark: what is known about the regions of each split of the units."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .table import Row

SERIES = (
    ("montufar", "exact", "v", "#bab0ac", "Montufar, at most"),
    ("serra", "exact", "v", "#f28e2b", "Serra 2018, at most"),
    ("empirical", "exact", "v", "#e15759", "Serra 2020, at most"),
    ("count", "exact", "o", "#4e79a7", "regions (exact)"),
    ("estimate", "probe", "x", "#59a14f", "estimate"),
    ("lower95", "probe", "^", "#8cd17d", "random descents, at least (95 %)"),
    ("lower95", "parity", "^", "#b07aa1", "parity rows, at least (95 %)"),
)
"""Field, method, marker, colour and label."""


def plot(rows: Sequence[Row], path: Path) -> None:
    """Bounds, counts and estimates per split, on a logarithmic axis: medians of the networks, bars from end to end."""
    splits = list(dict.fromkeys(row.split for row in rows))
    figure, axes = _axes()
    for place, (name, method, marker, colour, label) in enumerate(SERIES):
        points = []
        for number, split in enumerate(splits):
            here = [row for row in rows if (row.split, row.method) == (split, method)]
            values = [float(v) for row in here if (v := getattr(row, name)) is not None]
            if values:
                points.append((number + 0.09 * (place - 3), statistics.median(values), min(values), max(values)))
        if points:
            x, middle, low, high = zip(*points, strict=True)
            bars = [
                [m - e for m, e in zip(middle, low, strict=True)],
                [e - m for m, e in zip(middle, high, strict=True)],
            ]
            axes.errorbar(x, middle, bars, fmt=marker, color=colour, label=label, markersize=6, elinewidth=1, capsize=2)
    axes.set_yscale("log")
    axes.set_xticks(range(len(splits)), splits)
    axes.set_xlabel("units per layer")
    axes.set_ylabel("linear regions over [0, 1]^784")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path)


def plot_networks(rows: Sequence[Row], path: Path) -> None:
    """Every network by itself: what is proved and estimated against its exact count."""
    counts = {(r.split, r.seed): r.count for r in rows if r.method == "exact" and r.count is not None}
    figure, axes = _axes()
    for name, method, marker, colour, label in SERIES:
        if name == "count":
            continue
        pairs = [
            (counts[r.split, r.seed], float(value))
            for r in rows
            if r.method == method and (r.split, r.seed) in counts and (value := getattr(r, name)) is not None
        ]
        axes.plot([x for x, _ in pairs], [y for _, y in pairs], marker, color=colour, label=label, markersize=5, ls="")
    ends = [min(counts.values(), default=1.0), max(counts.values(), default=1.0)]
    axes.plot(ends, ends, color="#4e79a7", lw=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("linear regions (exact)")
    axes.set_ylabel("what is said about them")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path)


def _axes() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 # an optional extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 5), dpi=110, layout="tight")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
