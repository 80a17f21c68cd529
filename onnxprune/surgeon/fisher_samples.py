"""Per-sample gradients of a loss in all weights that can be pruned, as one matrix: a factor of the empirical Fisher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxprune.surgeon.calibration import Calibration
from onnxprune.surgeon.differentiation import Derivatives
from onnxprune.surgeon.matching import Values
from onnxprune.surgeon.sample_loss import SampleLoss, Tensors
from onnxprune.surgeon.selection.arrays import Array

Scalar = TypeVar("Scalar", bound=np.generic)
MOST_BYTES = 1 << 31
"""Of the matrix."""
CHUNK = 64
"""Samples of one run."""


@dataclass(frozen=True)
class Flattened:
    """All weights as one vector.

    Attributes:
        shapes: By name, in the order in which they stand in the vector.
    """

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def joined(self, values: Mapping[str, NDArray[np.floating]]) -> Array:
        """The vector, shape (N,)."""
        return np.concatenate([np.asarray(values[name], dtype=np.float64).reshape(-1) for name in self.shapes])

    def apart(self, vector: NDArray[Scalar]) -> dict[str, NDArray[Scalar]]:
        """Its parts in the shapes of the weights."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes.values()])
        parts = np.split(vector, ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def cast(self, vector: Array, like: Values) -> Values:
        """Its parts, with the element types of other values."""
        return {name: part.astype(like[name].dtype) for name, part in self.apart(vector).items()}


@dataclass(frozen=True)
class Losses:
    """The loss of samples as a function of the weights.

    Attributes:
        derivatives: Differentiates the outputs.
        loss: Compares them.
        dense: Weights of the dense network.
    """

    derivatives: Derivatives
    loss: SampleLoss
    dense: Values

    def wanted(self, data: Calibration) -> Tensors:
        """What the outputs for all samples are compared with."""
        return self.loss.wanted(self.outputs(data, self.dense), data)

    def outputs(self, data: Calibration, values: Values) -> Tensors:
        """Outputs for all samples."""
        parts = [self.derivatives.forward(data.take(piece).inputs, values) for piece in _pieces(len(data))]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def mean(self, data: Calibration, values: Values, wanted: Tensors) -> float:
        """Mean loss."""
        return self.loss.mean(self.outputs(data, values), wanted)

    def gradients(self, data: Calibration, flattened: Flattened) -> NDArray[np.float32]:
        """Gradient of each sample's loss at the dense network, shape (samples, N)."""
        found = np.empty((len(data), flattened.size), dtype=np.float32)
        for piece in _pieces(len(data)):
            part = data.take(piece)
            outputs = self.derivatives.forward(part.inputs, self.dense)
            slopes = self.loss.slopes(outputs, self.loss.wanted(outputs, part))
            told = self.derivatives.per_sample(part.inputs, self.dense, slopes)
            columns = [told[name].reshape(len(part), -1) for name in flattened.shapes]
            np.concatenate(columns, axis=1, out=found[piece])
        return found


def most_samples(weights: int) -> int:
    """How many samples there is room for."""
    return max(1, MOST_BYTES // (np.dtype(np.float32).itemsize * weights))


def mean_square(gradients: NDArray[np.float32]) -> float:
    """Mean of the diagonal of the empirical Fisher matrix."""
    return sum(float(np.vdot(row, row)) for row in gradients) / gradients.size


def _pieces(count: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
