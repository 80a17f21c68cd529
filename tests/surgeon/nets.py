"""Small networks and samples for the surgeon's tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.graph.graph import Graph
from onnxprune.surgeon.calibration import Calibration
from onnxprune.surgeon.differentiation import Derivatives
from onnxprune.surgeon.matching import Matching, matching
from onnxprune.surgeon.targets import Parameters, parameters, working_model
from tests.helpers import parse


def mlp(seed: int = 0) -> onnx.ModelProto:
    """Two dense layers of 6 inputs, 5 units, 3 outputs."""
    rng = np.random.default_rng(seed)
    weights = {"w1": rng.normal(size=(5, 6)), "b1": rng.normal(size=5), "w2": rng.normal(size=(3, 5))}
    body = "h = Gemm<transB = 1>(x, w1, b1)  r = Relu(h)  y = Gemm<transB = 1>(r, w2)"
    return parse(body, "float[N,6] x", weights={k: v.astype(np.float32) for k, v in weights.items()})


def linear(seed: int = 0, rows: int = 3, columns: int = 6) -> onnx.ModelProto:
    """One dense layer without bias."""
    values = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    return parse("y = Gemm<transB = 1>(x, w)", f"float[N,{columns}] x", f"float[N,{rows}] y", weights={"w": values})


def convolutions(seed: int = 0) -> onnx.ModelProto:
    """A residual block of 8 channels with 8 channels inside, then a dense layer on 8 means."""
    rng = np.random.default_rng(seed)
    shapes = {"w0": (8, 3, 3, 3), "w1": (8, 8, 3, 3), "w2": (8, 8, 3, 3), "w3": (4, 8)}
    weights = {name: rng.normal(size=shape) / np.sqrt(np.prod(shape[1:])) for name, shape in shapes.items()}
    weights |= {f"b{i}": rng.normal(size=8) * 0.1 for i in range(3)}
    body = """
        c0 = Conv<pads = [1, 1, 1, 1]>(x, w0, b0)  a0 = Relu(c0)
        c1 = Conv<pads = [1, 1, 1, 1]>(a0, w1, b1)  a1 = Relu(c1)
        c2 = Conv<pads = [1, 1, 1, 1]>(a1, w2, b2)  s = Add(c2, a0)  a2 = Relu(s)
        p = GlobalAveragePool(a2)  f = Flatten(p)  y = Gemm<transB = 1>(f, w3)
    """
    arrays = {name: values.astype(np.float32) for name, values in weights.items()}
    return parse(body, "float[N,3,6,6] x", "float[N,4] y", weights=arrays)


def samples(shape: tuple[int, ...], count: int = 40, seed: int = 1) -> Calibration:
    """Correlated normal samples of an input ``x``."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, *shape))
    mixed = values + 0.7 * np.roll(values, 1, axis=-1)
    return Calibration({"x": mixed.astype(np.float32)}, None)


def objective_of(
    model: onnx.ModelProto, data: Calibration, left: float = 0.5, dtype: Any = np.float32
) -> tuple[Graph, Parameters, Matching]:
    """The objective that matches a network with itself."""
    graph = Graph(working_model(model, data))
    found = parameters(graph, ())
    names = [*(t.name for t in found.targets), *found.followers]
    derivatives = Derivatives(graph, names, list(found.taps), threads=1, dtype=dtype)
    dense: dict[str, NDArray[Any]] = {name: np.asarray(graph.constants()[name].values) for name in names}
    return graph, found, matching(derivatives, found, data, dense, left)
