"""Inputs to run a model on, the difference between two models on them, and their latencies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import product
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .counting import Feeds, feeds_for

Domain = dict[str, tuple[float, float]]
"""Interval per input name; the name ``*`` stands for every input."""

Outputs = dict[str, Any]
SPATIAL = (64, 224, 32, 320, 640, 48)
OTHERS = (8, 16, 32, 288, 512, 576)
TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
KINDS = ("unit", "signed", "normal", "wide")


def parse_domain(texts: Sequence[str]) -> Domain:
    """Domain of ``["0:1"]`` or ``["x=0:1", "y=-1:1"]``, as onnxprune's ``--domain`` takes them.

    Raises:
        ValueError: A text is not of that form.
    """
    domain = {}
    for text in texts:
        name, _, interval = text.rpartition("=")
        low, high = interval.split(":")
        domain[name or "*"] = (float(low), float(high))
    return domain


def working_feeds(session: Any, domain: Domain, seed: int = 0) -> list[dict[str, NDArray[Any]]]:
    """Seeded inputs, one set per kind, at the first sizes for dynamic dimensions on which the model runs.

    Empty when none works.
    """
    rng = np.random.default_rng(seed)
    inputs = session.get_inputs()
    for spatial, other, later in product(SPATIAL, OTHERS, (None, 1)):
        shapes = _shapes(inputs, spatial, other, later or other)
        sets = [{v.name: _sample(v, shapes[v.name], kind, domain, rng) for v in inputs} for kind in KINDS]
        try:
            for feeds in sets:
                session.run(None, feeds)
        except Exception:  # onnxruntime raises its own family of plain exceptions
            continue
        return sets
    return []


def _shapes(inputs: Sequence[Any], spatial: int, other: int, later: int) -> dict[str, tuple[int, ...]]:
    """Sizes for dynamic axes: batch 1, ``later`` for inputs after the first unless they have rank 4."""
    batch = {v.shape[0] for v in inputs if v.shape and isinstance(v.shape[0], str)}
    shapes = {}
    for index, value in enumerate(inputs):
        free = spatial if len(value.shape) == 4 else later if index else other
        shapes[value.name] = tuple(
            d if isinstance(d, int) and d > 0 else 1 if axis == 0 or d in batch else free
            for axis, d in enumerate(value.shape)
        )
    return shapes


def _sample(value: Any, shape: tuple[int, ...], kind: str, domain: Domain, rng: np.random.Generator) -> NDArray[Any]:
    dtype = np.dtype(TYPES[value.type])
    box = domain.get(value.name) or domain.get("*")
    if dtype.kind in "iub":
        high = 255 if dtype == np.uint8 else 1
        return rng.integers(0, high, shape, endpoint=True).astype(dtype)
    if box:
        return rng.uniform(*box, shape).astype(dtype).clip(*box)
    if kind in ("unit", "signed"):
        return rng.uniform(0 if kind == "unit" else -1, 1, shape).astype(dtype)
    return (rng.normal(0, 1 if kind == "normal" else 4, shape)).astype(dtype)


def outputs_of(session: Any, sets: Sequence[Feeds]) -> list[Outputs]:
    """Named outputs per set of inputs."""
    names = [value.name for value in session.get_outputs()]
    return [dict(zip(names, session.run(None, feeds_for(session, f)), strict=True)) for f in sets]


def difference(reference: Sequence[Outputs], candidate: Sequence[Outputs]) -> tuple[float, float]:
    """Largest absolute difference, and largest one relative to the range an output takes over all inputs.

    A missing output, another shape or type, or a non-finite value where the original's is finite counts as
    infinite. The range is taken as at least 1 % of the largest magnitude, so that rounding is not blown up.
    """
    worst, relative = 0.0, 0.0
    for name in reference[0]:
        gap, low, high = 0.0, np.inf, -np.inf
        for expected, got in zip(reference, candidate, strict=True):
            a, b = np.asarray(expected[name]), np.asarray(got.get(name))
            if a.shape != b.shape or a.dtype != b.dtype:
                return float("inf"), float("inf")
            if a.dtype.kind not in "fiub":
                gap = max(gap, float(not np.array_equal(a, b)))
                continue
            a, b = a.astype(np.float64), b.astype(np.float64)
            finite = np.isfinite(a)
            if not np.isfinite(b[finite]).all():
                return float("inf"), float("inf")
            a, b = a[finite], b[finite]
            gap = max(gap, float(np.abs(a - b).max(initial=0.0)))
            low, high = float(a.min(initial=low)), float(a.max(initial=high))
        scale = max(high - low, 0.01 * max(abs(low), abs(high))) if high >= low else 0.0
        worst = max(worst, gap)
        relative = max(relative, gap / scale if scale else float(gap > 0))
    return worst, relative


def latency(original: Any, result: Any, feeds: Feeds, *, seconds: float = 1.0) -> tuple[float, float]:
    """Median milliseconds of the result, and the median over rounds of result / original.

    The two take turns, and turns in going first, so that a drifting machine hits both alike.
    """
    runs = [(session, feeds_for(session, feeds)) for session in (original, result)]
    for session, inputs in runs:
        session.run(None, inputs)
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while len(times[0]) < 15 or (len(times[0]) < 1000 and time.perf_counter() - start < seconds):
        for index in (0, 1) if len(times[0]) % 2 else (1, 0):
            session, inputs = runs[index]
            begin = time.perf_counter()
            session.run(None, inputs)
            times[index].append(time.perf_counter() - begin)
    ratios = [after / before for before, after in zip(*times, strict=True)]
    return 1e3 * median(times[1]), median(ratios)
