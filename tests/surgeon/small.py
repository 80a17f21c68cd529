"""A small dense model with samples, for pruning runs of a fraction of a second."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import onnxprune
from tests.helpers import DENSE, parse, run, weights

FEATURES, HIDDEN, CLASSES, SAMPLES = 16, 32, 5, 60
WEIGHTS = FEATURES * HIDDEN + HIDDEN * CLASSES


def dense_model(**options: Any) -> onnx.ModelProto:
    """16 inputs, 32 hidden units, 5 scores."""
    values = weights(hidden=HIDDEN, features=FEATURES, outputs=CLASSES, dead=())
    options = {"inputs": f"float[N,{FEATURES}] x", "outputs": f"float[N,{CLASSES}] y", **options}
    return parse(DENSE, weights=values, **options)


def data(count: int = SAMPLES, *, labelled: bool = False) -> dict[str, NDArray[Any]]:
    """Samples; their classes are those that the model finds."""
    found: dict[str, NDArray[Any]] = {"x": np.random.default_rng(1).normal(size=(count, FEATURES)).astype(np.float32)}
    return {**found, "labels": run(dense_model(), found)[0].argmax(axis=1)} if labelled else found


def pruned(model: onnx.ModelProto | None = None, samples: Any = None, **options: Any) -> onnxprune.PruneResult:
    """A quick run."""
    options = {"steps": 20, "threads": 1, **options}
    return onnxprune.prune(model or dense_model(), data() if samples is None else samples, **options)


def stored(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Dense initializers by name."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
