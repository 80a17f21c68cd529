"""Run a network and note between which values every unit's pre-activation was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.operators import Axis
from onnxprune.runtime import Feeds, Runner

ROUNDING = 1e-4
"""Share of the largest value of a tensor that a value must exceed to count: float32 sums are far more exact."""
COARSE = 0.05
"""The same for shorter types."""


@dataclass
class Observed:
    """Smallest and largest value seen per index of one axis, and what counts as rounding there."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    rounding: float = ROUNDING
    """Share of the largest value that may be rounding."""

    @property
    def noise(self) -> float:
        """Values closer to a threshold than this prove nothing."""
        largest = max(float(np.abs(self.low).max(initial=0.0)), float(np.abs(self.high).max(initial=0.0)))
        return self.rounding * largest


def observe(
    model: onnx.ModelProto, axes: Sequence[Axis], batches: Iterable[Feeds], *, provider: str, custom_ops: Sequence[str]
) -> dict[Axis, Observed]:
    """Run a model with some intermediate tensors as additional outputs.

    Args:
        model: The model; not changed.
        axes: Tensors to watch, and the axis that runs over units.
        batches: Inputs inside the domain.
        provider: Execution provider.
        custom_ops: Shared libraries with custom operators.

    Returns:
        What was seen, for the tensors that hold floats and were not empty.
    """
    watched = {name for name, _ in axes} - {value.name for value in model.graph.output}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in sorted(watched))
    runner = Runner(copy, provider=provider, custom_ops=custom_ops)
    seen: dict[Axis, Observed] = {}
    for feeds in batches:
        values = dict(zip(runner.output_names, runner.run(feeds), strict=True))
        for name, axis in axes:
            _note(seen, (name, axis), values)
    return seen


def _note(seen: dict[Axis, Observed], key: Axis, values: Mapping[str, NDArray[np.float64]]) -> None:
    name, axis = key
    value = np.asarray(values[name])
    if value.dtype.kind != "f" or value.size == 0 or axis >= value.ndim or not np.isfinite(value).all():
        return
    others = tuple(a for a in range(value.ndim) if a != axis)
    low, high = value.min(axis=others).astype(np.float64), value.max(axis=others).astype(np.float64)
    known = seen.get(key)
    if known is None:
        seen[key] = Observed(low, high, COARSE if value.dtype.itemsize < 4 else ROUNDING)
    else:
        seen[key] = Observed(np.minimum(known.low, low), np.maximum(known.high, high), known.rounding)
