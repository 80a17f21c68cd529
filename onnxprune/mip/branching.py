"""Branch and bound over the phases of open units, where every leaf is proved by the duals of a linear programme.

A phase is not fixed by a bound but asked for by a price: with ``g = h - n``, the objective loses ``price * n`` where a
unit is to be active and ``price * h`` where it is to be inactive. Where the unit is in that phase nothing is lost, so
the duals of the priced programme prove a bound there, whatever the price; no leaf is ever infeasible, and all leaves
share one basis. (The prices are Lagrange multipliers, as in Wang et al. 2021, beta-CROWN.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.mip.lp import LayerLP
from onnxprune.mip.solver import Solution, Status
from onnxprune.operators.interval import Array

PRICE = 64.0
"""Price of leaving a phase altogether, in widths of what is known of the pre-activation asked about."""
NODES = 4000
"""Leaves and inner nodes at most."""

Phases = tuple[tuple[int, int, bool], ...]
"""Block, unit, and whether it is active."""


@dataclass(frozen=True)
class Branched:
    """What a tree has shown.

    Attributes:
        bound: ``sign * g <= bound`` over the domain; inf where the tree was not finished.
        points: Shape (points, inputs): solutions on the way, to be run as witnesses.
        leaves: The phases of every leaf; together they cover the domain.
        duals: Per leaf the multipliers that prove the bound there, shape (rows of the relaxation,).
        nodes: Programmes solved.
        finished: Whether more time is of no use: proved, or a solution keeps to all phases.
    """

    bound: float
    points: Array
    leaves: tuple[Phases, ...]
    duals: tuple[Array, ...]
    nodes: int
    finished: bool


def branch(
    layer: LayerLP,
    unit: int,
    sign: int,
    seconds: float,
    *,
    refuted: Callable[[Array], bool] = lambda _: False,
    stopped: Callable[[], bool] = lambda: False,
) -> Branched:
    """Try to prove ``sign * g <= 0`` by cases.

    Args:
        layer: The relaxation in front of the unit.
        unit: An open unit of the layer's block.
        sign: 1 or -1.
        seconds: Time for the whole tree.
        refuted: Told every point; once true, the search ends.
        stopped: Asked before each programme.
    """
    return _Tree(layer, unit, sign, seconds).run(refuted, stopped)


class _Tree:
    def __init__(self, layer: LayerLP, unit: int, sign: int, seconds: float) -> None:
        self.layer = layer
        self.deadline = time.perf_counter() + seconds
        encoding = layer.encoding
        self.target = encoding.preactivation(layer.index, unit).times(sign)
        self.keys = [key for key, parts in encoding.parts.items() if len(parts) == 2 and key[0] < layer.index]
        self.pairs = np.array([encoding.parts[key] for key in self.keys], dtype=np.int64).reshape(-1, 2)
        self.place = {key: number for number, key in enumerate(self.keys)}
        self.row = self._triangles()
        block = encoding.blocks.blocks[layer.index]
        width = float(block.high[unit] - block.low[unit])
        size = np.maximum(encoding.system.high[self.pairs], 1e-30)
        self.price = np.where(np.isfinite(size), PRICE * width / size, 0.0)
        self.points: list[Array] = []
        self.nodes = 0

    def run(self, refuted: Callable[[Array], bool], stopped: Callable[[], bool]) -> Branched:
        """Depth first."""
        leaves: list[Phases] = []
        duals: list[Array] = []
        worst = -np.inf
        todo: list[Phases] = [()]
        hopeless = False
        while todo and not hopeless:
            left = self.deadline - time.perf_counter()
            if left <= 0 or stopped() or self.nodes >= NODES:
                break
            phases = todo.pop()
            bound, proof, solution = self._solve(phases, left)
            point = None if solution.x is None else self.layer.encoding.point(solution.x)
            if point is not None:
                self.points.append(point)
            if bound <= 0:
                leaves.append(phases)
                duals.append(proof)
                worst = max(worst, bound)
            elif point is not None and refuted(point):
                hopeless = True
            elif solution.status is not Status.OPTIMAL or solution.x is None:
                todo.append(phases)
                break
            else:
                choice = self._choose(solution, phases)
                if choice is None:
                    hopeless = True  # the relaxation is exact here, and still positive
                else:
                    todo += self._children(choice, phases, solution.x)
        proved = not todo and not hopeless
        points = np.array(self.points) if self.points else np.zeros((0, len(self.layer.encoding.blocks.low)))
        bound = worst if proved else np.inf
        return Branched(bound, points, tuple(leaves), tuple(duals), self.nodes, proved or hopeless)

    def _solve(self, phases: Phases, seconds: float) -> tuple[float, Array, Solution]:
        objective = self.target.coefficients.copy()
        for block, unit, active in phases:
            number = self.place[block, unit]
            side = 1 if active else 0
            objective[self.pairs[number, side]] -= self.price[number, side]
        self.nodes += 1
        solution = self.layer.maximise(objective, seconds)
        return *self.layer.proved(objective, self.target.high, solution), solution

    def _choose(self, solution: Solution, phases: Phases) -> int | None:
        """The unit whose relaxation the bound owes most to."""
        if solution.x is None or not len(self.pairs):
            return None
        both = np.maximum(solution.x[self.pairs], 0.0)
        high = self.layer.encoding.system.high[self.pairs]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.nan_to_num(both / high)
        weight = np.ones(len(self.pairs))
        if solution.duals is not None:
            weight = np.abs(solution.duals[self.row]) * np.where(self.row >= 0, 1.0, 0.0) + 1e-9
        score = weight * np.minimum(share[:, 0], share[:, 1])
        score[[self.place[block, unit] for block, unit, _ in phases]] = 0.0
        best = int(score.argmax())
        return best if share[best].min() > 1e-7 and score[best] > 0 else None

    def _children(self, choice: int, phases: Phases, x: Array) -> list[Phases]:
        """Both phases; the one the solution is nearer to comes first."""
        block, unit = self.keys[choice]
        active = bool(x[self.pairs[choice, 0]] > x[self.pairs[choice, 1]])
        return [(*phases, (block, unit, not active)), (*phases, (block, unit, active))]

    def _triangles(self) -> NDArray[np.int64]:
        """Per pair of columns the row of its triangle, -1 where it has none."""
        rows = self.layer.encoding.system.rows
        short = np.flatnonzero(np.diff(rows.indptr) == 2)
        found = {tuple(sorted(rows.indices[rows.indptr[r] : rows.indptr[r + 1]].tolist())): int(r) for r in short}
        return np.array([found.get((min(p), max(p)), -1) for p in self.pairs.tolist()], dtype=np.int64)
