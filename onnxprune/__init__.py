"""onnxprune: hand it an ONNX model, get back a smaller one that does the same, with a proof."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.domain import Domain, around, parse_domain
    from onnxprune.errors import EnvironmentFailure, InputError, OnnxpruneError, ProofError, ValidationError
    from onnxprune.inspection import inspect
    from onnxprune.optimizer import Result, optimize
    from onnxprune.regions.count import count_regions
    from onnxprune.report import Report
    from onnxprune.surgeon.prune import PruneResult, prune

_HOMES = {
    "Domain": "domain",
    "around": "domain",
    "parse_domain": "domain",
    "EnvironmentFailure": "errors",
    "InputError": "errors",
    "OnnxpruneError": "errors",
    "ProofError": "errors",
    "ValidationError": "errors",
    "PruneResult": "surgeon.prune",
    "Report": "report",
    "Result": "optimizer",
    "count_regions": "regions.count",
    "inspect": "inspection",
    "optimize": "optimizer",
    "prune": "surgeon.prune",
}

__all__ = [
    "Domain",
    "EnvironmentFailure",
    "InputError",
    "OnnxpruneError",
    "ProofError",
    "PruneResult",
    "Report",
    "Result",
    "ValidationError",
    "around",
    "count_regions",
    "inspect",
    "optimize",
    "parse_domain",
    "prune",
]


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that ``--help`` is quick."""
    if name not in _HOMES:
        # With these two, Python itself says what may have been meant.
        raise AttributeError(f"module 'onnxprune' has no attribute '{name}'", name=name, obj=sys.modules[__name__])
    return getattr(import_module(f"onnxprune.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, whether they were used already or not."""
    return [*globals(), *__all__]
