"""Pruning as a rewrite of a graph, for passes."""

from __future__ import annotations

from collections import Counter

import numpy as np

from onnxprune.graph.graph import Graph
from onnxprune.pass_api import PassReport
from onnxprune.runtime import choose_provider
from onnxprune.samples import input_specs
from onnxprune.surgeon.calibration import CalibrationLike, calibration
from onnxprune.surgeon.methods import operated
from onnxprune.surgeon.options import PruneOptions
from onnxprune.surgeon.writing import write_values


def prune_graph(graph: Graph, data: CalibrationLike, options: PruneOptions, what: str) -> PassReport:
    """Prune and refit in place.

    Args:
        graph: The graph; weights that are stored sparse stay as they are.
        data: As for :func:`onnxprune.prune`.
        options: What is asked for.
        what: What the zeros are called in the report.

    Raises:
        InputError: The data or an option cannot be used, or nothing can be pruned.
    """
    model = graph.to_model()
    samples = calibration(data, input_specs(model), limit=options.samples, seed=options.seed)
    fit, held = samples.split(options.seed)
    done = operated(model, fit, held, options, choose_provider(options.provider))
    before = {name: np.count_nonzero(constant.values) for name, constant in graph.constants().items()}
    write_values(graph, done.values)
    targets = [target.name for target in done.found.targets]
    zeros = sum(before[name] - np.count_nonzero(done.values[name]) for name in targets)
    return PassReport(modified=True, changes=Counter({what: int(zeros)}))
