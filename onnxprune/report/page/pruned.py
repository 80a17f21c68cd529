"""The page of a pruning run: what went, how far the outputs moved, and what it brought."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from onnxprune.report.page.bars import legend, stacked
from onnxprune.report.page.parts import Cell, Column, number, pill, table, text, tiles
from onnxprune.report.page.plots import can_plot, course
from onnxprune.report.page.sections import (
    change,
    costs,
    facts,
    figure,
    identity,
    latencies,
    notes,
    said,
    section,
)
from onnxprune.report.prune_table import FIGURES, quality_line

if TYPE_CHECKING:
    from onnxprune.report.build import Report


def pruned(report: Report, name: str) -> str:
    """The body of the page.

    Args:
        report: The report, with details.
        name: What the model is called.
    """
    content = report.content
    return "\n".join(
        part
        for part in (
            f"<h1>{escape(name)}</h1>",
            f"<p>{pill('changes the function', 'warn')} {escape(quality_line(content).capitalize())}.</p>",
            tiles(_headline(content)),
            section("Before and after", costs(content, FIGURES), said(content["speed"])),
            section("What went", _layers(content)),
            section("Why the rest stayed", _kept(content)),
            section("How far the outputs moved", _quality(content), _course(content["mismatch"])),
            latencies(report.details.latencies),
            section("What was asked for", _asked(content)),
            notes(content["notes"]),
            identity(content),
        )
        if part
    )


def _headline(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [("of the weights are zero", f"{content['weights']['sparsity']:.1%}")]
    found.append(("units removed", f"{content['removed_units']:,}"))
    for key, title in (("macs", "multiply-adds"), ("compressed_bytes", "bytes, compressed"), ("latency_ms", "latency")):
        moved = change(content["before"][key], content["after"][key])
        if moved is not None:
            found.append((title, f"{moved:+.1f} %"))
    return found


def _layers(content: Mapping[str, Any]) -> str:
    columns = [Column("layer"), Column("weights left"), Column("weights", numeric=True)]
    columns += [Column("nonzero", numeric=True), Column("zero", numeric=True), Column("sparsity", numeric=True)]
    rows = []
    for layer in content["layers"]:
        nonzero = layer["weights"] - layer["zeros"]
        rows.append(
            (
                text(layer["name"]),
                Cell(stacked({"nonzero": nonzero, "zero": layer["zeros"]}), nonzero / layer["weights"]),
                number(layer["weights"]),
                number(nonzero),
                number(layer["zeros"]),
                number(100 * layer["sparsity"], "{:.1f} %"),
            )
        )
    return legend(("nonzero", "zero")) + "\n" + table("Weights per layer", columns, rows)


def _kept(content: Mapping[str, Any]) -> str:
    rows = [(text(layer), text(reason)) for layer, reason in content["kept"].items()]
    return table("Layers kept as they were", (Column("layer"), Column("reason")), rows) if rows else ""


def _quality(content: Mapping[str, Any]) -> str:
    found, dense = content["quality"], "of the dense model"
    percent, plain = "{:.2f} %", "{:.4g}"
    titles = {
        "samples": ("held-out samples, on which nothing was fitted", "{:,}"),
        "relative_error": ("relative error of the outputs", plain),
        "cosine": ("cosine between the outputs", "{:.6f}"),
        "agreement": ("same class", "{:.2%}"),
        "accuracy": ("accuracy", percent),
        "dense_accuracy": (f"accuracy {dense}", percent),
        "metric": ("metric", plain),
        "dense_metric": (f"metric {dense}", plain),
    }
    rows = [(title, pattern.format(found[key])) for key, (title, pattern) in titles.items() if key in found]
    return facts("The pruned model against the dense one", rows)


def _course(mismatch: Mapping[str, Any]) -> str:
    stages = mismatch["stages"]
    if len(stages) < 2 or not can_plot():
        return ""
    caption = f"Mismatch on the fitted samples per stage; on held-out ones in the end {mismatch['held_out']:.3g}."
    return f'<div class="plots">{figure(course(stages, "mismatch"), escape(caption))}</div>'


def _asked(content: Mapping[str, Any]) -> str:
    used = content["calibration"]
    rows = [(name, f"{value:.4g}") for name, value in content["asked"].items()]
    rows += [
        ("structure", content["structure"]),
        ("method", content["method"]),
        ("share of the way that was gone", f"{content['share_of_the_way']:.0%}"),
        ("steps of refitting", f"{content['steps']:,}"),
        ("samples fitted", f"{used['fitted']:,}"),
        ("labels", "used" if used["labels_used"] else "there, but not used" if used["labelled"] else "none"),
        ("seed", str(used["seed"])),
        ("execution provider", content["provider"]),
        ("time", f"{content['seconds']:.1f} s"),
    ]
    if content["sparse_tensors"]:
        rows.append(("tensors stored sparse", f"{len(content['sparse_tensors']):,}"))
    return facts("Request and work", rows)
