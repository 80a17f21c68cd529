"""One mixed-integer programme per unit and side (Serra, Kumar & Ramalingam 2020, "LEO").

Feasibility is asked for, no optimum: ``sign * g >= -eps`` is impossible proves the side, ``sign * g >= eps`` asks for
a witness. With ``eps = 1e-5`` times the largest number in the unit's row, a true pre-activation on the wrong side of 0
satisfies the first row with ten times the solver's feasibility tolerance to spare. The price: a unit that comes within
eps of 0 without crossing it, or just touches it, is stable but stays undecided.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from onnxprune.bounds.blocks import Blocks
from onnxprune.mip.encoding import encode
from onnxprune.mip.solver import Solver, Status
from onnxprune.operators.interval import Array

MARGIN = 1e-5
"""eps, relative to the largest number in a unit's row."""
REACH = (1e-3, MARGIN)
"""Margins tried in turn for a witness: the solver's tolerances, carried through layers, can undo a small one."""


class Verdict(Enum):
    """What one solve says about one side of a unit."""

    PROVED = "proved"
    """The solver says that the row is impossible."""
    POINT = "point"
    """There is a point to be run through the real network; it decides nothing by itself."""
    OPEN = "open"
    """Out of time, or impossible to find a witness by this margin."""


@dataclass(frozen=True)
class Answer:
    """What was found out.

    Attributes:
        verdict: See there.
        point: Shape (inputs,); where the verdict is POINT.
        feasible: Whether the solver has a solution, be it one that says nothing about the inputs.
        seconds: Wall time.
    """

    verdict: Verdict
    point: Array | None
    feasible: bool
    seconds: float


class UnitMILP:
    """The exact encoding of everything before one block, asked about one unit after another.

    Args:
        blocks: The network.
        index: The block whose units are asked about.
        solver: Name of the solver.
        window: Only so many blocks before are encoded, the columns before those are boxes: what is proved
            holds all the same, points are guesses. None for all.
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
        self.encoding = encode(blocks, targets, whole=True, window=window)
        self._solver = Solver(self.encoding.system, solver)

    def prove(self, unit: int, sign: int, seconds: float) -> Answer:
        """Try to prove that ``sign * g`` is negative: stably inactive for sign 1, stably active for sign -1.

        Args:
            unit: An open unit of the block.
            sign: 1 or -1.
            seconds: Time limit.

        Returns:
            PROVED (trust: solver); or POINT, one where ``sign * g >= -eps`` in the encoding; or OPEN.
        """
        target = self.encoding.preactivation(self.index, unit).times(sign)
        low = -self.margin(unit) - target.high
        return self._ask(target.coefficients, low, seconds, proof=True)

    def refute(self, unit: int, sign: int, seconds: float) -> Answer:
        """Look for a point with ``sign * g`` well above 0, or else at least eps.

        Args:
            unit: An open unit of the block.
            sign: 1 or -1.
            seconds: Time limit.

        Returns:
            POINT or OPEN.
        """
        target = self.encoding.preactivation(self.index, unit).times(sign)
        scale, spent = self.encoding.scale(self.index, unit), 0.0
        answer = Answer(Verdict.OPEN, None, False, 0.0)
        for reach in REACH:
            answer = self._ask(target.coefficients, reach * scale - target.low, seconds - spent, proof=False)
            spent += answer.seconds
            if answer.feasible or spent >= seconds:
                break
        return replace(answer, seconds=spent)

    def margin(self, unit: int) -> float:
        """The eps of a unit."""
        return MARGIN * self.encoding.scale(self.index, unit)

    def _ask(self, coefficients: Array, low: float, seconds: float, *, proof: bool) -> Answer:
        solution = self._solver.solve(None, seconds, extra=(coefficients, low))
        if solution.status is Status.INFEASIBLE and proof:
            return Answer(Verdict.PROVED, None, False, solution.seconds)
        feasible = solution.x is not None
        point = None if solution.x is None else self.encoding.point(solution.x)
        return Answer(Verdict.OPEN if point is None else Verdict.POINT, point, feasible, solution.seconds)
