"""What pruning keeps in memory, said before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from onnxprune.graph.graph import Graph
from onnxprune.surgeon.calibration import Calibration
from onnxprune.surgeon.matching import STORED
from onnxprune.surgeon.targets import parameters, working_model


@dataclass(frozen=True)
class Memory:
    """Samples, and the memory they take.

    Attributes:
        fitted: Samples to fit on.
        held_out: Samples to choose and to compare on.
        sample_bytes: Of all samples.
        feature_bytes: Of what the dense model answers to the fitted samples, where that is kept.
        recomputed: It is too much to keep, and computed again for every batch.
    """

    fitted: int
    held_out: int
    sample_bytes: int
    feature_bytes: int
    recomputed: bool

    def __str__(self) -> str:
        samples = f"{self.fitted + self.held_out:,} samples, {_size(self.sample_bytes)}"
        kept = "features computed anew for every batch" if self.recomputed else f"{_size(self.feature_bytes)}"
        return f"{samples}; {kept if self.recomputed else f'features kept: {kept}'}"


def memory(model: onnx.ModelProto, data: Calibration, fit: Calibration, keep: Sequence[str]) -> Memory:
    """Sum it up.

    Args:
        model: The tidied model.
        data: All samples.
        fit: Those to fit on.
        keep: Names of layers that stay as they are.

    Raises:
        InputError: ``keep`` names no layer.
    """
    taps = parameters(Graph(working_model(model, fit)), keep).taps
    features = 4 * sum(taps.values()) * len(fit)
    recomputed = features > STORED
    return Memory(len(fit), len(data) - len(fit), data.nbytes, 0 if recomputed else features, recomputed)


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count} {unit}"
        count = round(count / 1000)
    return f"{count} GB"
