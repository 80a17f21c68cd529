"""Comparing the speed of models on a machine that is never quiet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.runtime import Feeds, Runner, latencies

MARGIN = 1.05
"""Slower by less than this ratio is noise."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds per run of several models, round by round: each round runs all of them."""

    times: Mapping[str, NDArray[np.float64]]

    def typical(self, name: str) -> float:
        """The 20 % quantile: what the model takes when nothing else disturbs it much."""
        return float(np.quantile(self.times[name], 0.2))

    def staged(self, result: str) -> Timing:
        """The original, the tidied model and, as ``after``, the one that is handed out."""
        return Timing({"before": self.times["before"], "tidied": self.times["tidied"], "after": self.times[result]})

    def slower(self, name: str, other: str) -> bool:
        """Whether one model is slower than another beyond noise, round by round and in what is typical."""
        paired = float(np.median(self.times[name] / self.times[other]))
        return paired > MARGIN and self.typical(name) > MARGIN * self.typical(other)


def measure(
    models: Mapping[str, onnx.ModelProto],
    feeds: Feeds,
    *,
    provider: str,
    threads: int,
    custom_ops: Sequence[str],
    stopped: Callable[[], bool],
) -> Timing:
    """Run models in turn, with ONNX Runtime's optimizations on.

    Args:
        models: By name.
        feeds: Inputs for all of them.
        provider: Execution provider.
        threads: Intra-operator threads (0: ONNX Runtime's default).
        custom_ops: Shared libraries with custom operators.
        stopped: Ends the measurement after the current round.
    """
    runners = [
        Runner(model, provider=provider, optimize=True, threads=threads, custom_ops=custom_ops)
        for model in models.values()
    ]
    found = latencies(runners, feeds, stopped=stopped)
    return Timing({name: np.asarray(times) for name, times in zip(models, found, strict=True)})
