"""One mixed-integer programme over many units and sides at once (Serra, Yu, Kumar & Ramalingam 2021).

Each pair (block, unit, sign) has a binary that may be 1 only where ``sign * g >= -eps``. The sum of the binaries is
maximised: a solution is a point at which several pairs may be refuted at once, and a dual bound of at most 1/2 proves
all the pairs that remain. For the eps see :mod:`onnxprune.mip.leo`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from onnxprune.bounds.blocks import Blocks
from onnxprune.mip.encoding import Encoding, encode
from onnxprune.mip.leo import MARGIN, REACH
from onnxprune.mip.solver import Solver, Status
from onnxprune.mip.system import INFINITE, System
from onnxprune.operators.interval import Array

Pair = tuple[int, int, int]
"""Block, unit and sign: 1 asks whether g can be positive, -1 whether it can be negative."""
FIRST_SLICE = 1.0
"""Seconds of the first solve; a solve that leads nowhere is repeated with twice its time."""


@dataclass
class JointResult:
    """What became of each pair.

    Attributes:
        proved: Pairs whose ``sign * g`` is negative over the domain; trust: solver.
        struck: Pairs that a confirmed point refutes.
        undecided: The rest: out of time, or too close to 0.
        solves: Number of solves.
        seconds: Wall time.
    """

    proved: set[Pair] = field(default_factory=set)
    struck: set[Pair] = field(default_factory=set)
    undecided: set[Pair] = field(default_factory=set)
    solves: int = 0
    seconds: float = 0.0


def prove_jointly(
    blocks: Blocks,
    pairs: Iterable[Pair],
    confirm: Callable[[Array], Iterable[Pair]],
    *,
    solver: str = "highs",
    window: int | None = None,
    seconds: float,
    stopped: Callable[[], bool] = lambda: False,
) -> JointResult:
    """Prove or refute pairs together.

    Args:
        blocks: The network.
        pairs: Open pairs, of one block or of several.
        confirm: Gets a point of shape (inputs,), runs the real network there and returns all the pairs that this
            refutes (others than those asked for do no harm).
        solver: Name of the solver.
        window: Only so many blocks before the first one asked about are encoded; None for all.
        seconds: Time for everything.
        stopped: Asked before each solve.

    Raises:
        InputError: If there is no such solver.
        EnvironmentFailure: If it cannot be used here.
    """
    began = time.perf_counter()
    search = _Search(blocks, set(pairs), confirm, solver, window)
    length = FIRST_SLICE
    while search.remaining and not stopped():
        left = seconds - (time.perf_counter() - began)
        if left <= 0:
            break
        if not search.step(min(left, length)):
            if search.exhausted:
                break
            length *= 2
    search.result.undecided |= search.remaining
    search.result.seconds = time.perf_counter() - began
    return search.result


class _Search:
    """The pairs that remain, and the programme over them."""

    def __init__(
        self,
        blocks: Blocks,
        pairs: set[Pair],
        confirm: Callable[[Array], Iterable[Pair]],
        solver: str,
        window: int | None,
    ) -> None:
        self.result = JointResult()
        self.exhausted = False
        self._confirm = confirm
        by_block: dict[int, set[int]] = {}
        for block, unit, _ in pairs:
            by_block.setdefault(block, set()).add(unit)
        targets = {block: np.array(sorted(units), dtype=np.int64) for block, units in by_block.items()}
        self.remaining = pairs
        if not pairs:
            return
        self._encoding = encode(blocks, targets, whole=True, window=window, explicit=True)
        self._column: dict[Pair, int] = {}
        self._row: dict[Pair, tuple[Array, float, float]] = {}
        self._solver = Solver(self._with_binaries(blocks, self._encoding), solver)

    def step(self, seconds: float) -> bool:
        """One solve; whether it settled anything."""
        objective = np.zeros(self._solver.system.columns)
        for pair in self.remaining:
            objective[self._column[pair]] = 1.0
        solution = self._solver.solve(objective, seconds)
        self.result.solves += 1
        if solution.status is Status.INFEASIBLE:  # all binaries 0 is a solution wherever the domain has a point
            self.exhausted = True
            return False
        if solution.bound is not None and solution.bound <= 0.5:
            self.result.proved, self.remaining = self.remaining, set()
            return True
        return solution.x is not None and self._strike(solution.x, seconds)

    def _strike(self, x: Array, seconds: float) -> bool:
        """Take out what the point of a solution refutes; where that is nothing, look into what it claims."""
        claimed = {pair for pair in self.remaining if x[self._column[pair]] > 0.5}
        return self._confirmed(x) or self._press(claimed, seconds)

    def _confirmed(self, x: Array) -> bool:
        point = self._encoding.point(x)
        struck = set() if point is None else set(self._confirm(point)) & self.remaining
        self.result.struck |= struck
        self.remaining = self.remaining - struck
        return bool(struck)

    def _press(self, claimed: set[Pair], seconds: float) -> bool:
        """Ask for a point on the far side of 0 for each claimed pair; a pair without one is undecided."""
        deadline = time.perf_counter() + seconds
        settled = False
        for pair in sorted(claimed):
            coefficients, scale, constant = self._row[pair]
            wide = np.concatenate([coefficients, np.zeros(self._solver.system.columns - len(coefficients))])
            for reach in REACH:
                low = reach * scale - constant
                solution = self._solver.solve(None, deadline - time.perf_counter(), extra=(wide, low))
                self.result.solves += 1
                if solution.x is not None and self._confirmed(solution.x):
                    return True
            if solution.status is not Status.STOPPED:
                self.remaining = self.remaining - {pair}
                self.result.undecided.add(pair)
                settled = True
        return settled

    def _with_binaries(self, blocks: Blocks, encoding: Encoding) -> System:
        """One binary and one row per pair; a pair that can be proved by no row is set aside as undecided.

        The row of a pair is ``s g >= -eps - (least - eps) (1 - p)`` with ``-least <= s g`` known.
        """
        rows: list[Array] = []
        sides: list[tuple[float, float, float]] = []
        for block, unit, sign in sorted(self.remaining):
            what = blocks.blocks[block]
            least = float(-what.low[unit] if sign > 0 else what.high[unit])
            scale = encoding.scale(block, unit)
            margin = MARGIN * scale
            if not margin < least < INFINITE:
                self.result.undecided.add((block, unit, sign))
                continue
            target = encoding.preactivation(block, unit).times(sign)
            self._column[block, unit, sign] = encoding.system.columns + len(rows)
            rows.append(-target.coefficients)
            self._row[block, unit, sign] = target.coefficients, scale, target.low
            sides.append((least, target.high, least - margin))
        self.remaining = set(self._column)
        return _extended(encoding.system, rows, sides)


def _extended(system: System, rows: list[Array], sides: list[tuple[float, float, float]]) -> System:
    """Append a binary per row, and the rows ``row @ x + drop * p <= least + constant``."""
    count = len(rows)
    if not count:
        return system
    long = sparse.csr_array(np.array(rows).reshape(count, system.columns))
    drops = sparse.diags_array(np.array([side[2] for side in sides]).reshape(count), shape=(count, count))
    upper = sparse.hstack([system.rows, sparse.csr_array((system.rows.shape[0], count))])
    matrix = sparse.vstack([upper, sparse.hstack([long, drops])], format="csr")
    return System(
        low=np.concatenate([system.low, np.zeros(count)]),
        high=np.concatenate([system.high, np.ones(count)]),
        integer=np.concatenate([system.integer, np.ones(count, dtype=bool)]),
        rows=sparse.csr_array(matrix),
        row_low=np.concatenate([system.row_low, np.full(count, -np.inf)]),
        row_high=np.concatenate([system.row_high, [least + constant for least, constant, _ in sides]]),
    )
