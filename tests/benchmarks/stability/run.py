"""Undecided units per method: ``python -m tests.benchmarks.stability.run VNNCOMP_DIR BASELINE.csv``.

The baseline holds what auto_LiRPA decided per ReLU layer on the same models and property boxes (columns model,
domain, method, units, undecided, method_time_s). Ours: intervals, then backward linear bounds, then what runs on
samples and guided corners show to switch; all in one process, one row per model and box.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnxprune.bounds import Bounds, interval_bounds, linear_bounds
from onnxprune.domain import Domain, parse_domain
from onnxprune.errors import OnnxpruneError
from onnxprune.graph.files import load
from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups
from onnxprune.samples import input_specs
from onnxprune.stability import LayerStates, State, unit_states, watched
from onnxprune.validate import Validator
from onnxprune.witness import corner_feeds, observe

CPU = "CPUExecutionProvider"
Baseline = dict[tuple[str, str], dict[str, tuple[int, float]]]


def read_baseline(path: Path) -> Baseline:
    """Undecided units and seconds by (model, box) and method; incomplete rows are left out."""
    found: Baseline = defaultdict(dict)
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["status"] == "ok" and row["undecided"] and row["dtype"] == "float32":
                undecided, seconds = found[row["model"], row["domain"]].get(row["method"], (0, 0.0))
                total = undecided + int(row["undecided"])
                found[row["model"], row["domain"]][row["method"]] = (total, max(seconds, float(row["method_time_s"])))
    return found


def count(states: list[LayerStates], *kinds: State) -> int:
    """Units behind a ReLU in one of the states."""
    return sum(layer.count(kind) for layer in states if layer.activation == "Relu" for kind in kinds)


def measure(model: Path, box: Path) -> list[str]:
    """Our columns for one model and property box."""
    source = load(model)
    specs = input_specs(source.model)
    domain = parse_domain([str(box)], specs)
    graph = Graph(source.model)
    groups = ChannelGroups(graph)
    begin = time.perf_counter()
    rough = count(unit_states(graph, groups, interval_bounds(graph, domain)), State.UNDECIDED)
    middle = time.perf_counter()
    bounds = linear_bounds(graph, domain)
    sharp = count(unit_states(graph, groups, bounds), State.UNDECIDED)
    end = time.perf_counter()
    validator = Validator(source.model, domain)
    feeds = [*validator.feeds, *_corners(bounds, domain, validator)]
    seen = observe(source.model, watched(graph, groups), feeds, provider=CPU, custom_ops=())
    left = unit_states(graph, groups, bounds, seen)
    units = count(left, *State)
    times = (middle - begin, end - middle, time.perf_counter() - end)
    decided = [units, rough, sharp, count(left, State.UNDECIDED)]
    return [*map(str, decided), *(f"{seconds:.2f}" for seconds in times)]


def _corners(bounds: Bounds, domain: Domain, validator: Validator) -> Iterator[dict[str, np.ndarray]]:
    if len(validator.specs) == 1 and validator.specs[0].name in bounds.corners:
        spec = validator.specs[0]
        yield from corner_feeds(bounds.corners[spec.name], spec, domain, validator.shapes[spec.name])


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("models", type=Path)
    parser.add_argument("baseline", type=Path)
    options = parser.parse_args()
    columns = ["model", "box", "IBP*", "CROWN*", "alpha-CROWN*", "units", "intervals", "linear", "left open"]
    columns += ["s intervals", "s linear", "s runs"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for (model, box), methods in sorted(read_baseline(options.baseline).items()):
        paths = [*options.models.rglob(model)], [*options.models.rglob(box)]
        if not paths[0] or not paths[1]:
            continue
        peers = [str(methods[m][0]) if m in methods else "-" for m in ("IBP", "CROWN", "alpha")]
        try:
            ours = measure(paths[0][0], paths[1][0])
        except OnnxpruneError as error:
            ours = [error.what]
        print("| " + " | ".join([model, box, *peers, *ours]) + " |", flush=True)
    print("\n* undecided units after auto_LiRPA 0.7.1, from the baseline file")


if __name__ == "__main__":
    main()
