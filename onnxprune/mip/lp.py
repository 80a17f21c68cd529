"""Bounds on the pre-activations of one block from the triangle relaxation: one LP, one objective after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.bounds.blocks import Blocks
from onnxprune.mip.encoding import Encoding, encode
from onnxprune.mip.safe import dual_bound, usable_duals
from onnxprune.mip.solver import Solution, Solver, Status
from onnxprune.operators.interval import Array


@dataclass(frozen=True)
class LPResult:
    """A bound on ``sign * g`` of one unit.

    Attributes:
        unit: Index in the block.
        sign: 1 for an upper bound on g, -1 for one on -g.
        bound: ``sign * g <= bound`` over the domain, proved by ``duals`` alone; inf where nothing is proved.
        point: Shape (inputs,), where the relaxation is largest: run it as a witness. None where there is none. It
            lies in the box, and satisfies other constraints of the domain up to the solver's tolerance.
        duals: Shape (rows,); multipliers that prove the bound, see :func:`~onnxprune.mip.safe.dual_bound`.
        optimal: Whether the LP was solved to the end.
        seconds: Wall time.
    """

    unit: int
    sign: int
    bound: float
    point: Array | None
    duals: Array
    optimal: bool
    seconds: float


class LayerLP:
    """The triangle relaxation of everything before one block; its basis is kept from one objective to the next.

    An infeasible relaxation proves nothing here: it would take a proof of its own.

    Args:
        blocks: The network.
        index: The block whose pre-activations are bounded.
        solver: Name of the solver.
        window: Only so many blocks before are relaxed, the columns before those are boxes; None for all.
        units: The units that will be asked about; by default the open ones.

    Raises:
        InputError: If there is no such solver.
        EnvironmentFailure: If it cannot be used here.
    """

    def __init__(
        self,
        blocks: Blocks,
        index: int,
        solver: str = "highs",
        window: int | None = None,
        units: NDArray[np.int64] | None = None,
    ) -> None:
        self.index = index
        targets = {index: blocks.blocks[index].open if units is None else units}
        self.encoding: Encoding = encode(blocks, targets, whole=False, window=window)
        self._solver = Solver(self.encoding.system, solver)

    def bound(self, unit: int, sign: int, seconds: float = 60.0) -> LPResult:
        """An upper bound on ``sign * g``.

        Args:
            unit: An open unit of the block.
            sign: 1 or -1.
            seconds: Time limit.
        """
        target = self.encoding.preactivation(self.index, unit).times(sign)
        solution = self.maximise(target.coefficients, seconds)
        best, proof = self.proved(target.coefficients, target.high, solution)
        optimal = solution.status is Status.OPTIMAL
        point = self.encoding.point(solution.x) if optimal and solution.x is not None else None
        return LPResult(unit, sign, best, point, proof, optimal, solution.seconds)

    def maximise(self, objective: Array, seconds: float) -> Solution:
        """Solve for one objective; shape (columns of the encoding,)."""
        return self._solver.solve(objective, seconds)

    def proved(self, objective: Array, constant: float, solution: Solution) -> tuple[float, Array]:
        """An upper bound on ``objective @ x + constant`` that the duals of a solution prove, and those duals."""
        system = self.encoding.system
        best, proof = np.inf, np.zeros(system.rows.shape[0])
        for duals in (proof, solution.duals):
            if duals is not None:
                bound = float(np.nextafter(dual_bound(system, objective, duals) + constant, np.inf))
                if bound < best:
                    best, proof = bound, usable_duals(system, duals)
        return best, proof

    def sweep(
        self, pairs: Iterable[tuple[int, int]], seconds: float, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[LPResult]:
        """Bounds for pairs of unit and sign, as they come.

        Args:
            pairs: Units and signs; may leave out pairs that were settled while the sweep went on.
            seconds: Time limit of each LP.
            stopped: Asked before each LP.
        """
        for unit, sign in pairs:
            if stopped():
                return
            yield self.bound(unit, sign, seconds)
