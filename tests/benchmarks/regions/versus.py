"""Lower bounds with 95 % against one another: ``python -m tests.benchmarks.regions.versus mnist.npz --out DIR``.

On ten networks of 22 units MIPBound runs once as it is published (rows are added until they exclude the last pattern,
then another one is looked for, until there is none; as many runs as the Chernoff form asks for, of which a few are
measured and scaled up) and once as it is here; random descents then get the time that the latter took. Times are
processor times of one thread; where a published run was stopped by its limit, the factor is a lower bound.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnxprune.regions import RegionNetwork, probe_regions
from onnxprune.regions.interior import slack_of
from onnxprune.regions.mip import TOLERANCE, PatternProgramme
from onnxprune.regions.network import Pattern
from onnxprune.regions.parity import parity_bound

from .training import digits, train

SPLITS = "2-20 3-19 4-18 5-17 6-16 8-14 11-11 14-8 16-6 18-4"
FIELDS = "split published_runs published_cpu ours_cpu times_cheaper parity probe probe_cpu descents".split()
CONFIDENCE, SIZE, PILOT = 0.95, 4, 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.regions.versus", description=__doc__)
    parser.add_argument("data", type=Path, metavar="MNIST.npz", help="holds x_train and y_train")
    parser.add_argument("--out", type=Path, required=True, help="where the results go")
    parser.add_argument("--splits", default=SPLITS, help=f"units per layer (default {SPLITS})")
    parser.add_argument("--measured", type=int, default=2, help="published runs that are measured (default 2)")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds of such a run at most (default 120)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "versus.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8"))) if path.is_file() else []
    images, labels = digits(options.data)
    for split in options.splits.split():
        if any(row["split"] == split for row in rows):
            continue
        layers = train(images, labels, [int(n) for n in split.split("-")])[:-1]
        inputs = images.shape[1]
        network = RegionNetwork.of_layers(layers, np.zeros(inputs), np.ones(inputs))
        rows.append({"split": split, **compared(network, options.measured, options.limit)})
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)
        print(rows[-1], file=sys.stderr)
    tighter = sum(float(row["probe"]) > float(row["parity"]) for row in rows)
    print(f"random descents are tighter on {tighter} of {len(rows)} networks")
    cheaper = sorted(float(row["times_cheaper"]) for row in rows)
    print(f"MIPBound is {cheaper[0]:.0f} to {cheaper[-1]:.0f} times cheaper than as published")
    return 0


def compared(network: RegionNetwork, measured: int, limit: float) -> dict[str, str]:
    """One row, but for the name."""
    began = time.process_time()
    published = [_published_run(network, np.random.default_rng([9, seed]), limit) for seed in range(measured)]
    runs = runs_needed(1.0, CONFIDENCE)[1]
    ends = ", ".join(f"{survived} rows" + ("" if ended else " and more") for survived, ended in published)
    theirs = (time.process_time() - began) / measured * runs
    began = time.process_time()
    ours = parity_bound(network, size=SIZE, confidence=CONFIDENCE)
    spent = time.process_time() - began
    began = time.process_time()
    probe_regions(network, probes=PILOT, seed=1)  # how many descents fit is decided before those that count
    each = (time.process_time() - began) / PILOT
    began = time.process_time()
    found = probe_regions(network, probes=max(20, int(0.8 * spent / each)), confidence=CONFIDENCE)
    took = time.process_time() - began
    values = (
        f"{runs} ({ends})", f"{theirs:.1f}", f"{spent:.2f}", f"{theirs / spent:.1f}",
        f"{ours.lower:.0f}", str(found.lower), f"{took:.2f}", str(len(found.values)),
    )  # fmt: skip
    return dict(zip(FIELDS[1:], values, strict=True))


def _published_run(network: RegionNetwork, rng: np.random.Generator, limit: float) -> tuple[int, bool]:
    """How many rows are survived, and whether the limit let the run come to its end."""
    deadline = time.perf_counter() + limit
    most = 2 * network.unstable
    programme = PatternProgramme(network, len(network.layers), parities=(SIZE // 2,) * most)
    pattern = _another(network, programme, deadline)
    for number in range(most):
        if pattern is None:
            return max(0, number - 1), time.perf_counter() < deadline
        row = np.zeros(network.unstable)
        row[rng.choice(network.unstable, size=min(SIZE, network.unstable), replace=False)] = 1.0
        side = float(rng.integers(2))
        programme.demand(row, side, side, (number, -2.0))
        if row @ np.array(pattern) % 2 != side:
            pattern = _another(network, programme, deadline)
    return most, True


def _another(network: RegionNetwork, programme: PatternProgramme, deadline: float) -> Pattern | None:
    """Any region that satisfies the rows so far."""
    while (pattern := programme.some(deadline - time.perf_counter())) is not None:
        if slack_of(network, pattern) > TOLERANCE:
            return pattern
        programme.exclude(pattern)
    return None


def runs_needed(a: float, confidence: float) -> tuple[int, int]:
    """Runs that must all survive j rows for ``N >= 2^(j - a)``: by the exact tail, and by the Chernoff form.

    The Chernoff form bounds ``P[all of R survive]`` with mean ``R 2^-a`` by ``(e^b / (1 + b)^(1 + b))^(R 2^-a)``,
    ``b = 2^a - 1`` (Gomes, Sabharwal and Selman 2006; taken over by the paper).
    """
    delta, b = 1 - confidence, 2.0**a - 1
    exact = math.ceil(math.log(delta) / (-a * math.log(2)) - 1e-9)
    factor = (b - (1 + b) * math.log(1 + b)) / 2.0**a
    return exact, math.ceil(math.log(delta) / factor - 1e-9)


if __name__ == "__main__":
    sys.exit(main())
