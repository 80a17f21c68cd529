"""Counters side by side where all of them finish: ``python -m tests.benchmarks.regions.peers mnist.npz --out DIR``.

Networks with two hidden layers are trained on MNIST averaged to a few pixels. Times are processor times of counting
alone, without imports and reading; the walk is counted often enough that its time can be measured.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from onnxprune.regions import Count, RegionNetwork, count_exactly
from onnxprune.regions.mip import MIPCount, count_by_mip

from .run import with_relucent
from .table import Row, verdicts, write_csv
from .training import Array, digits, train

NETWORKS = "16-4-4 16-5-5 16-6-6 49-4-4"
"""Pixels and units."""
Found = TypeVar("Found")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.regions.peers", description=__doc__)
    parser.add_argument("data", type=Path, metavar="MNIST.npz", help="holds x_train and y_train")
    parser.add_argument("--out", type=Path, required=True, help="where the results go")
    parser.add_argument("--networks", default=NETWORKS, help=f"pixels and units per layer (default {NETWORKS})")
    parser.add_argument("--relucent", type=Path, metavar="PYTHON", help="interpreter of an environment with relucent")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds per count (default 120)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    images, labels = digits(options.data)
    rows: list[Row] = []
    for name in options.networks.split():
        pixels, *widths = (int(n) for n in name.split("-"))
        hidden = train(averaged(images, pixels), labels, widths)[:-1]
        here = with_onnxprune(name, RegionNetwork.of_layers(hidden, np.zeros(pixels), np.ones(pixels)), options.budget)
        if options.relucent:
            here.append(with_relucent(name, hidden, options.relucent, options.budget, options.out))
        rows += here
        write_csv(rows, options.out / "peers.csv")
        ours = here[0].cpu or np.nan
        for row in here:
            times = "" if row.cpu is None else f", {row.cpu:.4f} s, {row.cpu / ours:.0f} times the walk"
            print(f"{name}, {row.method}: {row.status}, found {row.found}{times}", flush=True)
    print("\n".join(verdicts(rows)))
    return 0


def with_onnxprune(name: str, network: RegionNetwork, budget: float) -> list[Row]:
    """The walk and the enumeration by integer programmes."""
    count_exactly(network)  # compiles, the first time
    repeats = range(20)
    found, seconds = timed(lambda: [count_exactly(network) for _ in repeats])
    rows = [_row(name, "exact", found[0], found[0].exact, seconds / len(repeats))]
    slow, seconds = timed(lambda: count_by_mip(network, budget=budget))
    return [*rows, _row(name, "mip", slow, slow.complete, seconds)]


def _row(name: str, method: str, found: Count | MIPCount, complete: bool, cpu: float) -> Row:
    number = float(found.lower if isinstance(found, Count) else found.count)
    return Row(name, method, "ok" if complete else "time", found=number, count=number if complete else None, cpu=cpu)


def timed(work: Callable[[], Found]) -> tuple[Found, float]:
    """A result and the processor time it took."""
    began = time.process_time()
    return work(), time.process_time() - began


def averaged(images: Array, pixels: int) -> Array:
    """Square images of 784 pixels averaged to fewer; where these do not divide them, the margin is cut off."""
    side = round(pixels**0.5)
    block = 28 // side
    margin = (28 - side * block) // 2
    square = images.reshape(-1, 28, 28)[:, margin : margin + side * block, margin : margin + side * block]
    found: Array = square.reshape(-1, side, block, side, block).mean(axis=(2, 4)).reshape(len(images), -1)
    return found


if __name__ == "__main__":
    sys.exit(main())
