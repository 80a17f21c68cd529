"""The number of linear regions of a model: bounds, exact counts and estimates in one report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from onnxprune.domain import Domain
from onnxprune.errors import InputError
from onnxprune.graph.kinds import ModelLike
from onnxprune.regions.job import Job, Method
from onnxprune.regions.network import RegionNetwork
from onnxprune.regions.reading import read
from onnxprune.regions.report import RegionReport, number
from onnxprune.regions.survey import Stage, bounds_of, survey, too_much_work, without_rows
from onnxprune.regions.walker import Definition
from onnxprune.regions.warm import warm_up


def count_regions(
    model: ModelLike,
    domain: Domain | str | Sequence[str],
    *,
    method: Method = "auto",
    definition: Definition = "cells",
    include_output: bool = False,
    budget: float = 60.0,
    jobs: int = 1,
    seed: int = 0,
    solver: str = "highs",
    store: Path | str | None = None,
    progress: Callable[[str], None] = lambda text: None,
    stopped: Callable[[], bool] = lambda: False,
) -> RegionReport:
    """Count or bound the linear regions of a piecewise-linear model over a box.

    Networks with maxima (Max, MaxPool) and those with too many units are bounded only.

    Args:
        model: Path, bytes or ModelProto; never changed.
        domain: A Domain, or texts as on the command line; every input needs a finite box.
        method: ``bounds`` proves upper bounds; ``exact`` counts; ``mip`` counts with an integer programme (slow, of
            another making); ``probe`` estimates; ``parity`` bounds from below with random parity rows; ``auto`` bounds,
            estimates, and counts for what is left of the budget, where that can be done.
        definition: ``cells``, ``patterns`` or ``affine``.
        include_output: Let the signs of the outputs cut the domain, too.
        budget: Seconds, once the network is read and the inner loops are compiled (a minute, the first time only).
        jobs: Processes that count.
        seed: Of what is random.
        solver: For integer programmes.
        store: A file that keeps the finished parts of a count, for a later run to go on from.
        progress: Called with what is being done.
        stopped: Asked between steps; True ends with what is known.

    Returns:
        The report: ``definition, lower, upper, exact, estimate, bounds, layers, tolerance_sensitive, seconds, method,
        seed``; what a reader should know besides is in its ``notes``.

    Raises:
        InputError: The model or the domain cannot be used, or there is too much to count by this method.
    """
    began = time.perf_counter()
    for name, value, allowed in (
        ("method", method, get_args(Method)),
        ("definition", definition, get_args(Definition)),
    ):
        if value not in allowed:
            raise InputError(f"There is no {name} '{value}'.", hint=f"Use one of {', '.join(allowed)}.")
    if definition == "affine" and method in ("mip", "parity", "probe"):
        raise InputError(f"Method {method} does not know affine regions.", hint="Use --method exact, or count cells.")
    if store is not None and method not in ("auto", "exact"):
        raise InputError(f"Method {method} has no parts that a store could keep.", hint="Use --method auto or exact.")
    progress("reading the network")
    reading = read(model, domain)
    if include_output and not reading.outputs:
        raise InputError("The outputs are no affine map of the units.", hint="Leave out the signs of outputs.")
    stages = survey(reading, include_output=include_output)
    rowless = without_rows(stages)
    obstacle = rowless or too_much_work(stages, reading.dimension)
    bounds = bounds_of(stages, reading.dimension, definition) if obstacle else {}
    upper = min((value for value in bounds.values() if value is not None), default=0)
    if obstacle and method not in ("auto", "bounds") and upper > 1:
        raise InputError(
            f"{obstacle} (proved: at most {number(upper)}).", hint="Use --method bounds, or take a smaller domain."
        )
    if rowless:
        return _bounded(stages, bounds, definition, (method, seed, began), rowless)
    network = RegionNetwork.of_reading(reading, include_output=include_output)
    if method != "bounds" and not obstacle:
        warm_up(progress)
    deadline = time.perf_counter() + budget
    job = Job(network, definition, deadline, jobs, seed, solver, progress, stopped, obstacle, store)
    return job.run(method, began)


def _bounded(
    stages: Sequence[Stage],
    bounds: dict[str, int | None],
    definition: Definition,
    asked: tuple[Method, int, float],
    reason: str,
) -> RegionReport:
    """The report where nothing but bounds is known."""
    method, seed, began = asked
    upper = min(value for value in bounds.values() if value is not None)
    layers = [{"active": s.active, "inactive": s.inactive, "unstable": len(s.open)} for s in stages]
    content = {
        "definition": definition,
        "lower": 1,
        "upper": upper,
        "exact": 1 if upper == 1 else None,
        "estimate": None,
        "bounds": bounds,
        "layers": layers,
        "tolerance_sensitive": False if upper == 1 else None,
        "seconds": round(time.perf_counter() - began, 3),
        "method": method,
        "seed": seed,
    }
    return RegionReport(content, (f"{reason}.",) if upper > 1 else ())
