"""From a tidied model and samples to new values of its parameters, by the method that was asked for."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.bounds.static import StaticGraph
from onnxprune.errors import InputError
from onnxprune.graph.graph import Graph
from onnxprune.surgeon.calibration import Calibration
from onnxprune.surgeon.gauss_newton import polish
from onnxprune.surgeon.kronecker import Curves
from onnxprune.surgeon.matching import Matching, Values, matching
from onnxprune.surgeon.options import PruneOptions
from onnxprune.surgeon.paper_methods import published
from onnxprune.surgeon.reach import reach
from onnxprune.surgeon.selection.fisher_blocks import ProvedBlock
from onnxprune.surgeon.stages import STAGES, Choose, Effort, Pruned, operate, stages_for
from onnxprune.surgeon.targets import Parameters, parameters, working_model
from onnxprune.surgeon.units import Channels, UnitChoice
from onnxprune.surgeon.weights import Budgets, PatternChoice, WeightChoice

WORK = 2.4e12
"""Multiply-adds of all steps together, unless the number of steps is given."""
UNITS = 3.0
"""How much more of them whole units are worth: their removal leaves more to make up for."""
FEWEST, STEPS, MOST = 300, 600, 2500
"""Steps at least, worth a smaller batch, and at most where samples are few."""
PASSES = 45
"""Passes over the samples at most where they are many."""
BATCHES = (16, 64)
"""Samples of one step at least and at most."""
POLISHED = 2e9
"""Multiply-adds of one pass over the samples up to which a network is polished."""

POLISHING = 0.2
"""Share of the time that polishing gets where descent has used it all; never longer than descent took."""


@dataclass(frozen=True)
class Operated:
    """New parameters, and how they were found.

    Attributes:
        values: By name of the initializer.
        masks: Which weights stay, by name.
        found: What could be changed.
        share: How far on the way it got (1 unless it was stopped).
        steps: Steps of descent.
        mismatch: Objective on the held-out samples at the end; its unit is the variance of what is compared.
        history: Objective on the fitted samples per stage.
        notes: Sentences for the user.
        blocks: Blocks of CBS's selection that were proved.
    """

    values: Values
    masks: dict[str, NDArray[np.bool_]]
    found: Parameters
    share: float
    steps: int
    mismatch: float
    history: list[float]
    notes: list[str] = field(default_factory=list)
    blocks: list[ProvedBlock] = field(default_factory=list)


def operated(
    model: onnx.ModelProto, fit: Calibration, held: Calibration, options: PruneOptions, provider: str
) -> Operated:
    """Prune and refit.

    Args:
        model: The tidied model.
        fit: Samples to fit on.
        held: Samples that choose between candidates.
        options: What is asked for.
        provider: Execution provider.

    Raises:
        InputError: Nothing can be pruned, or a budget cannot be met.
    """
    graph = Graph(working_model(model, fit))
    found = parameters(graph, options.keep)
    if options.method != "surgeon":
        told = published(graph, found, fit, held, options, provider)
        return Operated(
            told.values, told.masks, told.found, float(bool(told.masks)), 0, told.mismatch, [], told.notes, told.blocks
        )
    found, derivatives = reach(graph, found, provider, options.threads)
    constants = graph.constants()
    dense = {name: np.asarray(constants[name].values) for name in derivatives.weights}
    objective = matching(derivatives, found, fit, dense, _left(options), labels=options.labels)
    rng = np.random.default_rng(options.seed)
    notes: list[str] = []
    choose = _choice(graph, objective, found, options, rng, notes)
    done = operate(objective, choose, _effort(options, found, len(fit)))
    values, mismatch = _polished(objective, done, found, held, options)
    return Operated(values, done.masks, found, done.share, done.steps, mismatch, done.history, notes)


def _left(options: PruneOptions) -> float:
    """About the share of the weights that is left in the end."""
    if options.pattern is not None:
        return options.pattern[0] / options.pattern[1]
    shares = [options.macs, options.params, options.latency, 1 - (options.sparsity or 0.0)]
    return min(share for share in shares if share is not None)


def _choice(
    graph: Graph,
    objective: Matching,
    found: Parameters,
    options: PruneOptions,
    rng: np.random.Generator,
    notes: list[str],
) -> Choose:
    static = StaticGraph(graph)
    if options.structure == "units":
        channels = Channels(graph, found)
        share, macs = (options.macs, True) if options.macs is not None else (options.params, False)
        return UnitChoice(objective, static, channels, share or 1.0, macs, options.align, rng)
    if options.pattern is not None:
        kept, of = options.pattern
        fits = tuple(t for t in found.targets if t.shape[t.in_axis] % of == 0)
        rest = [t.layer for t in found.targets if t not in fits]
        if rest:
            notes.append(
                f"No {options.structure} pattern in {', '.join(rest)}: input channels are no multiple of {of}."
            )
        if not fits:
            raise InputError(f"No layer has a multiple of {of} input channels.", hint="Prune single weights instead.")
        return PatternChoice(Curves(objective, static, fits, (kept, of), rng))
    total = sum(np.asarray(c.values).size for c in graph.constants().values() if np.asarray(c.values).dtype.kind == "f")
    weights = None if options.sparsity is None else 1 - options.sparsity
    budgets = Budgets(weights, options.macs, options.params)
    return WeightChoice(Curves(objective, static, found.targets, None, rng), budgets, total)


def _effort(options: PruneOptions, found: Parameters, samples: int) -> Effort:
    runs = WORK / (3.0 * sum(t.size * t.uses for t in found.targets))
    batch = int(np.clip(runs / STEPS, *BATCHES))
    most, stages = max(MOST, PASSES * samples / batch), stages_for(_left(options))
    if options.structure == "units":
        runs, stages = UNITS * runs, STAGES[1]
    steps = options.steps or int(np.clip(runs / batch, FEWEST, most))
    return Effort(stages, steps, options.budget, batch, options.stopped, options.progress, options.seed)


def _polished(
    objective: Matching, done: Pruned, found: Parameters, held: Calibration, options: PruneOptions
) -> tuple[Values, float]:
    """Gauss-Newton steps where they are cheap."""
    work = len(objective.data) * sum(t.size * t.uses for t in found.targets)
    if work > POLISHED or options.stopped():
        return done.values, objective.loss(done.values, held)
    options.progress("polishing")
    spent = options.budget - done.seconds
    end = time.perf_counter() + min(spent, max(done.seconds, POLISHING * options.budget))

    def stopped() -> bool:
        return options.stopped() or time.perf_counter() > end

    return polish(objective, done.values, done.masks, held, stopped)
