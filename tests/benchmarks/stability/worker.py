"""Runs one of our methods on one model and domain: ``python -m tests.benchmarks.stability.worker JOB.json OUT.json``.

A process of its own, so that a crash, a hang and the peak memory belong to this run alone. The job holds ``model``,
``domain`` (see :func:`domain_of`), ``method`` and ``budget``; the result ``seconds`` (from the loaded model to its
states, imports left out), ``peak_mb``, ``stages``, ``layers`` (states of the units behind every ReLU, front to back)
and ``figures``.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.bounds import Bounds, interval_bounds, linear_bounds
from onnxprune.bounds.linear import Effort
from onnxprune.bounds.static import StaticGraph
from onnxprune.domain import Domain, InputSpec, parse_domain
from onnxprune.graph.files import load
from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups
from onnxprune.operators import Axis
from onnxprune.optimizer import _Job, optimize
from onnxprune.options import Options
from onnxprune.pipeline import Reduced
from onnxprune.runtime import Runner
from onnxprune.samples import input_specs
from onnxprune.stability.ledger import Ledger, Place
from onnxprune.witness.evaluator import Evaluator
from tests.benchmarks.peers.runner import peak_mb

UNLIMITED = 1e12
"""Operations of linear bounds: nothing is skipped."""
SAMPLES, CHUNK, CHECKS = 50_000, 2_500, 256
KINDS: tuple[Literal["uniform", "corner"], ...] = ("uniform", "corner")
Switching = Mapping[Axis, NDArray[np.bool_]]


def domain_of(given: Mapping[str, Any], specs: Sequence[InputSpec]) -> Domain:
    """The domain of a job: ``texts``, with ``mean`` and ``std`` for pixels, or ``lower`` and ``upper`` of one input."""
    if "lower" not in given:
        return parse_domain(given["texts"], specs, mean=given.get("mean"), std=given.get("std"))
    with tempfile.TemporaryDirectory() as folder:
        box = Path(folder) / "box.npz"
        name = specs[0].name
        ends: dict[str, Any] = {f"{name}.{end}": np.array(given[end], dtype=np.float64) for end in ("lower", "upper")}
        np.savez(box, **ends)
        return parse_domain([str(box)], specs)


def states(graph: Graph, bounds: Bounds, switching: Switching) -> list[dict[str, Any]]:
    """One code per unit behind every ReLU (i, a, c, u, ?), and how many entries nothing is proved about."""
    groups = ChannelGroups(graph)
    ledger = Ledger(StaticGraph(graph), groups)
    ledger.tighten(bounds)
    places = {place.tensor: place for place in reversed(ledger.places)}
    found = []
    for node in graph.nodes:
        if node.op == "Relu" and node.inputs[0].name in places:
            place = places[node.inputs[0].name]
            codes = _codes(place, switching.get((place.tensor, ledger.axes[place.tensor])))
            loose = ~place.proved(1) & ~place.proved(-1)
            width = float(np.mean(place.high - place.low))
            undecided = np.array([code == "?" for code in codes])[place.units]
            found.append(
                {
                    "tensor": place.tensor,
                    "states": codes,
                    "entries": len(place.low),
                    "unproved": int(loose.sum()),
                    "open": int((loose & undecided).sum()),
                    "width": width if np.isfinite(width) else None,
                }
            )
    return found


def _codes(place: Place, switching: NDArray[np.bool_] | None) -> str:
    shown = np.zeros(len(place.refuted[1]), dtype=bool) if switching is None else switching
    fixed = np.ones(len(shown), dtype=bool)
    np.logical_and.at(fixed, place.units, (place.low == place.high) & (place.low > place.knot))
    rows = zip(place.settled(1), fixed, place.settled(-1), shown, strict=True)
    return "".join("i" if off else "c" if c else "a" if on else "u" if both else "?" for off, c, on, both in rows)


def _optimize(path: Path, domain: Domain, rule: str, budget: float) -> dict[str, Any]:
    """What is left after all exact passes, and the error on inputs of our own."""
    result = optimize(path, domain, goal="size", align=1, rule=rule, budget=budget, remember=False)
    report = result.report
    before, after = _widths(result.source.model), _widths(result.model)
    return {
        "hidden_before": sum(before[:-1]),
        "hidden_after": sum(after[:-1]),
        "widths_before": before,
        "widths_after": after,
        "removed": report["units"]["removed"],
        "merged": report["units"]["merged"],
        "macs_before": report["before"]["macs"],
        "macs_after": report["after"]["macs"],
        "deviation": report["deviation"],
        "deviation_bound": report["validation"]["deviation_bound"],
        "validation_error": report["validation"]["max_abs_error"],
        "own_error": _error(result.source.model, result.model, domain),
        "proof_seconds": report["proof"]["seconds"],
        "by_method": report["proof"]["by_method"],
    }


def _widths(model: onnx.ModelProto) -> list[int]:
    """Outputs of every Gemm and MatMul, front to back."""
    sizes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in sizes:
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            found.append(int(sizes[node.input[1]][0 if transposed else -1]))
    return found or [0]


def _error(before: onnx.ModelProto, after: onnx.ModelProto, domain: Domain) -> float:
    specs = input_specs(before)
    shapes = {s.name: tuple(d if isinstance(d, int) else 1 for d in s.shape or ()) for s in specs}
    rng = np.random.default_rng(12345)
    one, two = (Runner(model, provider="CPUExecutionProvider") for model in (before, after))
    worst = 0.0
    for number in range(CHECKS):
        feeds = domain.sample(specs, shapes, rng, KINDS[number % 2])
        for a, b in zip(one.run(feeds), two.run(feeds), strict=True):
            worst = max(worst, float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max(initial=0.0)))
    return worst


def _sampled(graph: Graph, domain: Domain) -> list[dict[str, Any]]:
    """Units that switch on uniform samples of the box; those shown on one side alone stay open."""
    net = StaticGraph(graph)
    ledger = Ledger(net, ChannelGroups(graph))
    rng = np.random.default_rng(1)
    box = net.input_box(domain)
    for _ in range(SAMPLES // CHUNK):
        points = {n: low + rng.random((CHUNK, len(low))) * (high - low) for n, (low, high) in box.items()}
        ledger.note(Evaluator(net).run(points))
    return states(graph, Bounds({}), ledger.switching())


def work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Do a job."""
    path, method, budget = Path(job["model"]), str(job["method"]), float(job["budget"])
    source = load(path)
    domain = domain_of(job["domain"], input_specs(source.model))
    began = time.perf_counter()
    result: dict[str, Any] = {"layers": [], "stages": [], "figures": {}}
    if method.startswith("optimize-"):
        result["figures"] = _optimize(path, domain, method.removeprefix("optimize-"), budget)
        return result | {"seconds": time.perf_counter() - began}
    ours = method if method in ("cascade", "leo", "single") else "cascade"
    run = _Job(source, domain, Options(method=ours, budget=budget, remember=False))  # type: ignore[arg-type]
    tidied = run.pipeline.run(Reduced(source.model), [item for item in run.passes if item.name == "tidy"])
    graph = Graph(tidied.model)
    if method == ours:
        proofs = run._prove(tidied.model)
        stages = [stage.method for stage in proofs.stages]
        result |= {"layers": states(graph, proofs.bounds, proofs.switching), "stages": stages}
        result["figures"] = {"proof_seconds": proofs.seconds, "notes": proofs.notes}
    elif method == "samples":
        result["layers"] = _sampled(graph, domain)
    else:
        began = time.perf_counter()  # bounds alone: no runs of the model belong to them
        if method == "interval":
            bounds = interval_bounds(graph, domain)
        else:
            bounds = linear_bounds(graph, domain, Effort(seconds=UNLIMITED, steps=int(method.removeprefix("linear"))))
        result["layers"] = states(graph, bounds, {})
    return result | {"seconds": time.perf_counter() - began}


def main() -> None:
    """Read a job, write its result."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result: dict[str, Any] = {}
    try:
        result = work(job)
    except Exception as error:  # any failure is a measurement here
        result = {"error": f"{type(error).__name__}: {error}"}
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    result["peak_mb"] = max(peak_mb(), children)
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
