"""How long selections take at the sizes of real layers."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from onnxprune.surgeon.selection import (
    LayerChoices,
    allocate,
    cbs_select,
    cbs_update,
    chita,
    greedy_additions,
    greedy_removals,
    improve_by_swaps,
    improve_patterns,
    refit,
    removal_count,
    share_removals,
    without_smallest,
)


def durations(rng: np.random.Generator) -> list[str]:
    """Processor time at the sizes of real layers, on random numbers."""
    lines = ["| what | size | s of processor time |", "|---|---|--:|"]

    def told(what: str, size: str, run: Callable[[], object]) -> None:
        began = time.process_time()
        run()
        lines.append(f"| {what} | {size} | {time.process_time() - began:.2f} |")

    for height, width in ((64, 576), (300, 784)):
        inputs = rng.normal(size=(2 * width, width)) @ rng.normal(size=(width, width))
        moments, w, size = inputs.T @ inputs, rng.normal(size=(height, width)), f"{height} x {width}, half removed"
        found = greedy_removals(moments, w, width // 2)
        mask = found.mask(width // 2)
        told("greedy removal", size, partial(greedy_removals, moments, w, width // 2))
        told("greedy addition", size, partial(greedy_additions, moments, w, width // 2))
        told("refit", size, partial(refit, moments, w, mask))
        told("exchanges to the local optimum", size, partial(improve_by_swaps, moments, w, mask))
        told("2:4 patterns, greedy", size, partial(greedy_removals, moments, w, width // 2, group=(2, 4)))
        start = greedy_removals(moments, w, width // 2, group=(2, 4)).mask(width // 2)
        told("2:4 patterns, sweeps", size, partial(improve_patterns, moments, w, start, (2, 4)))
        told("shares of rows", size, partial(share_removals, list(found.costs), height * width // 4))
    samples, weights = 1000, 270_000
    gradients, w = rng.standard_normal((samples, weights), dtype=np.float32), rng.normal(size=weights) / 100
    shape, count = f"n = {samples}, N = {weights:,}, .9 removed", removal_count(weights, 0.9)
    mask = without_smallest(np.abs(w), count)
    told("CBS selection, both starts", shape, partial(cbs_select, w, gradients, count, least_gain=1e-6))
    told("CBS update", shape, partial(cbs_update, w, gradients, mask))
    told("CHITA", shape, partial(chita, w, gradients, count))
    share = np.linspace(0.05, 1, 10)
    layers = []
    for number in range(50):
        costs = {name: np.round(share * float(rng.integers(1000, 100_000))) for name in ("nnz", "macs")}
        layers.append(LayerChoices(f"layer {number}", rng.random() * (1 - share) ** 2 / share, costs))
    budgets = {name: 0.3 * sum(float(layer.costs[name][-1]) for layer in layers) for name in ("nnz", "macs")}
    told("allocation, two budgets", "50 layers x 10 choices", partial(allocate, layers, budgets))
    return lines
