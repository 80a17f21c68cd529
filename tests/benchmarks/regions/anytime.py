"""How the interval closes: ``python -m tests.benchmarks.regions.anytime MODEL [DOMAIN] ...``.

For every model: the bound known at once, and lower and upper end after some seconds; that they only get closer.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence

from onnxprune.errors import InputError
from onnxprune.regions import Interval, RegionNetwork, empirical, narrow
from onnxprune.regions.reading import read
from onnxprune.regions.survey import survey, too_much_work, without_rows
from onnxprune.regions.warm import warm_up


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.regions.anytime", description=__doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL[@DOMAIN]", help="such as net.onnx or net.onnx@-1:1")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds for each (default 10)")
    options = parser.parse_args(arguments)
    warm_up(lambda text: None)
    print("| model | unstable | empirical bound, bits | lower | upper, bits | UB/LB, bits | steps | monotone |")
    print("|---|" + "--:|" * 6 + "---|")
    for text in options.models:
        model, _, domain = text.partition("@")
        name = model.rpartition("/")[2]
        try:
            network = counted(model, domain or "0:1")
        except InputError as error:
            print(f"| {name} | {error.what} |", flush=True)
            continue
        known = empirical(network)
        last, steps, monotone = closed(narrow(network, budget=options.budget))
        monotone &= last.lower >= 1 and last.upper <= known
        ratio = math.log2(last.upper) - math.log2(last.lower)
        print(
            f"| {name} | {network.unstable} | {math.log2(known):.1f} | {last.lower:,} | {math.log2(last.upper):.1f} | "
            f"{ratio:.1f} | {steps} | {'yes' if monotone else 'NO'} |",
            flush=True,
        )
    return 0


def counted(model: str, domain: str) -> RegionNetwork:
    """The network, where its regions can be met one by one.

    Raises:
        InputError: They cannot.
    """
    reading = read(model, domain)
    stages = survey(reading)
    if obstacle := without_rows(stages) or too_much_work(stages, reading.dimension):
        raise InputError(obstacle)
    return RegionNetwork.of_reading(reading)


def closed(states: Iterator[Interval]) -> tuple[Interval, int, bool]:
    """The last state, how many there were, and whether none was wider than the one before."""
    last, steps, monotone = next(states), 1, True
    for state in states:
        monotone &= last.lower <= state.lower <= state.upper <= last.upper
        last, steps = state, steps + 1
    return last, steps, monotone


if __name__ == "__main__":
    sys.exit(main())
