"""Many models at once: every one in a process of its own, within limits, and never twice."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.zoo.finding import DomainRules
    from onnxprune.zoo.job import Limits
    from onnxprune.zoo.rows import Row, Status
    from onnxprune.zoo.run import optimize_all
    from onnxprune.zoo.summary import Summary

_HOMES = {
    "DomainRules": "finding",
    "Limits": "job",
    "Row": "rows",
    "Status": "rows",
    "Summary": "summary",
    "optimize_all": "run",
}

__all__ = ["DomainRules", "Limits", "Row", "Status", "Summary", "optimize_all"]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: the process of a job, started for each model, needs few."""
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxprune.zoo' has no attribute '{name}'")
    return getattr(import_module(f"onnxprune.zoo.{_HOMES[name]}"), name)
