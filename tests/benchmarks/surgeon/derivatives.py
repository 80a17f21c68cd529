"""Processor time of derivatives, in units of a plain run of the model in ONNX Runtime.

python -m tests.benchmarks.surgeon.derivatives MODEL.onnx [--samples 64] [--rounds 8]

Random inputs; weights are all float initializers with at least two axes; one thread; the least of the rounds counts,
which take turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import onnx

from onnxprune.graph.graph import Graph
from onnxprune.runtime import Runner
from onnxprune.surgeon.differentiation import Derivatives


def measured(path: str, samples: int, rounds: int) -> dict[str, float]:
    """Milliseconds of processor time per purpose."""
    model = onnx.load(path)
    graph = Graph(model)
    constants = {graph.stored_name(name): np.asarray(c.values) for name, c in graph.constants().items()}
    weights = [name for name, array in constants.items() if array.dtype.kind == "f" and array.ndim > 1]
    known = Derivatives(graph, weights, graph.output_names, threads=1)
    values = {name: constants[name] for name in known.weights}
    rng = np.random.default_rng(0)
    feeds = {
        value.name: rng.normal(size=(samples, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:]))).astype(
            np.float32
        )
        for value in graph.inputs
    }
    runner = Runner(model, optimize=True, threads=1)
    answers = known.forward(feeds, values)
    scales = dict.fromkeys(answers, 1.0)
    targets = {name: y + 1 for name, y in answers.items()}
    purposes: dict[str, Callable[[], object]] = {
        "plain run": lambda: runner.run(feeds),
        "forward": lambda: known.forward(feeds, values),
        "pull": lambda: known.pull(feeds, values, answers),
        "squared_loss": lambda: known.squared_loss(feeds, values, targets, scales),
        "push": lambda: known.push(feeds, values, values),
        "curvature": lambda: known.curvature(feeds, values, values, scales),
        "per_sample": lambda: known.per_sample(feeds, values, answers),
    }
    least = dict.fromkeys(purposes, np.inf)
    for _ in range(rounds + 1):
        for name, run in purposes.items():
            began = time.process_time()
            run()
            least[name] = min(least[name], 1e3 * (time.process_time() - began))
    return least


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    found = measured(options.model, options.samples, options.rounds)
    print("| purpose | ms per 100 samples | plain runs |")
    print("|---|--:|--:|")
    for name, milliseconds in found.items():
        share = 100 / options.samples
        print(f"| {name} | {milliseconds * share:.1f} | {milliseconds / found['plain run']:.2f} |")


if __name__ == "__main__":
    main()
