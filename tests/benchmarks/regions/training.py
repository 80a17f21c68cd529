"""Small classifiers of MNIST digits, trained with nothing but numpy."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.helpers import parse

Array = NDArray[np.float64]
Layers = list[tuple[Array, Array]]


def digits(path: Path, count: int = 20_000) -> tuple[Array, NDArray[np.int64]]:
    """Images in [0, 1], flat, and their labels, from an .npz file with ``x_train`` and ``y_train``."""
    with np.load(path) as data:
        images, labels = data["x_train"][:count], data["y_train"][:count]
    return images.reshape(len(images), -1) / 255.0, labels.astype(np.int64)


def train(images: Array, labels: NDArray[np.int64], widths: list[int], *, epochs: int = 3, seed: int = 0) -> Layers:
    """Adam on the cross entropy, batches of 100; weights and biases of every layer, the last one affine."""
    rng = np.random.default_rng(seed)
    sizes = [images.shape[1], *widths, int(labels.max()) + 1]
    parameters: list[Array] = []
    for before, width in pairwise(sizes):
        parameters += [rng.normal(size=(width, before)) * np.sqrt(2 / before), np.zeros(width)]
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in parameters]
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(images))
        for start in range(0, len(order), 100):
            chosen, step = order[start : start + 100], step + 1
            slopes = gradients(parameters, images[chosen], labels[chosen])
            for values, slope, (first, second) in zip(parameters, slopes, moments, strict=True):
                np.add(first, 0.1 * (slope - first), out=first)
                np.add(second, 0.001 * (slope**2 - second), out=second)
                change = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
                np.subtract(values, 2e-3 * change, out=values)
    return list(zip(parameters[::2], parameters[1::2], strict=True))


def gradients(parameters: list[Array], images: Array, labels: NDArray[np.int64]) -> list[Array]:
    """Gradients of the mean cross entropy."""
    values = [images]
    for number in range(0, len(parameters), 2):
        g = values[-1] @ parameters[number].T + parameters[number + 1]
        values.append(g if number == len(parameters) - 2 else np.maximum(g, 0.0))
    share = np.exp(values[-1] - values[-1].max(axis=1, keepdims=True))
    back = share / share.sum(axis=1, keepdims=True)
    back[np.arange(len(labels)), labels] -= 1.0
    back /= len(labels)
    found: list[Array] = []
    for number in range(len(parameters) - 2, -1, -2):
        before = values[number // 2]
        found = [back.T @ before, back.sum(axis=0), *found]
        back = (back @ parameters[number]) * (before > 0)
    return found


def to_model(layers: Layers) -> onnx.ModelProto:
    """Gemm and Relu in turns."""
    body, source, tables = [], "x", dict[str, Any]()
    for n, (weights, bias) in enumerate(layers):
        tables |= {f"w{n}": weights.astype(np.float32), f"b{n}": bias.astype(np.float32)}
        target = "y" if n == len(layers) - 1 else f"g{n}"
        body.append(f"{target} = Gemm <transB = 1> ({source}, w{n}, b{n})")
        body += [] if target == "y" else [f"h{n} = Relu ({target})"]
        source = f"h{n}"
    inputs, outputs = layers[0][0].shape[1], layers[-1][0].shape[0]
    return parse(" ".join(body), f"float[N,{inputs}] x", f"float[N,{outputs}] y", tables)
