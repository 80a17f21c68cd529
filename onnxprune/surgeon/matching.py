"""How far a pruned network is from the dense one: a weighted sum of squares over outputs and features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import InputError
from onnxprune.surgeon.calibration import Calibration
from onnxprune.surgeon.differentiation import Derivatives
from onnxprune.surgeon.targets import Parameters

Values = dict[str, NDArray[Any]]
CHUNK = 64
"""Samples of one run."""
STORED = 1 << 31
"""Bytes of dense features that are kept instead of being computed again."""


@dataclass(frozen=True)
class Matching:
    """The objective: 1/2 sum over taps t of scale_t ||t(pruned) - t(dense)||^2, averaged over samples.

    Every tap is scaled by its variance on the calibration data, so that the objective has no units: 1 means that
    nothing but the means is left of what the taps say.
    """

    derivatives: Derivatives
    data: Calibration
    dense: Values
    """All parameters of the dense network."""
    scales: dict[str, float]
    """Per tap; for one sample."""
    shapes: dict[str, tuple[int, ...]]
    """Per tap; of one sample."""
    targets: dict[str, NDArray[Any]] | None
    """What the dense network answers to all samples, where that fits into memory."""
    labelled: tuple[str, float] | None
    """The tap whose answers are moved towards the labels, and how far; None without labels."""

    def batch(self, index: NDArray[np.int64]) -> tuple[Mapping[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Inputs and dense answers of some samples."""
        feeds = self.data.take(index).inputs
        if self.targets is not None:
            answers = {name: values[index] for name, values in self.targets.items()}
        else:
            answers = self.derivatives.forward(feeds, self.dense)
        if self.labelled is not None and self.data.labels is not None:
            name, far = self.labelled
            answers[name] = corrected(answers[name], self.data.labels[index], far)
        return feeds, answers

    def gradient(self, values: Values, index: NDArray[np.int64]) -> tuple[float, Values]:
        """Objective on some samples, and its gradient in every parameter."""
        feeds, targets = self.batch(index)
        scales = {name: scale / len(index) for name, scale in self.scales.items()}
        return self.derivatives.squared_loss(feeds, values, targets, scales)

    def loss(self, values: Values, data: Calibration) -> float:
        """Objective on other samples (held out)."""
        total = 0.0
        for start in range(0, len(data), CHUNK):
            part = data.take(slice(start, start + CHUNK)).inputs
            got, wanted = self.derivatives.forward(part, values), self.derivatives.forward(part, self.dense)
            total += sum(s * float(((got[t] - wanted[t]) ** 2).sum(dtype=np.float64)) for t, s in self.scales.items())
        return 0.5 * total / len(data)


def corrected(scores: NDArray[Any], labels: NDArray[np.int64], far: float) -> NDArray[Any]:
    """Scores after a step down the gradient of the cross-entropy: ``z + far (one-hot(label) - softmax(z))``.

    Args:
        scores: Shape (samples, ..., classes), logits; all axes between have length 1.
        labels: Shape (samples,).
        far: Length of the step.
    """
    flat = scores.reshape(len(scores), -1)
    shares = np.exp(flat - flat.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(labels)), labels] -= 1
    return np.asarray((flat - far * shares).reshape(scores.shape).astype(scores.dtype))


def matching(
    derivatives: Derivatives, found: Parameters, data: Calibration, dense: Values, left: float, *, labels: bool = False
) -> Matching:
    """Set up the objective.

    Args:
        derivatives: Differentiates ``found.taps``.
        found: What is compared.
        data: Samples to fit on.
        dense: Parameters of the dense network.
        left: Share of the weights that is left in the end. The features count in full where the outputs of all
            samples are fewer numbers than there are weights to determine, and ever less where they are more.
        labels: Correct the dense network's scores by the labels of the data.

    Raises:
        InputError: Labels do not fit the outputs.
    """
    said = len(data) * sum(found.taps[name] for name in found.outputs)
    weight = min(1.0, (left * found.total / said) ** 2) if said else 1.0
    fits = 4 * sum(found.taps.values()) * len(data) <= STORED
    count = len(data) if fits else min(len(data), 4 * CHUNK)
    chunks = [
        derivatives.forward(data.take(slice(start, min(start + CHUNK, count))).inputs, dense)
        for start in range(0, count, CHUNK)
    ]
    answers = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in found.taps}
    features = len(found.taps) - len(found.outputs)
    scales = {}
    for name, values in answers.items():
        spread = float(((values - values.mean(axis=0)) ** 2).mean(dtype=np.float64))
        share = 1.0 / len(found.outputs) if name in found.outputs else weight / features
        scales[name] = share / (found.taps[name] * spread) if spread > 0 else 0.0
    shapes = {name: values.shape[1:] for name, values in answers.items()}
    labelled = _labelled(found, data, answers) if labels else None
    return Matching(derivatives, data, dense, scales, shapes, answers if fits else None, labelled)


def _labelled(found: Parameters, data: Calibration, answers: Values) -> tuple[str, float]:
    """The tap that scores the classes, and the spread of its scores as the length of the step."""
    if data.labels is None:
        raise InputError("There are no labels.", hint="Put the classes under 'labels' in the calibration data.")
    name = found.outputs[0] if len(found.outputs) == 1 else ""
    classes = found.taps.get(name, 0)
    if not name or answers[name].shape[-1] != classes or data.labels.max() >= classes:
        raise InputError(
            f"The labels (0 to {data.labels.max()}) are no classes of the model's outputs.",
            hint="The model needs one output with one score per class.",
        )
    return name, float(answers[name].std())
