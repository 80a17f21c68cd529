"""Original against result in ONNX Runtime, with its graph optimizations off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.domain import Domain, InputSpec, SampleKind
from onnxprune.errors import EnvironmentFailure, InputError, ValidationError
from onnxprune.graph.graph import Graph
from onnxprune.runtime import Feeds, Runner

KINDS: tuple[SampleKind, ...] = ("uniform", "corner", "normal", "center")
SPATIAL = (64, 224, 32, 320, 640, 48)
SEQUENCE = (8, 16, 32, 64, 1, 128, 256, 512)
QUICK = 4
"""Inputs compared after every single pass; the final result is compared on all."""
WORK = 2e9
"""Multiply-adds spent on validation runs of one model."""


@dataclass(frozen=True)
class Outcome:
    """Result of one comparison."""

    samples: int
    max_abs_error: float
    worst_output: str


class Validator:
    """Holds inputs inside the domain and the original's outputs on them.

    Args:
        model: The original.
        domain: Where samples are drawn.
        data: More inputs, one array per input name with samples along the first axis.
        shapes: Sizes of dynamic dimensions per input.
        tolerance: Allowed error relative to the largest absolute value of an output.
        seed: Seed of the samples.
        provider: Execution provider.
        custom_ops: Shared libraries with custom operators.
        work: Multiply-adds of one run, to choose the number of samples.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        domain: Domain,
        *,
        data: Mapping[str, NDArray[Any]] | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        tolerance: float | None = None,
        seed: int = 0,
        provider: str = "CPUExecutionProvider",
        custom_ops: Sequence[str] = (),
        work: float = 0.0,
    ) -> None:
        self._provider = provider
        self._custom_ops = tuple(custom_ops)
        self.specs = input_specs(model)
        runner = Runner(model, provider=provider, custom_ops=custom_ops)
        rng = np.random.default_rng(seed)
        self.shapes = _working_shapes(runner, self.specs, domain, shapes or {}, rng)
        count = int(np.clip(WORK / max(work, 1.0), 4, 48))
        self.feeds: list[Feeds] = [
            domain.sample(self.specs, self.shapes, rng, KINDS[i % len(KINDS)]) for i in range(count)
        ]
        self.feeds += _from_data(data or {}, self.specs, self.shapes)
        self.reference = [runner.run(feeds) for feeds in self.feeds]
        self.output_names = runner.output_names
        self._tolerance = tolerance
        self._unsettled = self._restless_entries(model)

    def _restless_entries(self, model: onnx.ModelProto) -> list[int]:
        """How many entries of each whole-number output ONNX Runtime itself changes by optimizing the graph."""
        flips = [0] * len(self.output_names)
        if all(np.asarray(v).dtype.kind == "f" for v in self.reference[0]):
            return flips
        other = Runner(model, provider=self._provider, optimize=True, custom_ops=self._custom_ops)
        for feeds, expected in zip(self.feeds, self.reference, strict=True):
            for index, (a, b) in enumerate(zip(expected, other.run(feeds), strict=True)):
                if np.asarray(a).dtype.kind != "f" and np.shape(a) == np.shape(b):
                    flips[index] += int(np.sum(np.asarray(a) != np.asarray(b)))
        return flips

    def check(self, candidate: onnx.ModelProto, deviation: float = 0.0, *, quick: bool = False) -> Outcome:
        """Compare a candidate with the original on all inputs, or quickly on the first few.

        Raises:
            ValidationError: An output differs by more than the tolerance plus the proved deviation.
            EnvironmentFailure: The candidate does not load or run.
        """
        runner = Runner(candidate, provider=self._provider, custom_ops=self._custom_ops)
        if runner.output_names != self.output_names:
            raise ValidationError("The outputs have other names than those of the original.")
        scale = self._scales()
        worst, name = 0.0, ""
        flips = [0] * len(scale)
        pairs = list(zip(self.feeds, self.reference, strict=True))[: QUICK if quick else None]
        for feeds, expected in pairs:
            for index, (a, b) in enumerate(zip(expected, runner.run(feeds), strict=True)):
                error, flipped = _difference(a, b, self.output_names[index])
                flips[index] += flipped
                allowed = self._relative(a) * scale[index] + deviation
                if error > allowed:
                    raise ValidationError(
                        f"Output '{self.output_names[index]}' differs by {error:.3g}, allowed {allowed:.3g}."
                    )
                if error >= worst:
                    worst, name = error, self.output_names[index]
        for index, count in enumerate(flips):
            if count > 2 * self._unsettled[index]:
                raise ValidationError(f"Output '{self.output_names[index]}' differs in {count} whole numbers.")
        return Outcome(len(pairs), worst, name)

    def _scales(self) -> list[float]:
        scales = [0.0] * len(self.output_names)
        for expected in self.reference:
            for index, value in enumerate(expected):
                if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
                    finite = np.abs(value[np.isfinite(value)].astype(np.float64))
                    scales[index] = max(scales[index], float(finite.max(initial=0.0)))
        return scales

    def _relative(self, value: Any) -> float:
        if self._tolerance is not None:
            return self._tolerance
        half = isinstance(value, np.ndarray) and value.dtype == np.float16
        return 2e-2 if half else 1e-4


def _difference(a: Any, b: Any, name: str) -> tuple[float, int]:
    """Largest absolute difference of floats, number of differing whole numbers."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        if repr(a) != repr(b):
            raise ValidationError(f"Output '{name}' (not a tensor) differs.")
        return 0.0, 0
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValidationError(f"Output '{name}' has shape {b.shape} instead of {a.shape}.")
    if a.dtype.kind != "f":
        return 0.0, int(np.sum(a != b))
    finite = np.isfinite(a)
    if not np.isfinite(b[finite]).all():
        raise ValidationError(f"Output '{name}' is not finite where the original's is.")
    gap = np.abs(a[finite].astype(np.float64) - b[finite].astype(np.float64))
    return float(gap.max(initial=0.0)), 0


def input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """Names, element types and shapes of the inputs a caller feeds.

    Raises:
        InputError: An input is not a tensor, or has a dimension of size zero.
    """
    graph = Graph(model)
    specs = []
    for value in graph.inputs:
        kind = graph.types[value.name]
        if kind.dtype is None:
            raise InputError(f"Input '{value.name}' is not a tensor.", hint="Sequences and maps are not supported.")
        if kind.shape is not None and 0 in kind.shape:
            raise InputError(
                f"Input '{value.name}' has a dimension of size zero: {list(kind.shape)}.",
                hint="There is nothing to run; export the model with its real shape.",
            )
        specs.append(InputSpec(value.name, kind.dtype, kind.shape))
    return specs


def _working_shapes(
    runner: Runner,
    specs: Sequence[InputSpec],
    domain: Domain,
    given: Mapping[str, tuple[int, ...]],
    rng: np.random.Generator,
) -> dict[str, tuple[int, ...]]:
    """Sizes for dynamic dimensions with which the model runs; equal symbols get equal sizes."""
    names = {spec.name for spec in specs}
    for name, shape in given.items():
        spec = next((s for s in specs if s.name == name), None)
        if spec is None:
            raise InputError(f"--shape names an unknown input '{name}'.", hint=f"Inputs: {', '.join(sorted(names))}.")
        fits = spec.shape is None or (
            len(spec.shape) == len(shape)
            and all(not isinstance(d, int) or d == g for d, g in zip(spec.shape, shape, strict=True))
        )
        if not fits or min(shape, default=1) < 1:
            raise InputError(
                f"--shape {name}={shape} does not fit the model's {spec.shape}.",
                hint="Give one positive size per axis.",
            )
    failure: EnvironmentFailure | None = None
    for spatial, sequence, batch in product(SPATIAL, SEQUENCE[:3], (2, 1)):
        shapes = {s.name: given.get(s.name) or _concrete(s, spatial, sequence, batch) for s in specs}
        dynamic = any(s.shape is None or not all(isinstance(d, int) for d in s.shape) for s in specs)
        try:
            runner.run(domain.sample(specs, shapes, rng, "uniform"))
        except EnvironmentFailure as error:
            failure = failure or error
            if not dynamic or all(s.name in given for s in specs):
                break
            continue
        return shapes
    raise failure or EnvironmentFailure("The model could not be run.")


def _concrete(spec: InputSpec, spatial: int, sequence: int, batch: int) -> tuple[int, ...]:
    shape = spec.shape or ()
    filler = spatial if len(shape) >= 4 else sequence
    return tuple(d if isinstance(d, int) else (batch if axis == 0 else filler) for axis, d in enumerate(shape))


def _from_data(
    data: Mapping[str, NDArray[Any]], specs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]
) -> list[Feeds]:
    """User data as single feeds: samples along the first axis, at most 64 of them."""
    if not data:
        return []
    unknown = sorted(set(data) - {s.name for s in specs})
    missing = sorted({s.name for s in specs} - set(data))
    if unknown or missing:
        raise InputError(
            f"--data does not match the inputs: unknown {unknown or 'none'}, missing {missing or 'none'}.",
            hint=f"It needs one array per input: {', '.join(s.name for s in specs)}.",
        )
    count = min(len(np.atleast_1d(values)) for values in data.values())
    feeds = []
    for index in range(min(count, 64)):
        feed = {}
        for spec in specs:
            sample = np.asarray(data[spec.name][index])
            shape = shapes[spec.name]
            if sample.ndim == len(shape) - 1:
                sample = sample[None]
            static = spec.shape or ()
            if sample.ndim != len(shape) or any(
                isinstance(d, int) and d != n for d, n in zip(static, sample.shape, strict=False)
            ):
                raise InputError(
                    f"--data: a sample of '{spec.name}' has shape {sample.shape}, the model wants {list(static)}.",
                    hint="The first axis of each array runs over samples.",
                )
            if sample.dtype.kind == "f" and not np.isfinite(sample).all():
                raise InputError(f"--data: '{spec.name}' contains NaN or infinity.", hint="Clean the data.")
            feed[spec.name] = np.ascontiguousarray(sample.astype(spec.dtype))
        feeds.append(feed)
    return feeds
