"""MIPBound: a probabilistic lower bound on the number of regions from random parity rows.

Serra and Ramalingam (AAAI 2020): rows "an even (odd) number of these k units is on" are added one by one, until no
pattern is left. With a random right-hand side every pattern survives a row with probability 1/2, whatever k is, and
rows are independent; so a run survives j rows with probability at most ``N / 2^j`` by the union bound. Each survival
counts only with a pattern that was checked, and what the solver calls infeasible or runs out of time on merely ends a
run: the bound does not rest on the solver's word.

Instead of the Chernoff form of the paper the tail of the binomial distribution is taken as it is. Of R runs the one of
a rank fixed beforehand decides: with probability ``1 - delta``, ``N >= p * 2^J``, where J is the rank-th largest number
of rows survived and p solves ``P[Bin(R, p) >= rank] = delta``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import count as counting
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from onnxprune.operators.interval import Array
from onnxprune.regions.interior import Definition, slack_of
from onnxprune.regions.mip import TOLERANCE, PatternProgramme
from onnxprune.regions.network import Pattern, RegionNetwork

Encoding = Literal["slack", "lazy"]


@dataclass(frozen=True)
class ParityBound:
    """A lower bound that holds with a stated probability.

    Attributes:
        lower: The number of regions is at least this, with probability ``confidence``.
        confidence: Over the random rows.
        survived: Rows survived per run.
        size: Units per row.
        rank: The run (counted from the longest) that decides; fixed before the runs.
        solves: Programmes solved.
        seconds: Wall time.
        complete: False where time ended before all runs were done; ``lower`` is then 1.
    """

    lower: float
    confidence: float
    survived: tuple[int, ...]
    size: int
    rank: int
    solves: int
    seconds: float
    complete: bool


def parity_bound(
    network: RegionNetwork,
    *,
    runs: int = 8,
    size: int = 4,
    confidence: float = 0.95,
    definition: Definition = "cells",
    encoding: Encoding = "slack",
    budget: float = np.inf,
    seed: int = 0,
    solver: str = "highs",
    tolerance: float = TOLERANCE,
    stopped: Callable[[], bool] = lambda: False,
) -> ParityBound:
    """Bound the number of regions from below.

    Args:
        network: The network.
        runs: Independent runs.
        size: Units per row.
        confidence: Probability with which the bound holds.
        definition: What counts.
        encoding: A row as an equation with a whole-number column, or by odd-set rows where a solution breaks it.
        budget: Seconds for all runs; each run has an equal share, so that a slow one ends early (and counts as it is).
        seed: Of the rows.
        solver: Name of the solver.
        tolerance: Least slack of a pattern.
        stopped: Asked between solves.
    """
    began = time.perf_counter()
    rank, share = best_rank(runs, confidence)
    size = max(1, min(size, network.unstable))
    survived: list[int] = []
    solves = 0
    for number in range(runs if network.unstable else 0):
        left = budget - (time.perf_counter() - began)
        if left <= 0 or stopped():
            break
        run = _Run(network, size, definition, encoding, solver, tolerance, np.random.default_rng([seed, number]))
        survived.append(run.survive(left / (runs - number), stopped))
        solves += run.solves
    complete = len(survived) == runs
    lower = max(1.0, share * 2.0 ** sorted(survived, reverse=True)[rank - 1]) if complete else 1.0
    seconds = time.perf_counter() - began
    return ParityBound(
        lower, confidence, tuple(survived), size, rank, solves, seconds, complete or not network.unstable
    )


@dataclass
class _Run:
    network: RegionNetwork
    size: int
    definition: Definition
    encoding: Encoding
    solver: str
    tolerance: float
    rng: np.random.Generator
    solves: int = 0

    def survive(self, seconds: float, stopped: Callable[[], bool]) -> int:
        """Rows after which a pattern still exists, checked, within the time."""
        deadline = time.perf_counter() + seconds
        most = 2 * self.network.unstable + 8
        strict = 0 if self.definition == "patterns" else len(self.network.layers)
        columns = (self.size // 2,) * most if self.encoding == "slack" else ()
        programme = PatternProgramme(self.network, strict, self.solver, columns)
        rows: list[tuple[NDArray[np.int64], int]] = []
        pattern: Pattern | None = None
        for number in counting():
            if number:  # nothing is demanded of the first pattern
                rows.append(self._row())
                if self.encoding == "slack" and number <= most:
                    self._demand(programme, *rows[-1], number - 1)
            holds = pattern is not None and all(parity(pattern, *row) for row in rows)
            if not holds:  # else the pattern found before survives this row too
                pattern = self._search(programme, rows, deadline, stopped)
            if pattern is None or number >= most:
                return max(0, number - 1 if pattern is None else number)
        raise AssertionError("not reached")

    def _row(self) -> tuple[NDArray[np.int64], int]:
        units = self.rng.choice(self.network.unstable, size=self.size, replace=False)
        return np.sort(units), int(self.rng.integers(2))

    def _demand(self, programme: PatternProgramme, units: NDArray[np.int64], side: int, column: int) -> None:
        """``sum of the binaries - 2 q = side`` with a whole number q."""
        phases = np.zeros(self.network.unstable)
        phases[units] = 1.0
        programme.demand(phases, float(side), float(side), (column, -2.0))

    def _search(
        self,
        programme: PatternProgramme,
        rows: list[tuple[NDArray[np.int64], int]],
        deadline: float,
        stopped: Callable[[], bool],
    ) -> Pattern | None:
        """A pattern that is a region and satisfies all rows; None where there is none, or not in time."""
        while not stopped():
            pattern, _ = programme.best(deadline - time.perf_counter())
            self.solves += 1
            if pattern is None:
                return None
            broken = [row for row in rows if not parity(pattern, *row)]
            for units, _ in broken:
                programme.demand(*odd_set(pattern, units))
            if not broken and slack_of(self.network, pattern, self.definition) > self.tolerance:
                return pattern
            if not broken:
                programme.exclude(pattern)
        return None


def parity(pattern: Pattern, units: NDArray[np.int64], side: int) -> bool:
    """Whether the number of these units that are on is even (side 0) or odd (side 1)."""
    return bool(sum(pattern[unit] for unit in units.tolist()) % 2 == side)


def odd_set(pattern: Pattern, units: NDArray[np.int64]) -> tuple[Array, float, float]:
    """The row that cuts off exactly the assignment that a pattern gives to some units: coefficients and two sides."""
    on = np.array([pattern[unit] for unit in units.tolist()])
    row = np.zeros(len(pattern))
    row[units] = np.where(on > 0, 1.0, -1.0)
    return row, -np.inf, float(on.sum() - 1)


@lru_cache(maxsize=64)
def best_rank(runs: int, confidence: float) -> tuple[int, float]:
    """The rank that promises the largest bound, and what p it comes with; depends on nothing that is measured.

    Args:
        runs: Independent runs.
        confidence: Probability with which the bound is to hold.
    """
    best = max(range(1, runs + 1), key=lambda rank: math.log2(share_of(runs, rank, confidence)) + _typical(runs, rank))
    return best, share_of(runs, best, confidence)


def share_of(runs: int, rank: int, confidence: float) -> float:
    """The p with ``P[Bin(runs, p) >= rank] = 1 - confidence``."""
    return float(stats.beta.ppf(1 - confidence, rank, runs - rank + 1))


def _typical(runs: int, rank: int) -> float:
    """Expected rank-th largest number of rows survived, less log2 of the number of patterns."""
    rows = np.arange(-40, 40)
    alive = 1 - np.exp(-(2.0 ** -rows.astype(np.float64)))  # patterns that survive are about Poisson
    return float(np.sum(stats.binom.sf(rank - 1, runs, alive)) - 41)


def runs_needed(a: int = 1, confidence: float = 0.995) -> tuple[int, int]:
    """Runs that must all survive j rows for ``N >= 2^(j - a)``: by the exact tail, and by the Chernoff form.

    The Chernoff form bounds ``P[all of R survive]`` with mean ``R 2^-a`` by ``(e^b / (1 + b)^(1 + b))^(R 2^-a)``,
    ``b = 2^a - 1`` (Gomes, Sabharwal and Selman 2006; taken over by the paper).

    Args:
        a: Rows by which the bound falls short of what was survived.
        confidence: Probability with which it is to hold.
    """
    delta, b = 1 - confidence, 2.0**a - 1
    exact = math.ceil(math.log(delta) / (-a * math.log(2)) - 1e-9)
    factor = (b - (1 + b) * math.log(1 + b)) / 2.0**a
    return exact, math.ceil(math.log(delta) / factor - 1e-9)


def tail_share(runs: int, rank: int, p: float) -> float:
    """``P[Bin(runs, p) >= rank]``, exactly."""
    return float(stats.binom.sf(rank - 1, runs, p))
