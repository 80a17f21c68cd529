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
from typing import Literal

import numpy as np
from scipy import optimize, sparse

from onnxprune.errors import InputError
from onnxprune.mip import Solver, Status, System
from onnxprune.operators.interval import Array
from onnxprune.regions.network import Pattern, RegionNetwork

Definition = Literal["cells", "patterns"]
TOLERANCE = 1e-8
"""A cell is real when a point of it keeps this share of a unit's range away from all of its boundaries."""
LEAST = 1e-6
"""What a solver calls a slack of less than this is within its tolerances: nothing is left."""
FLAT = 1e-12
"""A row whose largest coefficient is below this share of its parts is constant."""


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
        for pattern in (*found, *out):
            programme.exclude(pattern)
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
        self.phase = self.inputs + 2 * self.units
        self.extra = self.phase + self.units + 1
        self.columns = self.extra + len(parities)
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
        phases = solution.x[self.phase : self.phase + self.units]
        return tuple(int(z > 0.5) for z in phases), solution.status

    def exclude(self, pattern: Pattern) -> None:
        """At least one binary differs from a pattern."""
        on = np.array(pattern, dtype=np.float64)
        self.demand(1.0 - 2.0 * on, low=1.0 - float(on.sum()))

    def demand(self, phases: Array, low: float = -np.inf, high: float = np.inf, extra: tuple[int, float] = (0, 0.0)) -> None:
        """Add a row over the binaries, and perhaps one of the additional columns with its coefficient."""
        row = np.zeros(self.columns)
        row[self.phase : self.phase + self.units] = phases
        if extra[1]:
            row[self.extra + extra[0]] = extra[1]
        self.solver.demand(row, low, high)

    def _system(self, strict: int, parities: tuple[int, ...]) -> System:
        network, units = self.network, self.units
        low, high = ranges(network)
        none, zero, one = np.full(units, -np.inf), np.zeros(units), np.ones(units)
        eye = sparse.eye_array(units, format="csr")
        weights, bias = rows_of(network)
        direct, nested = weights[:, : self.inputs], weights[:, self.inputs :]
        top, bottom = sparse.diags_array(high), sparse.diags_array(-low)
        flat = sparse.csr_array((units, 1))
        asked = np.repeat(np.arange(len(network.layers)) < strict, network.sizes).astype(np.float64)
        column = sparse.csr_array(np.ones((units, 1)))
        wide = sparse.csr_array((units, self.inputs))
        nothing = sparse.csr_array((units, units))
        # columns: inputs, positive parts h, negative parts n, binaries z, f
        parts = [
            ([direct, nested - eye, eye, nothing, flat], -bias, -bias),  # row @ columns - h + n = 0
            ([wide, eye, nothing, -top, flat], none, zero),  # h <= high z
            ([wide, nothing, eye, bottom, flat], none, -low),  # n <= -low (1 - z)
            ([wide, -sparse.diags_array(1 / high), nothing, eye, column], none, one),  # f <= h / high + (1 - z)
        ]
        which = np.flatnonzero(asked)
        far = [wide, nothing, -sparse.diags_array(1 / -low), -eye, column]  # f <= n / -low + z
        parts.append(([part[which] for part in map(sparse.csr_array, far)], none[which], zero[which]))
        if len(network.limits):
            domain = sparse.csr_array(network.rows)
            rest = sparse.csr_array((len(network.limits), 3 * units + 1))
            parts.append(([domain, rest], np.full(len(network.limits), -np.inf), network.limits))
        matrix = sparse.vstack([sparse.hstack(row) for row, _, _ in parts])
        matrix = sparse.hstack([matrix, sparse.csr_array((matrix.shape[0], len(parities)))])
        return System(
            low=np.concatenate([network.low, np.zeros(3 * units + 1 + len(parities))]),
            high=np.concatenate([network.high, high, -low, one, [1.0], np.array(parities, dtype=np.float64)]),
            integer=np.arange(self.columns) >= self.phase,
            rows=sparse.csr_array(matrix),
            row_low=np.concatenate([least for _, least, _ in parts]),
            row_high=np.concatenate([most for _, _, most in parts]),
        )


def rows_of(network: RegionNetwork) -> tuple[sparse.csr_array, Array]:
    """Rows of all unstable units over the inputs and all unstable units, with their bias."""
    width = len(network.low) + network.unstable
    rows = [np.pad(layer.weights, ((0, 0), (0, width - layer.weights.shape[1]))) for layer in network.layers]
    return sparse.csr_array(np.concatenate(rows)), np.concatenate([layer.bias for layer in network.layers])


def ranges(network: RegionNetwork) -> tuple[Array, Array]:
    """Proved bounds of all unstable pre-activations, with some room for rounding; below and above 0."""
    low, high = [], []
    blocks = {block.name: block for block in network.blocks.blocks}
    size = np.concatenate([np.maximum(np.abs(network.low), np.abs(network.high)), np.zeros(network.unstable)])
    at = len(network.low)
    for layer in network.layers:
        width = layer.weights.shape[1]
        reach = np.abs(layer.weights) @ size[:width] + np.abs(layer.bias)
        block = blocks.get(layer.name)
        known = block is not None and not layer.output
        least = block.low[layer.unstable] if block is not None and known else -reach
        most = block.high[layer.unstable] if block is not None and known else reach
        room = 1e-9 * np.maximum(1e-9, reach)
        low.append(np.maximum(least, -reach) - room)
        high.append(np.minimum(most, reach) + room)
        size[at : at + layer.size] = high[-1]
        at += layer.size
    return np.concatenate(low), np.concatenate(high)


def slack_of(network: RegionNetwork, pattern: Pattern, definition: Definition = "cells") -> float:
    """How far the best point of a pattern stays away from all of its boundaries; at most 0 where it is no region.

    The slack of each unit counts relative to the largest change that its row can make over the box. A unit that is 0 all over
    the piece counts as inactive. For ``patterns`` inactive units need no slack.

    Args:
        network: The network.
        pattern: Which unstable units are on.
        definition: What counts.
    """
    found = interior(network, pattern, definition)
    return -1.0 if found is None else found[1]


def interior(network: RegionNetwork, pattern: Pattern, definition: Definition = "cells") -> tuple[Array, float] | None:
    """The point with the largest slack, and that slack; None where the pattern is empty."""
    maps, _ = network.affine_maps(pattern)
    half = (network.high - network.low) / 2
    middle = network.low + half
    free = half > 0
    slopes, at = maps.matrix[:, free] * half[free], maps(middle)
    sign = np.where(np.array(pattern) > 0, 1.0, -1.0)
    reach = np.abs(slopes).sum(axis=1)
    flat = reach <= FLAT * np.maximum(_parts(network), 1e-300)
    level = np.where(flat, at, 0.0)
    zero = np.abs(level) <= FLAT * np.maximum(_parts(network), 1e-300)
    if (flat & ~zero & (sign * level < 0)).any() or (flat & zero & (sign > 0)).any():
        return None
    rest = np.flatnonzero(~flat)
    rows = -sign[rest, None] * slopes[rest] / reach[rest, None]
    sides = sign[rest] * at[rest] / reach[rest]
    asks = np.ones(len(rest)) if definition == "cells" else (sign[rest] > 0).astype(np.float64)
    matrix = np.hstack([rows, asks[:, None]])
    if len(network.limits):
        extra = network.rows[:, free] * half[free]
        size = np.maximum(np.abs(extra).sum(axis=1), 1e-300)
        matrix = np.vstack([matrix, np.hstack([extra / size[:, None], np.zeros((len(extra), 1))])])
        sides = np.concatenate([sides, (network.limits - network.rows @ middle) / size])
    count = int(free.sum())
    cost = np.zeros(count + 1)
    cost[-1] = -1.0
    ends = [(-1.0, 1.0)] * count + [(-1.0, 1.0)]
    solved = optimize.linprog(cost, matrix, sides, bounds=ends, method="highs")
    if solved.status != 0:
        return None
    point = middle.copy()
    point[free] += half[free] * solved.x[:-1]
    asked = bool(asks.any())
    return np.clip(point, network.low, network.high), float(solved.x[-1]) if asked else 1.0


def _parts(network: RegionNetwork) -> Array:
    """How large the terms of each pre-activation can be, whatever cancels."""
    weights, bias = rows_of(network)
    size = np.concatenate([np.maximum(np.abs(network.low), np.abs(network.high)), ranges(network)[1]])
    return np.asarray(abs(weights) @ size + np.abs(bias), dtype=np.float64)
