"""Runs passes on a copy, checks each result, commits it or rolls that pass alone back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from onnxprune.alignment import Kept, translate
from onnxprune.bounds.deviation import carry
from onnxprune.carrying import carried
from onnxprune.domain import Domain
from onnxprune.errors import EnvironmentFailure, ValidationError
from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph, label
from onnxprune.graph.types import infer_types
from onnxprune.operators import Interval
from onnxprune.pass_api import Exactness, Pass, PassReport
from onnxprune.protobuf import LIMIT, byte_size
from onnxprune.validate import Validator

ROUNDS = 12
"""Rounds over all passes; each round but the last changes something, so real models need two to four."""

SLACK = 1 << 14
"""Bytes a pass may add: names and small constants, never a second copy of real weights."""

Progress = Callable[[str], None]


@dataclass
class PassEntry:
    """What one pass did over all rounds."""

    name: str
    exactness: Exactness
    modified: bool = False
    removed: int = 0
    merged: int = 0
    deviation: float = 0.0
    at_outputs: float = 0.0
    rounding: float = 0.0
    seconds: float = 0.0
    needed_domain: bool = False
    changes: dict[str, int] = field(default_factory=dict)
    rolled_back: str = ""

    def add(self, report: PassReport, at_outputs: float) -> None:
        """Count a committed run in."""
        self.modified = True
        self.removed += sum(len(units) for units in report.removed.values())
        self.merged += sum(report.merged.values())
        self.deviation += max(report.deviations.values(), default=0.0)
        self.at_outputs += at_outputs
        self.rounding = max(self.rounding, report.rounding)
        self.needed_domain |= report.needed_domain
        for kind, count in report.changes.items():
            self.changes[kind] = self.changes.get(kind, 0) + count


@dataclass
class Reduced:
    """A model after a sequence of passes, with what each did."""

    model: onnx.ModelProto
    kept: Kept = field(default_factory=dict)
    known: Mapping[str, Interval] | None = None
    """Bounds by tensor that were proved of this model."""
    entries: dict[str, PassEntry] = field(default_factory=dict)

    @property
    def modified(self) -> bool:
        """Whether any pass changed anything."""
        return any(entry.modified for entry in self.entries.values())

    @property
    def deviation(self) -> float:
        """Sum of the deviations of all passes at the edited tensors."""
        return sum(entry.deviation for entry in self.entries.values())

    @property
    def at_outputs(self) -> float:
        """Sum of the deviations of all passes carried to the outputs; infinite where no bound is known."""
        return sum(entry.at_outputs for entry in self.entries.values())

    @property
    def bound(self) -> float:
        """The deviation at the outputs, or at the edited tensors where it cannot be carried on."""
        return self.at_outputs if math.isfinite(self.at_outputs) else self.deviation


@dataclass(frozen=True)
class Pipeline:
    """Applies passes one by one.

    Attributes:
        domain: Where equivalence is promised.
        validator: Compares candidates with the original; None skips the numeric check (alignment variants,
            of which only the chosen one is validated, in full).
        progress: Called with a line of text at every step.
        strict: Also require what ONNX's checker requires (off for originals that do not pass it themselves).
        stopped: Asked before every pass; once it says True, the passes so far are the result.
    """

    domain: Domain
    validator: Validator | None
    progress: Progress
    stopped: Callable[[], bool] = lambda: False
    strict: bool = True

    def unchecked(self) -> Pipeline:
        """The same without numeric checks after every pass."""
        return replace(self, validator=None)

    def run(
        self, start: Reduced, passes: Sequence[Pass], protected: Mapping[str, frozenset[int]] | None = None
    ) -> Reduced:
        """Run passes round after round until nothing changes.

        Args:
            start: The model to work on, and what happened to it before.
            passes: In this order.
            protected: Units (numbered as in ``start``'s tidied model) that must stay.
        """
        entries = {k: replace(v) for k, v in start.entries.items()}
        state = Reduced(start.model, dict(start.kept), start.known, entries)
        active = list(passes)
        for number in range(ROUNDS):
            changed = False
            facts = None
            for item in list(active):
                if self.stopped():
                    return state
                facts = facts or self._facts(state, protected or {})
                self.progress(f"round {number + 1}: {item.name}")
                outcome = self._attempt(state, item, facts)
                if outcome is None:
                    continue
                facts = None  # the graph was touched, committed or not
                changed |= outcome
                if not outcome or item.exactness is Exactness.APPROXIMATE:  # the latter would go on and on
                    active.remove(item)
            if not changed:
                break
        return state

    def _facts(self, state: Reduced, protected: Mapping[str, frozenset[int]]) -> Facts:
        graph = Graph(state.model)
        return Facts(graph, self.domain, translate(protected, state.kept), state.known)

    def _attempt(self, state: Reduced, item: Pass, facts: Facts) -> bool | None:
        """Run one pass: None = nothing to do, True = committed, False = rolled back."""
        begin = time.perf_counter()
        entry = state.entries.setdefault(item.name, PassEntry(item.name, item.exactness))
        sizes = {label(units.node): len(units.components) for units in facts.groups.units}
        report = item.run(facts.graph, facts)
        if not report.modified:
            entry.seconds += time.perf_counter() - begin
            return None
        at_outputs = carry(facts.graph, report.deviations, facts.bounds) if report.deviations else 0.0
        candidate = facts.graph.to_model()
        try:
            if item.name != "tidy" and byte_size(candidate) > byte_size(state.model) + SLACK:
                raise ValidationError("it would make the model larger (weights shared by several layers)")
            if self.strict:
                check_model(candidate)
            if self.validator is not None and item.exactness is Exactness.APPROXIMATE:
                self.validator.rebase(candidate)
            elif self.validator is not None:
                self.validator.check(candidate, quick=True)
        except (ValidationError, EnvironmentFailure) as error:
            entry.rolled_back = error.what
            return False
        finally:
            entry.seconds += time.perf_counter() - begin
        state.model = candidate
        if state.known is not None:
            state.known = carried(state.known, report, facts.graph, facts.bounds)
        entry.add(report, at_outputs)
        for name, removed in report.removed.items():
            before = state.kept.get(name, np.arange(sizes[name]))
            state.kept[name] = np.delete(before, removed)
        return True


def check_model(model: onnx.ModelProto) -> None:
    """ONNX's own checker, and shape inference where the size allows it.

    Raises:
        ValidationError: The model is not well formed.
    """
    if byte_size(model) > LIMIT:
        infer_types(model)
        return
    try:
        onnx.checker.check_model(model, full_check=False)
        onnx.shape_inference.infer_shapes(model, strict_mode=False)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValidationError(f"The rewritten model is not valid: {str(error).splitlines()[0]}") from None
