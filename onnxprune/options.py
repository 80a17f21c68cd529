"""What a user can choose about a run, and what cannot be meant."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from onnxprune import alignment
from onnxprune.errors import InputError
from onnxprune.mip import SOLVERS
from onnxprune.pipeline import Progress


@dataclass(frozen=True)
class Options:
    """Everything but the model and the domain."""

    passes: str | Sequence[str] | None = None
    skip: Sequence[str] = ()
    keep: Sequence[str] = ()
    align: Literal["auto"] | int = "auto"
    goal: Literal["latency", "size"] = "latency"
    tolerance: float | None = None
    seed: int = 0
    provider: str | None = None
    threads: int = 0
    custom_ops: Sequence[str] = ()
    data: Mapping[str, NDArray[Any]] | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fix_shape: bool = False
    budget: float = 30.0
    method: Literal["cascade", "leo", "single"] = "cascade"
    trust: Literal["certified", "solver"] = "solver"
    solver: str = "highs"
    solver_check: bool = False
    rule: Literal["product", "rows"] = "product"
    jobs: int = 1
    executor: Executor | None = None
    remember: bool = True
    certificate: bool = False
    annotate: bool = False
    progress: Progress = lambda _: None
    stopped: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InputError: A value outside its range.
        """
        texts = [name for name in ("skip", "keep", "custom_ops") if isinstance(getattr(self, name), str)]
        if texts:
            value = getattr(self, texts[0])
            raise InputError(f"{texts[0]} is the text {value!r}, not a list of names.", hint=f"{texts[0]}=[{value!r}]")
        checks: dict[str, tuple[bool, str]] = {
            "align": (self.align == "auto" or self.align in alignment.MULTIPLES, "auto, 1, 4, 8 or 16"),
            "goal": (self.goal in ("latency", "size"), "latency or size"),
            "seed": (self.seed >= 0, "0 or more"),
            "budget": (0 <= self.budget < math.inf, "a number of seconds, 0 or more"),
            "method": (self.method in ("cascade", "leo", "single"), "cascade, leo or single"),
            "trust": (self.trust in ("certified", "solver"), "certified or solver"),
            "solver": (self.solver in SOLVERS, ", ".join(SOLVERS)),
            "rule": (self.rule in ("product", "rows"), "product or rows"),
            "jobs": (self.jobs >= 1, "1 or more"),
            "threads": (self.threads >= 0, "0 or more"),
            "fix_shape": (not self.fix_shape or bool(self.shapes), "for use with shapes: --shape INPUT=1,3,224,224"),
            "tolerance": (self.tolerance is None or 0 <= self.tolerance < math.inf, "0 or more"),
        }
        for name, (fine, wanted) in checks.items():
            if not fine:
                raise InputError(f"{name} cannot be {getattr(self, name)!r}.", hint=f"It is {wanted}.")
        missing = [library for library in self.custom_ops if not Path(library).is_file()]
        if missing:
            raise InputError(f"No such library of custom operators: {missing[0]}", hint="Check --custom-ops.")


def from_keywords(given: Mapping[str, Any]) -> Options:
    """Options from keyword arguments.

    Raises:
        InputError: There is no such option, or its value cannot be meant.
    """
    known = {option.name for option in fields(Options)}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise InputError(
                f"There is no option '{name}'.",
                hint=f"Did you mean '{near[0]}'?" if near else f"Options: {', '.join(sorted(known))}.",
            )
    return Options(**given)
