"""Counting regions with a mixed-integer programme and a solver: slow, simple, and independent of the fast count.

The programme of Serra, Tjandraatmadja and Ramalingam (2018, section 5): a binary per unit says whether it is on, and
the smallest slack f of all units is maximised; a pattern is a region when f > 0. A no-good row (``at least one binary
differs``) takes each pattern out, until nothing is left. What the solver proposes is checked by a linear programme
over the inputs alone, in which the pattern is fixed, so that every pattern found is one; that none is missing is the
solver's word.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from onnxprune.errors import InputError
from onnxprune.mip import Solver, Status, System
from onnxprune.operators.interval import Array
from onnxprune.regions.interior import Definition, ranges, rows_of, slack_of
from onnxprune.regions.network import Pattern, RegionNetwork

TOLERANCE = 1e-8
"""A cell is real when a point of it keeps this share of a unit's range away from all of its boundaries."""
LEAST = 1e-6
"""What a solver calls a slack of less than this is within its tolerances: nothing is left."""
SOME = 1e-5
"""Slack that is asked for where any will do: well beyond a solver's tolerances."""


@dataclass(frozen=True)
class MIPCount:
    """What the enumeration found.

    Attributes:
        patterns: Every pattern found; each was checked.
        complete: Whether the solver says that there are no others.
        thin: Smallest slack of those that count; 1.0 where there are none.
        rejected: Proposals of the solver that were no regions.
        solves: Programmes solved.
        seconds: Wall time.
    """

    patterns: tuple[Pattern, ...]
    complete: bool
    thin: float
    rejected: int
    solves: int
    seconds: float

    @property
    def count(self) -> int:
        """Number of regions found."""
        return len(self.patterns)


def count_by_mip(
    network: RegionNetwork,
    definition: Definition = "cells",
    *,
    budget: float = np.inf,
    solver: str = "highs",
    most: int = 100_000,
    tolerance: float = TOLERANCE,
    stopped: Callable[[], bool] = lambda: False,
) -> MIPCount:
    """Enumerate the regions of a network.

    A unit may be 0 all over a piece, and then no slack is asked of it. So a second round asks for the slacks of active
    units and of the first layer only; what it proposes in addition is left to the check.

    Args:
        network: The network.
        definition: What counts.
        budget: Seconds.
        solver: Name of the solver.
        most: Patterns after which the enumeration ends.
        tolerance: Least slack of a cell.
        stopped: Asked between solves.
    """
    began = time.perf_counter()
    found: list[Pattern] = []
    out: list[Pattern] = []
    thin, solves, complete = 1.0, 0, network.unstable == 0
    if complete:
        return MIPCount(((),), True, 1.0, 0, 0, 0.0)
    rounds = {"patterns": (0,), "cells": (len(network.layers), 1) if len(network.layers) > 1 else (1,)}[definition]
    for strict in rounds:
        programme = PatternProgramme(network, strict, solver)
        for known in (*found, *out):
            programme.exclude(known)
        complete = False
        while not stopped() and len(found) < most:
            pattern, status = programme.best(budget - (time.perf_counter() - began))
            solves += 1
            if pattern is None:
                complete = status is Status.INFEASIBLE
                break
            programme.exclude(pattern)
            slack = slack_of(network, pattern, definition)
            if slack > tolerance:
                found.append(pattern)
                thin = min(thin, slack)
            else:
                out.append(pattern)
        if not complete:
            break
    return MIPCount(tuple(found), complete, thin, len(out), solves, time.perf_counter() - began)


class PatternProgramme:
    """Patterns as the binaries of a mixed-integer programme whose objective is the smallest slack.

    Args:
        network: The network.
        strict: In so many layers, from the front, inactive units need slack as well.
        solver: Name of the solver.
        parities: Whole-number columns that rows added later may use, with their upper ends.
    """

    def __init__(
        self, network: RegionNetwork, strict: int, solver: str = "highs", parities: tuple[int, ...] = ()
    ) -> None:
        if network.unstable == 0:
            raise InputError("No unit switches over this domain: there is one region and nothing to solve.")
        self.network = network
        self.inputs, self.units = len(network.low), network.unstable
        self.phase: int = self.inputs + 2 * self.units
        self.extra: int = self.phase + self.units + 1
        self.columns: int = self.extra + len(parities)
        self.solver = Solver(self._system(strict, parities), solver)
        self.objective = np.zeros(self.columns)
        self.objective[self.extra - 1] = 1.0

    def best(self, seconds: float) -> tuple[Pattern | None, Status]:
        """The pattern with the largest slack; None with the reason where none is left (or known in time)."""
        solution = self.solver.solve(self.objective, seconds)
        if solution.x is None or solution.value is None:
            return None, solution.status
        if solution.value <= LEAST:
            exhausted = solution.status is Status.OPTIMAL
            return None, Status.INFEASIBLE if exhausted else Status.STOPPED
        return self._pattern(solution.x), solution.status

    def some(self, seconds: float) -> Pattern | None:
        """Any pattern with some slack, which is quicker than the best; None where none is found in time."""
        slack = np.zeros(self.columns)
        slack[self.extra - 1] = 1.0
        solution = self.solver.solve(None, seconds, (slack, SOME))
        return None if solution.x is None else self._pattern(solution.x)

    def exclude(self, pattern: Pattern) -> None:
        """At least one binary differs from a pattern."""
        on = np.array(pattern, dtype=np.float64)
        self.demand(1.0 - 2.0 * on, low=1.0 - float(on.sum()))

    def demand(
        self, phases: Array, low: float = -np.inf, high: float = np.inf, extra: tuple[int, float] = (0, 0.0)
    ) -> Any:
        """Add a row over the binaries, and perhaps one of the additional columns with its coefficient.

        Returns:
            What :meth:`~onnxprune.mip.Solver.withdraw` takes.
        """
        row = np.zeros(self.columns)
        row[self.phase : self.phase + self.units] = phases
        if extra[1]:
            row[self.extra + extra[0]] = extra[1]
        return self.solver.demand(row, low, high)

    def _pattern(self, values: Array) -> Pattern:
        return tuple(int(z > 0.5) for z in values[self.phase : self.phase + self.units])

    def _system(self, strict: int, parities: tuple[int, ...]) -> System:
        network, units = self.network, self.units
        low, high = ranges(network)
        none, zero, one = np.full(units, -np.inf), np.zeros(units), np.ones(units)
        weights, bias = rows_of(network)
        direct, nested = weights[:, : self.inputs], weights[:, self.inputs :]
        eye, nothing, wide = _diagonal(one), sparse.csr_array((units, units)), sparse.csr_array((units, self.inputs))
        flat, slack = sparse.csr_array((units, 1)), sparse.csr_array(np.ones((units, 1)))
        asked = np.repeat(np.arange(len(network.layers)) < strict, network.sizes)
        # columns: inputs, positive parts h, negative parts n, binaries z, slack f
        parts = [
            (_beside(direct, nested - eye, eye, nothing, flat), -bias, -bias),  # row @ columns - h + n = 0
            (_beside(wide, eye, nothing, _diagonal(-high), flat), none, zero),  # h <= high z
            (_beside(wide, nothing, eye, _diagonal(-low), flat), none, -low),  # n <= -low (1 - z)
            (_beside(wide, _diagonal(-1 / high), nothing, eye, slack), none, one),  # f <= h / high + (1 - z)
        ]
        below = _beside(wide, nothing, _diagonal(1 / low), -eye, slack)  # f <= n / -low + z
        parts.append((below[np.flatnonzero(asked)], none[asked], zero[asked]))
        rest = sparse.csr_array((len(network.limits), 3 * units + 1))
        nowhere = np.full(len(network.limits), -np.inf)
        parts.append((_beside(sparse.csr_array(network.rows), rest), nowhere, network.limits))
        matrix = sparse.csr_array(sparse.vstack([rows for rows, _, _ in parts]))
        matrix = _beside(matrix, sparse.csr_array((matrix.shape[0], len(parities))))
        return System(
            low=np.concatenate([network.low, np.zeros(3 * units + 1 + len(parities))]),
            high=np.concatenate([network.high, high, -low, one, [1.0], np.array(parities, dtype=np.float64)]),
            integer=(np.arange(self.columns) >= self.phase) & (np.arange(self.columns) != self.extra - 1),
            rows=matrix,
            row_low=np.concatenate([least for _, least, _ in parts]),
            row_high=np.concatenate([most for _, _, most in parts]),
        )


def _diagonal(values: Array) -> sparse.csr_array:
    return sparse.csr_array(sparse.diags_array(values))


def _beside(*parts: sparse.csr_array) -> sparse.csr_array:
    return sparse.csr_array(sparse.hstack(list(parts)))
