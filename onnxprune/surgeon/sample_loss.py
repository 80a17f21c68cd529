"""The loss whose per-sample gradients make up an empirical Fisher matrix: cross entropy, or squared error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import InputError
from onnxprune.surgeon.calibration import Calibration

Tensors = Mapping[str, NDArray[Any]]
"""By name of the output, samples first."""


class SampleLoss(Protocol):
    """A loss of each sample by itself, a function of the outputs and of what they are compared with."""

    def wanted(self, dense: Tensors, data: Calibration) -> Tensors:
        """What the outputs for some samples are compared with, from the dense model's outputs for them."""

    def mean(self, outputs: Tensors, wanted: Tensors) -> float:
        """Mean loss."""

    def slopes(self, outputs: Tensors, wanted: Tensors) -> dict[str, NDArray[Any]]:
        """Gradient of each sample's loss in the outputs."""


@dataclass(frozen=True)
class CrossEntropy:
    """``-log softmax(scores)[class]``, in nats, with the labels of the data or the dense model's most likely class.

    Attributes:
        output: Holds one score per class.
    """

    output: str

    def wanted(self, dense: Tensors, data: Calibration) -> Tensors:
        """Classes, shape (samples,).

        Raises:
            InputError: The output is no set of scores, or there are labels it has no score for.
        """
        scores = _flat(dense[self.output])
        if scores.shape[1] < 2:
            raise InputError(
                f"Output '{self.output}' has one entry per sample; a cross entropy needs one score per class.",
                hint="Leave the labels and --task classify out.",
            )
        if data.labels is None:
            return {self.output: scores.argmax(axis=1)}
        if data.labels.max(initial=0) >= scores.shape[1]:
            raise InputError(
                f"The labels go up to {data.labels.max()}, output '{self.output}' has {scores.shape[1]} entries.",
                hint="Leave the labels out, or number the classes as the output does, from 0.",
            )
        return {self.output: data.labels}

    def mean(self, outputs: Tensors, wanted: Tensors) -> float:
        """Mean cross entropy."""
        scores, classes = _flat(outputs[self.output]), wanted[self.output]
        return float(-_log_softmax(scores)[np.arange(len(scores)), classes].mean())

    def slopes(self, outputs: Tensors, wanted: Tensors) -> dict[str, NDArray[Any]]:
        """``softmax(scores)``, less 1 at the class."""
        scores, classes = _flat(outputs[self.output]), wanted[self.output]
        found = np.exp(_log_softmax(scores))
        found[np.arange(len(scores)), classes] -= 1.0
        return {self.output: found.reshape(outputs[self.output].shape)}


@dataclass(frozen=True)
class SquaredError:
    """Half the squared distance to the dense model's outputs, in units of their variance, all outputs together.

    Its gradient is zero at the dense model. The slopes are therefore those for answers drawn from the normal
    distribution whose negative log-likelihood this loss is: their second moment is the Gauss-Newton matrix of the
    outputs, so that the per-sample gradients are random projections of the outputs' gradients (Martens, 2020, section
    9).

    Attributes:
        scales: Per output, what a squared entry counts.
        rng: Draws the answers.
    """

    scales: Mapping[str, float]
    rng: np.random.Generator = field(repr=False)

    @classmethod
    def of(cls, dense: Tensors, seed: int) -> SquaredError:
        """In the unit of these outputs' variance about their mean over samples."""
        scales = {}
        for name, values in dense.items():
            spread = float(((values - values.mean(axis=0)) ** 2).sum(dtype=np.float64)) / len(values)
            scales[name] = 1.0 / (spread * len(dense)) if spread > 0 else 0.0
        return cls(scales, np.random.default_rng(seed))

    def wanted(self, dense: Tensors, data: Calibration) -> Tensors:
        """The dense model's outputs."""
        return dense

    def mean(self, outputs: Tensors, wanted: Tensors) -> float:
        """Mean over samples: 1/2 says that nothing but the outputs' mean is left."""
        total = sum(s * float(((outputs[n] - wanted[n]) ** 2).sum(dtype=np.float64)) for n, s in self.scales.items())
        return 0.5 * total / len(next(iter(outputs.values())))

    def slopes(self, outputs: Tensors, wanted: Tensors) -> dict[str, NDArray[Any]]:
        """Normal numbers of variance ``scales``."""
        return {n: np.sqrt(s) * self.rng.normal(size=outputs[n].shape) for n, s in self.scales.items()}


def _flat(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(len(values), -1)


def _log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
