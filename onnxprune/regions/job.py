"""One question about the regions of a network: what is asked of which method, within a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from onnxprune.errors import InputError
from onnxprune.regions.compiled import COMPILED
from onnxprune.regions.exact import count_exactly
from onnxprune.regions.interior import Definition as MIPDefinition
from onnxprune.regions.mip import LEAST, count_by_mip
from onnxprune.regions.network import RegionNetwork
from onnxprune.regions.parity import parity_bound
from onnxprune.regions.probe import probe_regions
from onnxprune.regions.report import RegionReport, number
from onnxprune.regions.upper import Remaining, montufar, serra, trivial
from onnxprune.regions.walker import Definition
from onnxprune.regions.warm import SLOW

Method = Literal["auto", "bounds", "exact", "mip", "parity", "probe"]
MIP_LARGEST = 20_000
"""Regions beyond which the integer programme is refused: it solves one programme for each."""
LARGEST = 10**9
"""Regions beyond which an exact count is refused."""
PROBES, RUNS = 600, 8
"""Random descents, and runs of parity rows."""


@dataclass
class Job:
    """One question.

    Attributes:
        network: Whose regions.
        definition: What counts.
        deadline: Moment of :func:`time.perf_counter` at which time ends.
        jobs: Processes that count.
        seed: Of what is random.
        solver: For integer programmes.
        progress: Called with what is being done.
        stopped: Asked between steps.
        obstacle: Why ``auto`` should not count.
        store: A file for the parts of a count, see :func:`~onnxprune.regions.exact.count_exactly`.
    """

    network: RegionNetwork
    definition: Definition
    deadline: float
    jobs: int
    seed: int
    solver: str
    progress: Callable[[str], None]
    stopped: Callable[[], bool]
    obstacle: str = ""
    store: Path | str | None = None

    def __post_init__(self) -> None:
        self.notes: list[str] = []
        self.lower = 1  # the domain is not empty
        self.upper: int | None = None
        self.exact: int | None = None
        self.estimate: dict[str, float | None] | None = None
        self.sensitive: bool | None = None

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.deadline - time.perf_counter()

    @property
    def _why(self) -> str:
        """What ends work early."""
        return "stopped" if self.stopped() else "time ended"

    def run(self, method: Method, began: float) -> RegionReport:
        """Do what the method asks for, and report."""
        self.progress("upper bounds")
        self.bounds = self._bounds()
        known = [value for value in self.bounds.values() if value is not None]
        self.upper = min(known, default=None)
        if not self.network.unstable:
            self.exact, self.lower, self.upper, self.sensitive = 1, 1, 1, False
        elif method == "mip":
            self._enumerate()
        elif method == "parity":
            self._parity()
        elif method == "auto" and self.obstacle:
            self.notes.append(f"{self.obstacle}.")
        else:
            if method in ("probe", "auto"):
                self._probe(0.25 if method == "auto" else 1.0)
            if method in ("exact", "auto"):
                self._search(method)
        if not COMPILED and any("time ended" in note for note in self.notes):
            self.notes.append(SLOW)
        return RegionReport(self._content(method, time.perf_counter() - began), tuple(self.notes))

    def _content(self, method: Method, seconds: float) -> dict[str, Any]:
        layers = [
            {"active": len(layer.active), "inactive": len(layer.inactive), "unstable": layer.size}
            for layer in self.network.layers
        ]
        return {
            "definition": self.definition,
            "lower": self.lower,
            "upper": self.upper,
            "exact": self.exact,
            "estimate": self.estimate,
            "bounds": self.bounds,
            "layers": layers,
            "tolerance_sensitive": self.sensitive,
            "seconds": round(seconds, 3),
            "method": method,
            "seed": self.seed,
        }

    def _found(self, count: int, complete: bool, sensitive: bool | None) -> None:
        self.lower, self.sensitive = max(self.lower, count), sensitive
        if complete:
            self.exact = self.lower = self.upper = count

    def _bounds(self) -> dict[str, int | None]:
        """Upper bounds by name; those from the widths hold for cells of networks without shortcuts."""
        network, dimension = self.network, self.network.dimension
        widths = [layer.units for layer in network.layers]
        plain = network.plain and self.definition != "patterns"
        return {
            "trivial": trivial(network.unstable),
            "montufar": montufar(dimension, widths) if plain else None,
            "serra": serra(dimension, widths) if plain else None,
            "empirical": Remaining(network, closed=self.definition == "patterns").bound(()),
        }

    def _probe(self, share: float) -> None:
        """Estimate by random descents; the bound needs all of them."""
        if self.definition == "affine":
            return
        self.progress("random descents")
        found = probe_regions(
            self.network,
            self.definition,
            probes=PROBES,
            seed=self.seed,
            budget=share * max(0.0, self.left),
            stopped=self.stopped,
        )
        error = found.standard_error if math.isfinite(found.standard_error) else None
        lower = found.lower if found.confidence else None
        if lower is None:
            self.notes.append(f"{self._why} after {len(found.values)} of {PROBES} descents: no lower bound with 95 %.")
        value = found.mean if math.isfinite(found.mean) else None
        self.estimate = {"value": value, "stderr": error, "lower95": lower}

    def _parity(self) -> None:
        definition = self._plain()
        self.progress("parity rows")
        found = parity_bound(
            self.network,
            runs=RUNS,
            definition=definition,
            budget=max(0.0, self.left),
            seed=self.seed,
            solver=self.solver,
            stopped=self.stopped,
        )
        if not found.complete:
            self.notes.append(f"{self._why} before all runs were done; --budget may give a larger lower bound.")
        self.estimate = {"value": None, "stderr": None, "lower95": math.ceil(found.lower * (1 - 1e-9))}

    def _enumerate(self) -> None:
        definition = self._plain()
        if self.upper is not None and self.upper > MIP_LARGEST:
            self._refuse("an integer programme each", MIP_LARGEST, "Use --method exact, probe or bounds.")
        self.progress("integer programmes")
        found = count_by_mip(
            self.network, definition, budget=max(0.0, self.left), solver=self.solver, stopped=self.stopped
        )
        self.lower = max(self.lower, found.count)
        if found.complete:  # no upper bound: the solver does not see what is within its tolerances
            self.exact, self.sensitive = found.count, True
            self.notes.append(f"a solver does not see cells thinner than {LEAST:g} of a unit's range.")
        if not found.complete:
            self.notes.append(f"{self._why} after {found.solves} integer programmes; more regions may exist.")

    def _search(self, method: Method) -> None:
        if method == "exact" and self.upper is not None and self.upper > LARGEST:
            self._refuse("counting one by one", LARGEST, "Use --method probe or bounds, or a smaller domain.")
        self.progress("counting")
        found = count_exactly(
            self.network,
            self.definition,
            jobs=self.jobs,
            budget=max(0.0, self.left),
            stopped=self.stopped,
            store=self.store,
            progress=lambda done, total: self.progress(f"counting, part {done} of {total}"),
        )
        self._found(found.lower, found.exact, found.tolerance_sensitive)
        if not found.exact:
            self.upper = found.upper if self.upper is None else min(self.upper, found.upper)
            more = "--budget gives more" if self.store is None else "the next run with this --store goes on from here"
            self.notes.append(f"{self._why} before all was counted; {more}.")

    def _refuse(self, what: str, most: int, hint: str) -> None:
        """Stop where there are too many regions, by a quick estimate, and say how many there may be.

        Raises:
            InputError: There are.
        """
        self._probe(0.1)
        about = None if self.estimate is None else self.estimate["value"]
        if about is not None and about > most:
            low = self.lower if self.estimate is None else self.estimate["lower95"] or self.lower
            raise InputError(
                f"About {number(about)} {self.definition} (95 %: at least {number(low)}; proved: at most "
                f"{number(self.upper or 0)}) are too many for {what}; the limit is {number(most)}.",
                hint=hint,
            )

    def _plain(self) -> MIPDefinition:
        """The definition, for methods that do not merge cells."""
        assert self.definition != "affine"  # refused before
        return self.definition
