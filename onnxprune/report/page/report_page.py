"""One self-contained page per report."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from onnxprune.report.page.optimized import optimized
from onnxprune.report.page.parts import document
from onnxprune.report.page.pruned import pruned

if TYPE_CHECKING:
    from onnxprune.report.build import Report


def report_page(report: Report) -> str:
    """The page of a report of ``optimize``, ``inspect`` or ``prune``."""
    path = report["model"]["path"]
    name = PurePath(path).name if path else "model"
    body = pruned(report, name) if report.content.get("exactness") == "APPROXIMATE" else optimized(report, name)
    return document(f"{name} - onnxprune", body)
