"""Terminal output of a pruning run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from onnxprune.report.table import ROWS, console, cost_table

if TYPE_CHECKING:
    from onnxprune.surgeon.curve import Curve

FIGURES = {
    "nodes": "nodes",
    "params": "parameters",
    "nonzero": "nonzero",
    "macs": "multiply-adds",
    "bytes": "bytes",
    "compressed_bytes": "bytes, compressed",
    "latency_ms": ROWS["latency_ms"],
}


def print_pruned(report: Mapping[str, Any], *, written: str | None, layers: bool, file: IO[str]) -> None:
    """What went, what it brought, and how far the outputs moved.

    Args:
        report: The report's content.
        written: Where the result was written, if it was.
        layers: Print the table of layers, too.
        file: Where to print.
    """
    out = console(file)
    out.print(cost_table(report, FIGURES))
    weights = report["weights"]
    gone = f"{weights['zeros']:,} of {weights['total']:,} weights are zero ({weights['sparsity']:.1%})"
    units = f", {report['removed_units']} units removed" if report["removed_units"] else ""
    _say(out, f"{gone}{units}; method {report['method']}, {report['steps']} steps")
    if layers:
        out.print(_layers(report))
    elif report["kept"]:
        name, reason = next(iter(report["kept"].items()))
        more = f", and {len(report['kept']) - 1} more layers" if len(report["kept"]) > 1 else ""
        _say(out, f"kept as it was: {name} ({reason}){more}")
    if report["latency_budget"]:
        budget = report["latency_budget"]
        _say(out, f"{budget['asked']:.0%} of the latency: {budget['macs']:.0%} of the multiply-adds")
    if report["blocks"]:
        _say(out, _blocks_line(report["blocks"]))
    _say(out, quality_line(report))
    _say(out, report["speed"])
    for note in report["notes"]:
        _say(out, f"note: {note}")
    _say(out, "changes the function: APPROXIMATE")
    if written:
        _say(out, f"written: {written}")


def _blocks_line(blocks: Sequence[Mapping[str, Any]]) -> str:
    """How far from best the selection is in the blocks that were proved, relative to its own cost there."""
    proved = [block for block in blocks if block["bound"] is not None]
    size = max((abs(block["chosen"]) for block in proved), default=0.0) or 1.0
    best = sum(block["chosen"] - block["bound"] <= 1e-6 * size for block in proved)
    most = max(((block["chosen"] - block["bound"]) / size for block in proved), default=0.0)
    return f"blocks of {blocks[0]['weights']} weights: {best} of {len(blocks)} proved best, gap at most {most:.1%}"


def quality_line(report: Mapping[str, Any]) -> str:
    """How far the outputs moved, on samples that were not fitted."""
    found = report["quality"]
    parts = [f"relative error {found['relative_error']:.3g}", f"cosine {found['cosine']:.4f}"]
    if "agreement" in found:
        parts.append(f"same class {found['agreement']:.1%}")
    if "accuracy" in found:
        parts.append(f"accuracy {found['accuracy']:.2f} % (was {found['dense_accuracy']:.2f} %)")
    if "metric" in found:
        parts.append(f"metric {found['metric']:.4g} (was {found['dense_metric']:.4g})")
    return f"on {found['samples']} held-out samples: {', '.join(parts)}"


def _layers(report: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", overflow="fold")
    for name in ("weights", "zero", "sparsity"):
        table.add_column(name, justify="right")
    table.add_column("", overflow="fold")
    for layer in report["layers"]:
        table.add_row(layer["name"], f"{layer['weights']:,}", f"{layer['zeros']:,}", f"{layer['sparsity']:.1%}", "")
    for name, reason in report["kept"].items():
        table.add_row(name, "", "", "", f"kept: {reason}")
    return table


def _say(out: Console, text: str) -> None:
    out.print(text, markup=False)


def print_curve(curve: Curve, *, folder: str, file: IO[str]) -> None:
    """A line per point of a curve.

    Args:
        curve: The points.
        folder: Where they were written.
        file: Where to print.
    """
    out = console(file)
    rows = curve.rows()
    quality = next(q for q in ("accuracy", "agreement", "relative_error") if rows[0][q] is not None)
    shown = {
        "asked": ("sparsity" if curve.name == "sparsity" else "share left", "{:.4g}"),
        quality: (quality.replace("_", " "), "{:.2f}" if quality == "accuracy" else "{:.4f}"),
        "nonzero": ("nonzero", "{:,}"),
        "macs": ("multiply-adds", "{:,}"),
        "bytes": ("bytes", "{:,}"),
        "compressed_bytes": ("compressed", "{:,}"),
        "latency_ms": ("latency (ms)", "{:.3f}"),
    }
    table = Table(box=None, pad_edge=False)
    for title, _ in shown.values():
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*("" if row[name] is None else form.format(row[name]) for name, (_, form) in shown.items()))
    out.print(table)
    first = curve.reports[0]
    if quality == "accuracy":
        samples, before = first["quality"]["samples"], rows[0]["dense_accuracy"]
        _say(out, f"accuracy on {samples} held-out samples; original {before:.2f} %")
    _say(out, f"original: {first['before']['bytes']:,} bytes, {rows[0]['original_latency_ms']:.3f} ms")
    if curve.resumed:
        _say(out, f"{curve.resumed} points were finished before and not repeated")
    if curve.picture is None:
        _say(out, "not drawn: pip install 'onnxprune[plots]' brings matplotlib")
    _say(out, "changes the function: APPROXIMATE")
    _say(out, f"written: {folder}")
