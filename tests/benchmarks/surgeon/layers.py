"""Layers of a model as rows of weights and second moments of their inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from onnxprune.surgeon.selection.arrays import Array

_BATCH = 200


@dataclass(frozen=True)
class Layer:
    """A layer with rows of weights that share the moments of their inputs.

    Attributes:
        name: Of the weights.
        weights: Shape (rows, d).
        moments: Shape (d, d), mean of ``x x'``.
        taps: Inputs per channel.
    """

    name: str
    weights: Array
    moments: Array
    taps: int


def images_of(model: Path, data: Path, count: int) -> NDArray[np.float32]:
    """Training images as the model wants them, by the JSON file beside the model."""
    with np.load(data) as arrays:
        pixels = arrays["x_train"][:count].astype(np.float32) / 255
    told = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))["preprocessing"]
    channels = len(told["mean"])
    pixels = pixels.reshape(len(pixels), channels, *pixels.shape[-2:])
    mean, std = (np.array(told[key], dtype=np.float32).reshape(1, channels, 1, 1) for key in ("mean", "std"))
    return np.asarray((pixels - mean) / std, dtype=np.float32)


def layers_of(model: Path, images: NDArray[np.float32]) -> list[Layer]:
    """All Gemm layers (weights transposed) and ungrouped convolutions, in order."""
    proto = onnx.load(model)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    nodes = [node for node in proto.graph.node if node.op_type in ("Gemm", "Conv") and node.input[1] in weights]
    known = {value.name for value in proto.graph.input}
    wanted = list(dict.fromkeys(node.input[0] for node in nodes))
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0].name
    totals: dict[str, Array] = {}
    counts: dict[str, int] = {}
    for first in range(0, len(images), _BATCH):
        batch = images[first : first + _BATCH]
        told = dict(zip([o.name for o in session.get_outputs()], session.run(None, {feed: batch}), strict=True))
        told[feed] = batch
        for node in nodes:
            columns = _columns(told[node.input[0]], node, weights[node.input[1]].shape)
            name = node.input[1]
            totals[name] = totals.get(name, 0.0) + columns.T @ columns
            counts[name] = counts.get(name, 0) + len(columns)
    found = []
    for node in nodes:
        matrix = weights[node.input[1]].astype(np.float64)
        taps = int(np.prod(matrix.shape[2:]))
        name = node.input[1]
        found.append(Layer(name, matrix.reshape(len(matrix), -1), totals[name] / counts[name], taps))
    return found


def _columns(values: NDArray[np.float32], node: onnx.NodeProto, shape: tuple[int, ...]) -> Array:
    """The inputs of a layer's rows, one line per sample and position."""
    if node.op_type == "Gemm":
        return np.asarray(values, dtype=np.float64)
    attributes: dict[str, Any] = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    pads, strides = attributes.get("pads", [0, 0, 0, 0]), attributes.get("strides", [1, 1])
    padded = np.pad(values, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape[2:], axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1]]
    return np.asarray(windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, int(np.prod(shape[1:]))), dtype=np.float64)


def rows_to_try(layers: list[Layer], per_layer: int, rng: np.random.Generator) -> Iterator[tuple[Layer, int]]:
    """Some rows of every layer."""
    for layer in layers:
        for row in sorted(rng.permutation(len(layer.weights))[:per_layer].tolist()):
            yield layer, row
