"""Networks whose units are stable by a hair: intervals and linear bounds cannot tell, a solver can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from onnxprune.domain import Domain, parse_domain
from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups
from onnxprune.operators import Axis
from onnxprune.samples import input_specs
from onnxprune.stability import Plan, Proofs, State, unit_states
from onnxprune.stability.cascade import prove
from onnxprune.witness import Observed
from tests.helpers import parse

BOX = "-1:1"
FREE = 2
"""Units at the end of each layer but the first that are left as drawn."""


@lru_cache
def planted(seed: int, *, inputs: int = 26, width: int = 10, layers: int = 2, tries: int = 20) -> bytes:
    """Dense ReLU layers; biases make most units inactive, with little to spare beside what a search reaches.

    With more than 24 inputs the box is not split, so the proofs are left to linear and integer programmes.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.float64]] = {}
    rows: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    body, source, size = "", "x", inputs
    for k in range(layers):
        w, b = 2 * rng.normal(size=(width, size)) / np.sqrt(size), 0.3 * rng.normal(size=width)
        if k:
            tops = np.array([_top(rows, w[j], inputs, rng, tries) for j in range(width)])
            b = np.where(np.arange(width) < width - FREE, -tops - 0.1 * np.abs(tops) * rng.random(width), 0.0)
        rows.append((w, b))
        weights |= {f"w{k}": w, f"b{k}": b}
        body += f" h{k} = Gemm <transB = 1> ({source}, w{k}, b{k}) r{k} = Relu (h{k})"
        source, size = f"r{k}", width
    weights["wy"] = rng.normal(size=(2, size))
    body += f" y = Gemm <transB = 1> ({source}, wy)"
    single = {name: values.astype(np.float32) for name, values in weights.items()}
    return parse(body, f"float[N,{inputs}] x", "float[N,2] y", single).SerializeToString()


def _top(rows: Sequence[Any], w: NDArray[np.float64], inputs: int, rng: np.random.Generator, tries: int) -> float:
    """What a search over corners finds for the largest value of a unit."""

    def value(x: NDArray[np.float64]) -> NDArray[np.float64]:
        for matrix, bias in rows:
            x = np.maximum(x @ matrix.T + bias, 0.0)
        return np.asarray(x @ w)

    best = -np.inf
    for _ in range(tries):
        x = np.sign(rng.normal(size=inputs))
        while True:
            near = x * (1 - 2 * np.eye(inputs))
            values = value(near)
            if values.max() <= value(x):
                break
            x = near[values.argmax()]
        best = max(best, float(value(x)))
    return best


def model(seed: int, **options: int) -> ModelProto:
    """The same as an object of its own."""
    return ModelProto.FromString(planted(seed, **options))


def proofs(net: ModelProto, domain: str | Domain, **plan: Any) -> Proofs:
    """What the cascade alone finds out, without a run of the model in ONNX Runtime."""
    graph = Graph(net)
    where = parse_domain([domain], input_specs(net)) if isinstance(domain, str) else domain
    return prove(graph, ChannelGroups(graph), where, Plan(**plan), _blind)


def _blind(axes: Sequence[Axis], corners: Mapping[str, NDArray[np.float64]]) -> Mapping[Axis, Observed]:
    return {}


def states(net: ModelProto, found: Proofs, stage: int = -1) -> dict[str, tuple[State, ...]]:
    """Per layer the states of its units, as they stood after a stage."""
    graph = Graph(net)
    bounds = found.stages[stage].bounds
    return {s.name: s.states for s in unit_states(graph, ChannelGroups(graph), bounds, found.switching)}
