"""What became of one model of a zoo."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

FIGURES = ("nodes", "params", "macs", "bytes", "latency_ms")
"""Figures of a model, named as in reports; each row has them before and after."""


class Status(enum.Enum):
    """How the work on a model ended."""

    OPTIMIZED = "optimized"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    OUT_OF_MEMORY = "out of memory"

    @property
    def good(self) -> bool:
        """Whether there is a validated model in the output folder."""
        return self in (Status.OPTIMIZED, Status.UNCHANGED)


@dataclass(frozen=True)
class Row:
    """One model of a zoo.

    Attributes:
        path: Relative to the folder of the zoo, with forward slashes.
        key: Names model, domain, options and version; empty where the model could not be read.
        status: How it ended.
        reason: Why it failed, for the user; empty otherwise.
        seconds: Wall time of its process.
        processor: Seconds of processor time, where the process came to its end.
        peak: Largest memory of its process and its children as it was sampled, in bytes.
        domain: The domain's texts.
        before: Figures of the original.
        after: Figures of the result.
        units: Number of units in the model, and of those removed.
        error: Largest measured difference between the outputs of both; None when nothing was compared.
        samples: Number of inputs on which both were compared.
        files: Bytes of each file written for it, by path relative to the output folder.
        same_as: Path of an identical model whose result was copied.
        worker: Name of the machine.
        early: Whether it ended before its budget because the user asked for an end; it is run again.
        finished_before: Whether an earlier run had finished it (not stored).
    """

    path: str
    key: str
    status: Status
    reason: str = ""
    seconds: float = 0.0
    processor: float = 0.0
    peak: int = 0
    domain: tuple[str, ...] = ()
    before: Mapping[str, float | None] = field(default_factory=dict)
    after: Mapping[str, float | None] = field(default_factory=dict)
    units: tuple[int, int] = (0, 0)
    error: float | None = None
    samples: int = 0
    files: Mapping[str, int] = field(default_factory=dict)
    same_as: str = ""
    worker: str = ""
    early: bool = False
    finished_before: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"status": self.status.value}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> Row:
        """Undo `to_json`.

        Raises:
            ValueError: It is no row.
        """
        try:
            row = Row(**{**content, "status": Status(content["status"])})
            return replace(row, domain=tuple(row.domain), units=(int(row.units[0]), int(row.units[1])))
        except (TypeError, KeyError, IndexError) as error:
            raise ValueError(f"not a row ({error})") from None

    def intact(self, output: Path) -> bool:
        """Whether every file that was written for it is there, in the size it had."""
        return all(_size(output / name) == size for name, size in self.files.items())

    def change(self, figure: str) -> float | None:
        """After / before - 1; None where either is unknown."""
        before, after = self.before.get(figure), self.after.get(figure)
        return after / before - 1 if before and after is not None else None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
