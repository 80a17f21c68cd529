"""A summary of a report for notebooks: a fragment that takes the notebook's own colours and leaves the rest alone."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from onnxprune.report.page.parts import asset
from onnxprune.report.page.sections import STAGES, change
from onnxprune.report.prune_table import FIGURES, quality_line
from onnxprune.report.table import ROWS


def notebook_summary(content: Mapping[str, Any]) -> str:
    """HTML of a few lines.

    Args:
        content: Of a report of ``optimize``, ``inspect`` or ``prune``.
    """
    lossy = content.get("exactness") == "APPROXIMATE"
    rows = "".join(_row(content, key, name) for key, name in (FIGURES if lossy else ROWS).items())
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("", *STAGES.values(), "change"))
    return (
        f'<div class="onnxprune-summary"><style>{asset("notebook.css")}</style>'
        f"<table><caption>{escape(_pruned(content) if lossy else _optimized(content))}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(content: Mapping[str, Any], key: str, name: str) -> str:
    values = [content[stage][key] for stage in STAGES]
    if None in values:
        return ""
    shown = [f"{value:.3f}" if key == "latency_ms" else f"{value:,}" for value in values]
    moved = change(values[0], values[2])
    cells = "".join(f"<td>{text}</td>" for text in (*shown, "" if moved is None else f"{moved:+.1f} %"))
    return f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'


def _optimized(content: Mapping[str, Any]) -> str:
    units, check = content["units"], content["validation"]
    text = f"{units['removed']:,} of {units['total']:,} units removed"
    if check["max_abs_error"] is None:
        return text
    return f"{text}; largest difference {check['max_abs_error']:.2g} on {check['samples']} inputs"


def _pruned(content: Mapping[str, Any]) -> str:
    weights = content["weights"]
    return f"{weights['sparsity']:.1%} of {weights['total']:,} weights are zero; {quality_line(content)}"
