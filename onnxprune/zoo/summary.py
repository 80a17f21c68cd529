"""All rows of a zoo, summed up: totals, CSV, JSON, one HTML page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnxprune.graph.files import write_text
from onnxprune.zoo.rows import FIGURES, Row, Status

SCHEMA = 1
NAME = "summary"
SUMMED = ("params", "macs", "bytes")
"""Figures of which a sum over models says something."""


@dataclass(frozen=True)
class Summary:
    """What became of a zoo.

    Attributes:
        rows: One per model that is done, in order of their paths.
        found: Number of models in the zoo.
        seconds: Wall time of this run.
        folder: Where the models are.
        notes: Sentences for the user.
    """

    rows: Sequence[Row]
    found: int
    seconds: float
    folder: str
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> list[Row]:
        """Rows of models without a result."""
        return [row for row in self.rows if not row.status.good]

    @property
    def left(self) -> int:
        """Models that were not run, because the user asked for an end; those ended early count."""
        return self.found - sum(not row.early for row in self.rows)

    def counts(self) -> dict[str, int]:
        """Number of models by status, and of those that an earlier run had finished."""
        found = {status.value: sum(row.status is status for row in self.rows) for status in Status}
        return found | {"finished before": sum(row.finished_before for row in self.rows), "not run": self.left}

    def totals(self) -> dict[str, dict[str, float]]:
        """Sums over all models with a result, before and after."""
        good = [row for row in self.rows if row.status.good]
        return {
            when: {figure: sum(getattr(row, when).get(figure) or 0 for row in good) for figure in SUMMED}
            for when in ("before", "after")
        }

    def to_json(self) -> str:
        """Indented JSON text."""
        content = {
            "schema": SCHEMA,
            "version": version("onnxprune"),
            "folder": self.folder,
            "found": self.found,
            "seconds": round(self.seconds, 3),
            "counts": self.counts(),
            "totals": self.totals(),
            "notes": list(self.notes),
            "models": [_flat(row) for row in self.rows],
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """One line per model, under a line of names; what is unknown is left empty."""
        text = io.StringIO()
        names = list(_flat(Row("", "", Status.FAILED)))
        table = csv.DictWriter(text, names, lineterminator="\n")
        table.writeheader()
        table.writerows(_flat(row) for row in self.rows)
        return text.getvalue()

    def write(self, output: Path) -> None:
        """Write ``summary.csv``, ``summary.json`` and ``summary.html``, each atomically.

        Raises:
            EnvironmentFailure: The disk is full, say.
        """
        from onnxprune.zoo.page import page  # noqa: PLC0415 # it needs this module

        write_text(output / f"{NAME}.csv", self.to_csv())
        write_text(output / f"{NAME}.json", self.to_json())
        write_text(output / f"{NAME}.html", page(self))


def _flat(row: Row) -> dict[str, Any]:
    figures = {
        f"{figure}_{when}": values.get(figure)
        for figure in FIGURES
        for when, values in (("before", row.before), ("after", row.after))
    }
    return {
        "path": row.path,
        "status": row.status.value,
        "reason": row.reason,
        "seconds": row.seconds,
        "processor_seconds": row.processor,
        "peak_memory": row.peak,
        "domain": " ".join(row.domain),
        **figures,
        "units": row.units[0],
        "units_removed": row.units[1],
        "samples": row.samples,
        "max_abs_error": row.error,
        "same_as": row.same_as,
        "finished_before": row.finished_before,
        "early": row.early,
        "worker": row.worker,
        "key": row.key,
    }
