"""Images as a model wants them, by the JSON file beside the model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray


def prepared(pixels: NDArray[np.uint8], model: Path) -> NDArray[np.float32]:
    """Pixels divided by 255, normalised where a JSON file beside the model says how, in the shape of the input.

    Args:
        pixels: Images first.
        model: Path of the model, with one input.
    """
    scaled = pixels.astype(np.float32) / 255
    beside = model.with_suffix(".json")
    if beside.is_file():
        told = json.loads(beside.read_text(encoding="utf-8"))["preprocessing"]
        channels = len(told["mean"])
        scaled = scaled.reshape(len(scaled), channels, *scaled.shape[-2:])
        mean, std = (np.array(told[key], dtype=np.float32).reshape(1, channels, 1, 1) for key in ("mean", "std"))
        scaled = (scaled - mean) / std
    (source,) = onnx.load(model).graph.input
    sizes = [dim.dim_value for dim in source.type.tensor_type.shape.dim[1:]]
    return np.ascontiguousarray(scaled.reshape(len(scaled), *sizes), dtype=np.float32)


@dataclass(frozen=True)
class Images:
    """Images and their classes.

    Attributes:
        values: As the model wants them.
        labels: Classes.
    """

    values: NDArray[np.float32]
    labels: NDArray[np.int64]


def drawn(model: Path, data: Path, count: int, seed: int) -> Images:
    """Some of the training images, each at most once."""
    with np.load(data) as arrays:
        labels = arrays["y_train"].astype(np.int64)
        index = np.sort(np.random.default_rng(seed).permutation(len(labels))[:count])
        return Images(prepared(arrays["x_train"][index], model), labels[index])


def unseen(model: Path, data: Path) -> Images:
    """All test images."""
    with np.load(data) as arrays:
        return Images(prepared(arrays["x_test"], model), arrays["y_test"].astype(np.int64))
