"""Look at a model without changing it: what could go per layer, and why the rest stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxprune.domain import Domain
from onnxprune.graph.kinds import ModelLike
from onnxprune.optimizer import optimize
from onnxprune.report import Report


def inspect(model: ModelLike, domain: Domain | str | Sequence[str] | None = None, **options: Any) -> Report:
    """The report :func:`onnxprune.optimize` would give with ``goal="size"``; nothing is handed out.

    Args:
        model: Path, bytes or ModelProto; never changed.
        domain: As for ``optimize``.
        **options: As for ``optimize``.

    Returns:
        The report, latencies left out.
    """
    return optimize(model, domain, **{**options, "goal": "size", "align": 1}).report
