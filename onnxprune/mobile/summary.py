"""Mobile usability before and after, for reports and for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import IO, Any

from rich.table import Table

from onnxprune.mobile.providers import PROVIDERS
from onnxprune.report import Report
from onnxprune.report.table import console

Usability = Mapping[str, Mapping[str, Any]]
"""Of :func:`onnxprune.mobile.providers.usability`."""


def with_usability(report: Report, before: Usability, after: Usability) -> Report:
    """The report with ``mobile``: usability of the model as it was found and of the result."""
    mobile = {key: {"before": dict(before[key]), "after": dict(after[key])} for key in PROVIDERS}
    return replace(report, content={**report.content, "mobile": mobile})


def print_usability(mobile: Mapping[str, Any], *, file: IO[str]) -> None:
    """A line per provider: nodes taken of all, and in how many partitions; what keeps the others out.

    Args:
        mobile: ``mobile`` of a report.
        file: Where to print.
    """
    out = console(file)
    table = Table(box=None, pad_edge=False)
    for title in ("nodes taken on phones", "original", "result", "not taken in the result"):
        table.add_column(title, justify="left" if title[0] == "n" else "right")
    for key, name in PROVIDERS.items():
        before, after = mobile[key]["before"], mobile[key]["after"]
        table.add_row(name, _taken(before), _taken(after), ", ".join(after["not_taken"]) or "-")
    out.print(table, markup=False)
    gains = [PROVIDERS[key] for key in PROVIDERS if _more_if_fixed(mobile[key]["after"])]
    if gains:
        out.print(f"more with fixed sizes (--fix-shape): {', '.join(gains)}", markup=False)


def _taken(counts: Mapping[str, Any]) -> str:
    pieces = f" in {counts['partitions']}" if counts["partitions"] > 1 else ""
    return f"{counts['taken']} of {counts['nodes']}{pieces}"


def _more_if_fixed(counts: Mapping[str, Any]) -> bool:
    return bool(counts["taken_if_fixed"] > counts["taken"])
