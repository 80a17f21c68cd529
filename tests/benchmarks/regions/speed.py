"""Speed of the walk: ``python -m tests.benchmarks.regions.speed mnist.npz``.

Cells per second of processor time, the best of three; and for the last network what two processes cost together, how
much sooner they are done, and how large the largest part is that one of them may get last.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxprune.regions import RegionNetwork, Walker, count_exactly
from onnxprune.regions.warm import warm_up

from .peers import averaged
from .training import Array, digits, train

NETWORKS = "784-4-18 784-6-16 64-8-14"
"""Pixels and units."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.regions.speed", description=__doc__)
    parser.add_argument("data", type=Path, metavar="MNIST.npz", help="holds x_train and y_train")
    parser.add_argument("--networks", default=NETWORKS, help=f"pixels and units per layer (default {NETWORKS})")
    parser.add_argument("--two", default="64-10-16", metavar="NETWORK", help="for two processes: a longer count")
    options = parser.parse_args(arguments)
    images, labels = digits(options.data)
    warm_up(lambda text: None)
    for name in options.networks.split():
        network = trained(name, images, labels)
        cells, programmes, seconds = min((counted(network) for _ in range(3)), key=lambda found: found[2])
        print(
            f"{name}: {cells} cells, {cells / seconds:.0f} cells/s, {programmes / cells:.2f} programmes per cell, "
            f"{1e6 * seconds / programmes:.1f} us each",
            flush=True,
        )
    print(f"{options.two}: {two_processes(trained(options.two, images, labels))}")
    return 0


def trained(name: str, images: Array, labels: NDArray[np.int64]) -> RegionNetwork:
    """A network over the unit cube, from its pixels and its units per layer."""
    pixels, *widths = (int(n) for n in name.split("-"))
    hidden = train(averaged(images, pixels), labels, widths)[:-1]
    return RegionNetwork.of_layers(hidden, np.zeros(pixels), np.ones(pixels))


def counted(network: RegionNetwork) -> tuple[int, int, float]:
    """Cells, programmes and seconds of one walk."""
    walker, began = Walker(network), time.process_time()
    cells, _ = walker.count()
    return cells, walker.programmes, time.process_time() - began


def two_processes(network: RegionNetwork) -> str:
    """How much sooner two processes are done than one, their start included, and at what cost."""
    _, alone, waited = measured(network, 1)
    sizes, both, together = measured(network, 2)
    return (
        f"{sum(sizes)} cells, {waited:.1f} s by one process and {together:.1f} s by two, start included "
        f"({waited / together:.2f} times sooner, {both / alone:.2f} times the processor time), "
        f"largest of {len(sizes)} parts {max(sizes) / sum(sizes):.1%}"
    )


def measured(network: RegionNetwork, jobs: int) -> tuple[list[int], float, float]:
    """Cells of each part, processor time and wall time of a count."""
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder) / "parts.jsonl"
        spent, began = processor_time(), time.perf_counter()
        count_exactly(network, jobs=jobs, store=parts)
        spent, took = processor_time() - spent, time.perf_counter() - began
        lines = parts.read_text(encoding="utf-8").splitlines()[1:]
    return [json.loads(line)["count"] for line in lines], spent, took


def processor_time() -> float:
    """Seconds of this process and of those it has started and that have ended."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(times.ru_utime + times.ru_stime for times in map(resource.getrusage, who))


if __name__ == "__main__":
    sys.exit(main())
