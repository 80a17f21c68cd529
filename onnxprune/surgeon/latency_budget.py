"""Which share of the multiply-adds a model has to give up to reach a latency: measured, not modelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.bounds.static import StaticGraph
from onnxprune.errors import InputError
from onnxprune.graph.graph import Graph
from onnxprune.latency import measure
from onnxprune.runtime import Feeds
from onnxprune.surgeon.calibration import Calibration
from onnxprune.surgeon.curvature import group_costs
from onnxprune.surgeon.differentiation import Derivatives
from onnxprune.surgeon.matching import matching
from onnxprune.surgeon.options import PruneOptions
from onnxprune.surgeon.reach import reachable
from onnxprune.surgeon.targets import parameters, working_model
from onnxprune.surgeon.units import PROBES, Channels, UnitChoice
from onnxprune.surgeon.writing import with_values

SAMPLES = 256
"""Samples that are enough to rank channels once."""
HALVINGS = 7
LEAST = 0.02
"""Smallest share of the multiply-adds that is tried."""


@dataclass(frozen=True)
class LatencyBudget:
    """What a latency comes to.

    Attributes:
        asked: Share of the latency that may be left.
        macs: Share of the multiply-adds with which it is reached.
        expected: Share of the latency measured there, of a model that was cut but not refitted.
    """

    asked: float
    macs: float
    expected: float


Shrink = Callable[[onnx.ModelProto], onnx.ModelProto]
"""Removes physically what is zero."""


def latency_budget(
    original: onnx.ModelProto,
    tidied: onnx.ModelProto,
    data: Calibration,
    feeds: Feeds,
    options: PruneOptions,
    provider: str,
    shrink: Shrink,
) -> LatencyBudget:
    """Bisect the share of multiply-adds; candidates are cut at the dense point and run in turn with the original.

    Args:
        original: Whose latency counts as 1.
        tidied: The model to cut.
        data: Samples to rank channels with.
        feeds: Inputs to measure with.
        options: What is asked for; ``options.latency`` is set.
        provider: Execution provider.
        shrink: Removes physically what is zero.

    Raises:
        InputError: The latency cannot be reached by removing units.
    """
    asked = options.latency or 1.0
    cut = _cutter(tidied, data, options, provider)
    ratios: dict[bytes, float] = {}

    def ratio(candidate: onnx.ModelProto) -> float:
        models = {"original": original, "candidate": candidate}
        found = measure(
            models, feeds, provider=provider, threads=options.threads, custom_ops=(), stopped=options.stopped
        )
        return float(np.median(found.times["candidate"] / found.times["original"]))

    low, high = LEAST, 1.0
    met: LatencyBudget | None = None
    least = (1.0, 1.0)
    for _ in range(HALVINGS):
        if options.stopped():
            break
        share = (low + high) / 2
        options.progress(f"measuring latency at {share:.0%} of the multiply-adds")
        try:
            candidate, key = cut(share)
        except InputError:  # too little would be left
            low = share
            continue
        if key not in ratios:
            ratios[key] = ratio(shrink(candidate))
        least = min(least, (ratios[key], share))
        if ratios[key] <= asked:
            met, low = LatencyBudget(asked, share, ratios[key]), share
        else:
            high = share
    if met is None:
        raise InputError(
            f"Removing units does not reach {asked:.0%} of the latency; measured at best: {least[0]:.0%}, with "
            f"{least[1]:.0%} of the multiply-adds.",
            hint="Ask for less, or try --align 1.",
        )
    return met


def _cutter(
    tidied: onnx.ModelProto, data: Calibration, options: PruneOptions, provider: str
) -> Callable[[float], tuple[onnx.ModelProto, bytes]]:
    """A function that zeroes the cheapest channels down to a share of the multiply-adds, and what tells cuts apart."""
    graph = Graph(working_model(tidied, data))
    found = parameters(graph, options.keep)
    names = [*(target.name for target in found.targets), *found.followers]
    derivatives = Derivatives(graph, names, list(found.taps), provider=provider, threads=options.threads)
    found = reachable(found, derivatives.refused)
    if not found.targets:
        raise InputError("The model has no weights that can be pruned.", hint="It has no Conv, Gemm, MatMul.")
    constants = graph.constants()
    dense = {n: np.asarray(constants[n].values) for n in names if n not in derivatives.refused}
    sample = data.take(slice(0, SAMPLES))
    objective = matching(derivatives, found, sample, dense, options.latency or 1.0)
    channels = Channels(graph, found)
    rng = np.random.default_rng(options.seed)
    choice = UnitChoice(objective, StaticGraph(graph), channels, 1.0, True, options.align, rng)
    costs = group_costs(objective, dense, channels.reading, channels.count, PROBES, rng)
    everything = np.ones(channels.count, dtype=bool)

    def cut(share: float) -> tuple[onnx.ModelProto, bytes]:
        alive = choice.reduced(everything, costs, share)
        kept = channels.masks(alive)
        zeroed = {name: np.where(kept[name], values, 0) for name, values in dense.items() if name in kept}
        return with_values(tidied, zeroed), alive.tobytes()

    return cut
