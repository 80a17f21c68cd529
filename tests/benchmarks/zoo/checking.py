"""Whether a result does the same as its original, in ONNX Runtime, on inputs of its domain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from onnxprune.domain import Domain, InputSpec, parse_domain
from onnxprune.samples import input_specs

SAMPLES = 20
WRONG = 1e-3
"""Share of the output range (at least 1) from which on a difference counts as wrong."""
FREE = 3.0
"""Where a domain has no end, values are drawn this far from its other end, or from 0 ..."""
ENDLESS = 1e30
"""... and this is where it has none."""


class Difference(NamedTuple):
    """Largest difference as a share of the range of its output, and how many entries differ by more than `WRONG`."""

    largest: float
    wrong: int


def compare(original: Path, result: Path, domain: Sequence[str]) -> Difference:
    """Run both on uniform samples and on random corners of the domain's box."""
    specs = input_specs(onnx.load(original, load_external_data=False))
    box = parse_domain(list(domain), specs) if domain else Domain.everything()
    one, other = _session(original), _session(result)
    rng = np.random.default_rng(1)
    largest, wrong = 0.0, 0
    for number in range(SAMPLES):
        feeds = {spec.name: _draw(spec, box, rng, corner=number % 2 == 1) for spec in specs}
        for a, b in zip(one.run(None, feeds), other.run(None, feeds), strict=True):
            expected, found = (np.asarray(value, np.float64) for value in (a, b))
            scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
            error = np.abs(expected - found) / scale
            largest, wrong = max(largest, float(error.max(initial=0.0))), wrong + int((~(error <= WRONG)).sum())
    return Difference(largest, wrong)


def _session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _draw(spec: InputSpec, box: Domain, rng: np.random.Generator, *, corner: bool) -> NDArray[Any]:
    sizes = [n if isinstance(n, int) else 1 if axis == 0 else 64 for axis, n in enumerate(spec.shape or ())]
    low, high = (np.broadcast_to(end, sizes) for end in box.bounds(spec))
    below, above = low < -ENDLESS, high > ENDLESS
    low, high = (
        np.where(below, np.where(above, 0.0, high) - FREE, low),
        np.where(above, np.where(below, 0.0, low) + FREE, high),
    )
    share = rng.integers(0, 2, sizes) if corner else rng.random(sizes)
    values = np.clip(low + share * (high - low), low, high)
    return (np.rint(values) if spec.dtype.kind in "iu" else values).astype(spec.dtype)
