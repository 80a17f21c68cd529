"""A proof by one solver, asked of another."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from onnxprune.bounds.blocks import Blocks
from onnxprune.mip.leo import UnitMILP, Verdict
from onnxprune.operators.interval import Array


class Opinion(Enum):
    """What the second solver says."""

    AGREED = "agreed"
    DISAGREED = "disagreed"
    """It has a solution where the first had none: do not use the proof, and run the point."""
    OPEN = "open"


OTHER = {"highs": "cbc", "cbc": "highs", "gurobi": "highs"}
"""Which solver is asked next."""


@dataclass(frozen=True)
class Confirmation:
    """The second solver's opinion, its point where it disagrees, its name and the wall time."""

    opinion: Opinion
    point: Array | None
    solver: str
    seconds: float


def confirm(
    blocks: Blocks, index: int, unit: int, sign: int, *, first: str = "highs", window: int | None = None, seconds: float
) -> Confirmation:
    """Repeat the proof that ``sign * g`` is negative with another solver.

    Args:
        blocks: The network.
        index: The block.
        unit: The unit of which the first solver proved it.
        sign: 1 (stably inactive) or -1 (stably active).
        first: Name of the solver that proved it.
        window: The window it was proved with.
        seconds: Time limit.

    Raises:
        InputError: If there is no such solver.
        EnvironmentFailure: If the other solver cannot be used here.
    """
    other = OTHER.get(first, first)
    answer = UnitMILP(blocks, index, other, window, np.array([unit])).prove(unit, sign, seconds)
    agreed = Opinion.AGREED if answer.verdict is Verdict.PROVED else Opinion.OPEN
    return Confirmation(Opinion.DISAGREED if answer.feasible else agreed, answer.point, other, answer.seconds)
