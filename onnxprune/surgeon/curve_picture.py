"""The picture of a curve: quality, size and latency over what was pruned."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from onnxprune.errors import EnvironmentFailure

AXES = {"sparsity": "share of the weights that is zero", "macs": "share of the multiply-adds that is left"}
BLUE, GREY = "#4e79a7", "#9a9a9a"


def picture(name: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw a curve as PNG.

    Args:
        name: What is varied: ``sparsity`` or ``macs``.
        rows: Figures per point.

    Raises:
        EnvironmentFailure: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 # an optional extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise EnvironmentFailure(
            "Drawing needs matplotlib.", hint="Install it: pip install 'onnxprune[plots]'."
        ) from None
    levels = [row["asked"] for row in rows]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    title, values, dense = _quality(rows)
    sizes = [None if row["compressed_bytes"] is None else row["compressed_bytes"] / 1000 for row in rows]
    panels: list[tuple[str, Sequence[float | None], Sequence[float] | None]] = [
        (title, values, dense),
        ("compressed size (kB)", sizes, None),
        ("latency (ms)", [row["latency_ms"] for row in rows], [row["original_latency_ms"] for row in rows]),
    ]
    for panel, (label, figures, reference) in zip(axes, panels, strict=True):
        points = [(x, y) for x, y in zip(levels, figures, strict=True) if y is not None]
        panel.plot([x for x, _ in points], [y for _, y in points], marker="o", color=BLUE, label="pruned")
        if reference is not None:
            panel.plot(levels, reference, linestyle="--", color=GREY, label="original")
            panel.legend(frameon=False)
        if label.startswith(("compressed", "latency")):
            panel.set_ylim(bottom=0)
        panel.set_xlabel(AXES[name])
        panel.set_title(label, fontsize=11)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        if name == "macs":
            panel.invert_xaxis()  # from mild to strong, as for sparsity
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _quality(rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[float], list[float] | None]:
    """The figure that says most of those there are, and that of the original."""
    if rows[0]["accuracy"] is not None:
        return "accuracy (%), held-out", [r["accuracy"] for r in rows], [r["dense_accuracy"] for r in rows]
    if rows[0]["agreement"] is not None:
        return "same class as the original (%)", [100 * r["agreement"] for r in rows], None
    return "relative error of the outputs", [r["relative_error"] for r in rows], None
