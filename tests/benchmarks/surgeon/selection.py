"""Selections side by side on the same quadratics: ``python -m tests.benchmarks.surgeon.selection MODEL DATA``.

Rows of the model's layers with the second moments of their inputs as H. The Combinatorial Brain Surgeon's swaps and
ours have the same time; both are judged on the refit cost (all other weights of the row at their best), and CBS on its
own objective too, beside the exact blocks. Then blocks of weights proved by two solvers, and small rows proved on the
refit cost. Costs are sums of squares of the row's outputs per sample, halved; seconds of proofs are processor time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from onnxprune.surgeon.selection import (
    Block,
    BlockResult,
    best_removals,
    block_of,
    cbs_select,
    interacting,
    prove_block,
    refit_cost,
    removal_count,
    repair_by_blocks,
    select_in_rows,
    solve_block,
    without_smallest,
)
from onnxprune.surgeon.selection.arrays import Array, Mask, damped

from .durations import durations
from .layers import Layer, images_of, layers_of, rows_to_try

RIDGE = 1e-4
BLOCK = 20
LIMIT = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    layers = layers_of(options.model, images_of(options.model, options.data, options.images))
    rng = np.random.default_rng(options.seed)
    lines = [f"{options.model.name}, {options.images} images, ridge {RIDGE:g} of the mean diagonal", ""]
    rows = list(rows_to_try(layers, options.rows, rng))
    lines += compare([(layer, row, s) for layer, row in rows for s in options.sparsities], options.seconds)
    lines += ["", *prove_blocks([(layer, row) for layer, row in rows], options.blocks, rng)]
    lines += ["", *prove_rows(rows, rng)]
    if options.large:
        lines += ["", *durations(rng)]
    text = "\n".join(lines) + "\n"
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.surgeon.selection", description=__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="with a JSON file beside it for preprocessing")
    parser.add_argument("data", type=Path, metavar="DATA.npz", help="holds x_train")
    parser.add_argument("--images", type=int, default=1000, help="of the second moments (default 1000)")
    parser.add_argument("--rows", type=int, default=3, help="per layer (default 3)")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.7, 0.9], help="default .5 .7 .9")
    parser.add_argument("--seconds", type=float, default=1.0, help="per selection (default 1)")
    parser.add_argument("--blocks", type=int, default=20, help="blocks of each kind to prove (default 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--large", action="store_true", help="durations at the sizes of real layers, with 2 GB of memory"
    )
    parser.add_argument("--out", type=Path, help="where the tables go as well")
    return parser


@dataclass(frozen=True)
class Outcome:
    """Costs of one selection: refit cost, and CBS's own objective."""

    refit: float
    zeroing: float


def judge(system: Array, w: Array, mask: Mask) -> Outcome:
    removed = np.where(mask, 0.0, w)
    return Outcome(float(refit_cost(system, w[None], mask[None], ridge=0.0)[0]), float(removed @ system @ removed) / 2)


def compare(instances: Sequence[tuple[Layer, int, float]], seconds: float) -> list[str]:
    """Ours against CBS's swaps in the same time."""
    lines = [
        "| row | sparsity | magnitude | CBS swaps | ours | ours / CBS | CBS's objective: CBS | exact blocks | s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    wins, ties, ratios = 0, 0, []
    for layer, row, sparsity in instances:
        system, w = damped(layer.moments, RIDGE), layer.weights[row]
        count = removal_count(len(w), sparsity)
        began = time.perf_counter()
        found = select_in_rows(system, w[None], count, ridge=0.0, seconds=seconds)
        spent = time.perf_counter() - began
        ours = judge(system, w, found.mask[0])
        published, mask = cbs_for(system, w, count, spent)
        plain = judge(system, w, without_smallest(np.abs(w), count))
        seeds = np.argsort(np.abs(np.abs(w) - np.quantile(np.abs(w), sparsity)))[:10].tolist()
        exact, _ = repair_by_blocks(w, system, mask, [interacting(w, system, seed, 40) for seed in seeds])
        repaired = judge(system, w, exact)
        ratio = ours.refit / published.refit if published.refit else 1.0
        wins, ties = wins + (ratio < 1 - 1e-9), ties + (abs(ratio - 1) <= 1e-9)
        ratios.append(ratio)
        lines.append(
            f"| {layer.name}[{row}] | {sparsity:g} | {plain.refit:.4g} | {published.refit:.4g} | {ours.refit:.4g} | "
            f"{ratio:.3f} | {published.zeroing:.4g} | {repaired.zeroing:.4g} | {spent:.2f} |"
        )
    worse = len(instances) - wins - ties
    lines += ["", f"Refit cost, ours against CBS's swaps: better on {wins}, equal on {ties}, worse on {worse}."]
    return [*lines, f"Geometric mean of ours / CBS: {np.exp(np.mean(np.log(ratios))):.3f}."]


def cbs_for(system: Array, w: Array, count: int, seconds: float) -> tuple[Outcome, Mask]:
    """CBS-S again and again for so long, at least once: its best refit cost, its best objective, and that mask."""
    factor = np.linalg.cholesky(system).T * np.sqrt(len(w))  # G'G / n = H
    began, seed, best, lowest, mask = time.perf_counter(), 0, np.inf, np.inf, np.ones(len(w), dtype=np.bool_)
    while not seed or time.perf_counter() - began < seconds:
        told = cbs_select(w, factor, count, ridge=0.0, seed=seed, least_gain=1e-9)
        here = judge(system, w, told.mask)
        best = min(best, here.refit)
        if here.zeroing < lowest:
            lowest, mask = here.zeroing, told.mask
        seed += 1
    return Outcome(best, lowest), mask


def prove_blocks(rows: Sequence[tuple[Layer, int]], count: int, rng: np.random.Generator) -> list[str]:
    """Blocks of weights that interact, and random ones, by MILP and by branch and bound."""
    lines = [
        f"| blocks of {BLOCK} | number | MILP proved in {LIMIT:g} s | MILP s (median, most) | ours s (median, most) | "
        "largest difference | exchanges not best |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for kind, blocks in {
        "interacting weights of rows": [row_block(*rows[n % len(rows)], rng) for n in range(count)],
        "random positive semi-definite": [random_block(rng) for _ in range(count)],
    }.items():
        theirs = [timed(partial(prove_block, block, seconds=30.0)) for block in blocks]
        ours = [timed(partial(solve_block, block)) for block in blocks]
        pairs = list(zip(blocks, theirs, ours, strict=True))
        proved = sum(t.gap <= 1e-6 * b.scale and t.seconds <= LIMIT for b, t, _ in pairs)
        told = [_median_and_most(results) for results in (theirs, ours)]
        apart = max(abs(t.value - o.value) / b.scale for b, t, o in pairs)
        missed = sum(o.value < o.local - 1e-9 * b.scale for b, _, o in pairs)
        cells = [kind, len(pairs), f"{proved} ({100 * proved / len(pairs):.0f} %)", *told, f"{apart:.1e}", missed]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def timed(run: Callable[[], BlockResult]) -> BlockResult:
    """A result with its processor time, which other programmes on the machine do not change."""
    began = time.process_time()
    return replace(run(), seconds=time.process_time() - began)


def _median_and_most(results: Sequence[BlockResult]) -> str:
    spent = [result.seconds for result in results]
    return f"{np.median(spent):.2f}, {max(spent):.2f}"


def row_block(layer: Layer, row: int, rng: np.random.Generator) -> Block:
    """A weight near the threshold and those that interact most with it, the row pruned by magnitude."""
    w = layer.weights[row]
    sparsity = rng.uniform(0.5, 0.9)
    mask = without_smallest(np.abs(w), removal_count(len(w), sparsity))
    alive = np.diag(layer.moments) > 0
    near = np.argsort(np.abs(np.abs(w) - np.quantile(np.abs(w), sparsity)) + np.where(alive, 0.0, np.inf))[:60]
    among = np.isin(np.arange(len(w)), near) & alive
    index = interacting(w, layer.moments, int(rng.choice(np.flatnonzero(among))), BLOCK, among)
    block = block_of(w, layer.moments, mask, index)
    return block if 0 < block.count < block.size else Block(block.quadratic, block.linear, block.size // 2)


def random_block(rng: np.random.Generator) -> Block:
    inputs, w = rng.normal(size=(int(rng.integers(BLOCK // 2, 3 * BLOCK)), BLOCK)), rng.normal(size=BLOCK)
    return Block(w[:, None] * (inputs.T @ inputs / len(inputs)) * w, np.zeros(BLOCK), BLOCK // 2)


def prove_rows(rows: Sequence[tuple[Layer, int]], rng: np.random.Generator) -> list[str]:
    """The best sets on the refit cost among 25 weights of each row."""
    lines = ["| 25 weights of | removed | exchanges | best | ratio | nodes | s |", "|---|--:|--:|--:|--:|--:|--:|"]
    for layer, row in rows:
        alive = np.flatnonzero(np.diag(layer.moments) > 0)
        place = np.sort(rng.permutation(alive)[:25])
        system, w = damped(layer.moments[np.ix_(place, place)], RIDGE), layer.weights[row, place]
        count = len(place) * 3 // 5
        found = best_removals(system, w, count, ridge=0.0)
        ratio = found.local / found.value if found.value else 1.0
        lines.append(
            f"| {layer.name}[{row}] | {count} | {found.local:.4g} | {found.value:.4g} | {ratio:.3f} | {found.nodes} | "
            f"{found.seconds:.2f} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
