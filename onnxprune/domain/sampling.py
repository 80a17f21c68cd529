"""Drawing values inside a box."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.domain.rounding import finite_range, rounded_within
from onnxprune.domain.types import Array, InputSpec, SampleKind
from onnxprune.errors import InputError


def draw(
    spec: InputSpec,
    bounds: tuple[Array, Array],
    shape: tuple[int, ...],
    rng: np.random.Generator,
    kind: SampleKind,
) -> NDArray[Any]:
    """One value for an input within its bounds, as `Domain.sample` describes."""
    limits = finite_range(spec.dtype)
    if limits is None:
        raise InputError(f"Input '{spec.name}' holds {spec.dtype} and cannot be sampled.", hint="Give data for it.")
    lower, upper = bounds
    integer = spec.dtype.kind in "biu"
    free = spec.dtype.itemsize > 1
    no_lower, no_upper = free & (lower <= limits[0]), free & (upper >= limits[1])
    reach = 10.0 if not integer and rng.random() < 0.1 else 1.0
    low = np.where(no_lower, np.where(no_upper, 0.0 if integer else -reach, upper - reach), lower)
    high = np.where(no_upper, np.where(no_lower, reach, lower + reach), upper)
    start, stop = np.maximum(low, lower), np.minimum(high, upper)
    if kind == "corner":
        values = np.where(rng.random(shape) < 0.5, start, stop)
    else:
        offset = np.zeros(shape)
        if kind != "center":
            offset = rng.standard_normal(shape) if kind == "normal" else rng.uniform(-1, 1, shape)
        values = start / 2 + stop / 2 + (stop / 2 - start / 2) * offset
    if integer:
        values, lower, upper = np.rint(values), np.ceil(start), np.floor(stop)
    return np.asarray(rounded_within(np.clip(values, lower, upper), spec.dtype, lower, upper))
