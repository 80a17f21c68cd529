"""What a proof is asked for, and what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxprune.bounds import Bounds
from onnxprune.certificate import ClaimStore
from onnxprune.operators import Axis

Method = Literal["cascade", "leo", "single"]


@dataclass(frozen=True)
class Plan:
    """How units are to be proved stable.

    Attributes:
        method: "cascade": cheap stages first; "leo": intervals, then one MILP per unit and side; "single":
            intervals, then one MILP over all units of a layer.
        budget: Seconds for everything beyond bounds; what is proved by then counts.
        trust: "certified" leaves out what rests on a MIP solver's word.
        solver: Name of the solver.
        solver_check: Ask a second solver to confirm every proof of the first.
        jobs: Processes that solve at the same time.
        executor: Takes the place of own processes.
        seed: Of the random starts.
        stopped: Asked often; once true, the proof ends with what it has.
        progress: Told what goes on.
        store: Where claims are kept between runs.
    """

    method: Method = "cascade"
    budget: float = 30.0
    trust: Literal["certified", "solver"] = "solver"
    solver: str = "highs"
    solver_check: bool = False
    jobs: int = 1
    executor: Executor | None = None
    seed: int = 0
    stopped: Callable[[], bool] = lambda: False
    progress: Callable[[str], None] = lambda _: None
    store: ClaimStore | None = None


@dataclass(frozen=True)
class Stage:
    """Bounds as they stood after one method had done its work."""

    method: str
    trust: str
    bounds: Bounds


@dataclass
class Proofs:
    """What was found out about a graph over a domain.

    Attributes:
        bounds: The tightest bounds.
        stages: From first to last; each has the bounds of those before it, or tighter ones.
        switching: Per pre-activation the units that runs have shown on both sides of a knot.
        seconds: Wall time.
        notes: Sentences for the user.
    """

    bounds: Bounds
    stages: list[Stage]
    switching: Mapping[Axis, NDArray[np.bool_]] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
