"""MIPBound: a probabilistic lower bound on the number of regions from random parity rows.

Serra and Ramalingam (AAAI 2020): rows "an even (odd) number of these k units is on" are added until no pattern is
left. With a random right-hand side every pattern survives a row with probability 1/2, whatever k is, and rows are
independent; so some pattern survives j rows with probability at most ``N / 2^j`` by the union bound. Of R runs, each
with rows of its own, the one of a rank fixed beforehand decides: with probability ``1 - delta``, ``N >= p * 2^J``,
where J is the rank-th largest number of rows survived and p solves ``P[Bin(R, p) >= rank] = delta`` (the paper takes a
Chernoff bound for this tail, which asks for several times as many runs).

It does not matter how survivors are looked for, as long as each is a region: so random descents give the first ones,
and later ones are looked for among the patterns that satisfy as many rows as the rank needs next. A depth-first walk
that turns back at the first row it breaks finds one or finds that there is none; where that takes too long, integer
programmes go on. A search that ends with nothing merely stops the climb: the bound does not rest on its word.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv
from scipy.stats import binom

from onnxprune.regions.interior import Definition, slack_of
from onnxprune.regions.mip import TOLERANCE, PatternProgramme
from onnxprune.regions.network import Pattern, RegionNetwork
from onnxprune.regions.pace import Pace
from onnxprune.regions.walker import Walker

DESCENTS = 256
"""Random descents that give the first survivors."""
SPARE = 8
"""Rows beyond one for each unit, which nothing survives."""
WALKED = 50_000
"""Programmes of a walk after which the solver goes on."""


@dataclass(frozen=True)
class ParityBound:
    """A lower bound that holds with a stated probability.

    Attributes:
        lower: The number of regions is at least this, with probability ``confidence``.
        confidence: Over the random rows.
        survived: Rows survived per run, as far as it was asked.
        size: Units per row.
        rank: The run (counted from the longest) that decides; fixed before the runs.
        solves: Integer programmes solved.
        seconds: Wall time.
        complete: False where time ended a search; ``lower`` holds all the same.
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
    budget: float = math.inf,
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
        budget: Seconds.
        seed: Of the rows and descents.
        solver: Name of the solver.
        tolerance: Least slack of a pattern.
        stopped: Asked between solves.
    """
    began = time.perf_counter()
    rank, share = best_rank(runs, confidence)
    if not network.unstable:
        return ParityBound(1.0, confidence, (0,) * runs, 0, rank, 0, 0.0, True)
    size = max(1, min(size, network.unstable))
    search = _Search(network, definition, solver, tolerance, began + budget, stopped)
    search.runs = [_Run.random(network.unstable, size, np.random.default_rng([seed, n])) for n in range(runs)]
    estimate = search.descend(np.random.default_rng([seed, runs]))
    complete = search.climb(rank, max(0, math.floor(math.log2(estimate)) - 1))
    survived = tuple(run.survived for run in search.runs)
    lower = max(1.0, share * 2.0 ** sorted(survived, reverse=True)[rank - 1])
    seconds = time.perf_counter() - began
    return ParityBound(lower, confidence, survived, size, rank, search.solves, seconds, complete)


@dataclass
class _Run:
    """Parity rows in a fixed order, and how many of the first ones are known to have a survivor, or to have none."""

    rows: NDArray[np.int64]
    """0 or 1, shape (rows, units)."""
    sides: NDArray[np.int64]
    survived: int = 0
    failed: int = 0
    """The fewest rows that a search found no survivor of."""
    programme: PatternProgramme | None = None
    demanded: list[Any] = field(default_factory=list)

    @staticmethod
    def random(units: int, size: int, rng: np.random.Generator) -> _Run:
        most = units + SPARE
        rows = np.zeros((most, units), dtype=np.int64)
        for row in rows:
            row[rng.choice(units, size=size, replace=False)] = 1
        return _Run(rows, rng.integers(2, size=most), failed=most + 1)

    def satisfied(self, patterns: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of the first rows each pattern satisfies, shape (patterns,)."""
        holds = (patterns @ self.rows.T) % 2 == self.sides
        return np.asarray(np.logical_and.accumulate(holds, axis=1).sum(axis=1), dtype=np.int64)

    def echelon(self, count: int) -> NDArray[np.int8] | None:
        """The first rows, added up modulo 2 until each ends at a unit of its own; None where they contradict another.

        Shape (units, units + 1): the row that ends at a unit stands in that unit's place, its side comes last.
        """
        left = np.column_stack([self.rows[:count], self.sides[:count]]).astype(np.int8)
        units = self.rows.shape[1]
        found = np.zeros((units, units + 1), dtype=np.int8)
        for unit in range(units - 1, -1, -1):
            ending = np.flatnonzero(left[:, unit])
            if len(ending):
                found[unit] = left[ending[0]]
                left[ending] ^= found[unit]
        return None if left[:, -1].any() else found


@dataclass
class _Search:
    network: RegionNetwork
    definition: Definition
    solver: str
    tolerance: float
    deadline: float
    stopped: Callable[[], bool]
    runs: list[_Run] = field(default_factory=list)
    solves: int = 0

    def __post_init__(self) -> None:
        self.walker = Walker(self.network, self.definition)

    @property
    def left(self) -> float:
        """Seconds left."""
        return 0.0 if self.stopped() else self.deadline - time.perf_counter()

    def descend(self, rng: np.random.Generator) -> float:
        """First survivors by random descents; the mean of their values estimates the number of patterns."""
        walker = self.walker
        patterns, values = list[Pattern](), list[float]()
        share = self.left / 4
        while len(patterns) < DESCENTS and self.left > 3 * share:
            walker.move(())
            value = 1.0
            for _ in range(walker.depth):
                if len(walker.sides()) == 2:
                    value *= 2.0
                    if rng.random() < 0.5:
                        walker.cross()
            patterns.append(walker.prefix)
            values.append(value)
        if patterns:
            self._note(np.unique(np.array(patterns, dtype=np.int64), axis=0))
        return float(np.mean(values)) if values else 1.0

    def climb(self, rank: int, goal: int) -> bool:
        """Raise the rank-th largest number of rows survived; whether it is as large as searches can tell."""
        known = self._ranked(rank)
        goal = max(goal, known + 1)
        while known < len(self.runs[0].rows):
            reached = sum(run.survived >= goal for run in self.runs)
            open_runs = [run for run in self.runs if run.survived < goal < run.failed]
            if reached + len(open_runs) >= rank and reached < rank:
                if self.left <= 0:
                    return False
                self._ask(open_runs[0], goal, self.left / (rank - reached + 1))
                continue
            known = self._ranked(rank)
            if reached >= rank:
                goal = known + 1
            elif goal == known + 1:
                break
            else:
                goal = (known + goal) // 2 if goal > known + 2 else known + 1
        return self.left > 0

    def _ranked(self, rank: int) -> int:
        return sorted((run.survived for run in self.runs), reverse=True)[rank - 1]

    def _ask(self, run: _Run, goal: int, seconds: float) -> None:
        """Look for a pattern that satisfies so many rows of a run."""
        pattern = self._any(run, goal, time.perf_counter() + seconds)
        if pattern is None:
            run.failed = goal
        else:
            self._note(np.array([pattern], dtype=np.int64), checked=True)

    def _note(self, patterns: NDArray[np.int64], *, checked: bool = False) -> None:
        """Let patterns count as survivors of every run where they are; those that were not checked are now."""
        for run in self.runs:
            satisfied = run.satisfied(patterns)
            for index in np.argsort(-satisfied, kind="stable").tolist():
                if satisfied[index] <= run.survived:
                    break
                if checked or self._is_region(tuple(patterns[index].tolist())):
                    run.survived = int(satisfied[index])
                    break

    def _is_region(self, pattern: Pattern) -> bool:
        return slack_of(self.network, pattern, self.definition) > self.tolerance

    def _any(self, run: _Run, goal: int, deadline: float) -> Pattern | None:
        """A pattern that is a region and satisfies the first rows; None where there is none, or not in time."""
        rows = run.echelon(goal)
        if rows is None:
            return None
        pattern, settled = self._walk(rows, (time.perf_counter() + deadline) / 2)
        return pattern if settled else self._solve(run, goal, deadline)

    def _walk(self, rows: NDArray[np.int8], deadline: float) -> tuple[Pattern | None, bool]:
        """A pattern that is a region and satisfies all rows, by a walk; and whether the walk came to an answer."""
        walker, pace, done = self.walker, Pace(), False
        walker.move(())
        limit = walker.programmes + WALKED
        while not done:
            if self.stopped() or time.perf_counter() > deadline or walker.programmes > limit:
                return None, False
            found, done = pace.walk(walker, lambda most: walker.collect(most=1, programmes=most, parity=rows))
            for pattern in found:
                if self._is_region(tuple(pattern.tolist())):
                    return tuple(pattern.tolist()), True
        return None, True

    def _solve(self, run: _Run, goal: int, deadline: float) -> Pattern | None:
        """The same by integer programmes."""
        if run.programme is None:
            strict = 0 if self.definition == "patterns" else len(self.network.layers)
            columns = tuple((run.rows.sum(axis=1) // 2).tolist())
            run.programme = PatternProgramme(self.network, strict, self.solver, columns)
        while len(run.demanded) > goal:
            run.programme.solver.withdraw(run.demanded.pop())
        for number in range(len(run.demanded), goal):  # sum of the binaries - 2 q = side with a whole number q
            side = float(run.sides[number])
            row = run.rows[number].astype(np.float64)
            run.demanded.append(run.programme.demand(row, side, side, (number, -2.0)))
        while not self.stopped():
            pattern = run.programme.some(deadline - time.perf_counter())
            self.solves += 1
            if pattern is None:
                return None
            holds = run.satisfied(np.array([pattern], dtype=np.int64))[0] >= goal
            if holds and self._is_region(pattern):
                return pattern
            run.programme.exclude(pattern)
        return None


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
    return float(betaincinv(rank, runs - rank + 1, 1 - confidence))


def _typical(runs: int, rank: int) -> float:
    """Expected rank-th largest number of rows survived, less log2 of the number of patterns."""
    rows = np.arange(-40, 40)
    alive = 1 - np.exp(-(2.0 ** -rows.astype(np.float64)))  # patterns that survive are about Poisson
    return float(np.sum(binom.sf(rank - 1, runs, alive)) - 41)
