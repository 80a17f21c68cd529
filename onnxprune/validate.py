"""Original against result in ONNX Runtime, with its graph optimizations off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.domain import Domain, SampleKind
from onnxprune.errors import ValidationError
from onnxprune.runtime import Feeds, Runner
from onnxprune.samples import input_specs, user_samples, working_shapes

KINDS: tuple[SampleKind, ...] = ("uniform", "corner", "normal", "center")
QUIET = 1e-3
"""A channel smaller than this share of the largest one of its output is held to that share: rounding is no finer."""
QUICK = 4
"""Inputs compared after every single pass; the final result is compared on all."""
WORK = 2e9
"""Multiply-adds spent on validation runs of one model."""


@dataclass(frozen=True)
class Outcome:
    """Result of one comparison: the largest error, absolute and as a share of the largest entry of its output."""

    samples: int
    max_abs_error: float = 0.0
    max_relative_error: float = 0.0


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
        self.shapes = working_shapes(runner, self.specs, domain, shapes or {}, rng)
        count = int(np.clip(WORK / max(work, 1.0), 4, 48))
        self.feeds: list[Feeds] = [
            domain.sample(self.specs, self.shapes, rng, KINDS[i % len(KINDS)]) for i in range(count)
        ]
        given = user_samples(data or {}, self.specs, self.shapes)
        inside = [feeds for feeds in given if domain.contains(feeds)]
        self.left_out = len(given) - len(inside)
        """User samples outside the domain: nothing is promised there, so they are not run."""
        self.feeds += inside
        self.reference = [runner.run(feeds) for feeds in self.feeds]
        self.output_names = runner.output_names
        self._tolerance = tolerance
        self._unsettled = self._restless_entries(model)

    def rebase(self, model: onnx.ModelProto) -> None:
        """Compare with another model from now on: one that was changed on purpose.

        Raises:
            EnvironmentFailure: It does not load or run.
        """
        runner = Runner(model, provider=self._provider, custom_ops=self._custom_ops)
        self.reference = [runner.run(feeds) for feeds in self.feeds]
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

    def check(self, candidate: onnx.ModelProto | Path, *, quick: bool = False) -> Outcome:
        """Compare a candidate (or the file that holds it) with the original on all inputs, or on the first few.

        Raises:
            ValidationError: An output differs by more than the tolerance: a proved deviation must be negligible
                against the output, too.
            EnvironmentFailure: The candidate does not load or run.
        """
        runner = Runner(candidate, provider=self._provider, custom_ops=self._custom_ops)
        if runner.output_names != self.output_names:
            raise ValidationError("The outputs have other names than those of the original.")
        scale = self._scales()
        worst, relative = 0.0, 0.0
        flips = [0] * len(scale)
        pairs = list(zip(self.feeds, self.reference, strict=True))[: QUICK if quick else None]
        for feeds, expected in pairs:
            for index, (a, b) in enumerate(zip(expected, runner.run(feeds), strict=True)):
                errors, flipped = _differences(a, b, self.output_names[index])
                flips[index] += flipped
                if not errors.any():
                    continue
                largest = float(scale[index].max())
                allowed = self._relative(a) * np.maximum(scale[index], QUIET * largest)
                if (errors > allowed).any():
                    place = int(np.argmax(errors - allowed))
                    raise ValidationError(
                        f"Output '{self.output_names[index]}' differs by {errors[place]:.3g}, "
                        f"allowed {allowed[place]:.3g}."
                    )
                worst = max(worst, float(errors.max()))
                relative = max(relative, float(errors.max()) / largest)
        for index, count in enumerate(flips):
            if count > 2 * self._unsettled[index]:
                raise ValidationError(f"Output '{self.output_names[index]}' differs in {count} whole numbers.")
        return Outcome(len(pairs), worst, relative)

    def _scales(self) -> list[NDArray[np.float64]]:
        """Largest absolute value per channel of every output, over all inputs."""
        scales = [np.zeros(1)] * len(self.output_names)
        for expected in self.reference:
            for index, value in enumerate(expected):
                if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:
                    finite = np.where(np.isfinite(value), np.abs(value.astype(np.float64)), 0.0)
                    scales[index] = np.maximum(scales[index], _per_channel(finite))
        return scales

    def _relative(self, value: Any) -> float:
        if self._tolerance is not None:
            return self._tolerance
        half = isinstance(value, np.ndarray) and value.dtype == np.float16
        return 2e-2 if half else 1e-4


def _per_channel(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest entry per index of axis 1; of the whole tensor where there is none."""
    if values.ndim < 2:
        return np.array([values.max(initial=0.0)])
    return np.asarray(values.max(axis=tuple(a for a in range(values.ndim) if a != 1), initial=0.0))


def _differences(a: Any, b: Any, name: str) -> tuple[NDArray[np.float64], int]:
    """Largest absolute difference of floats per channel, number of differing whole numbers."""
    nothing = np.zeros(1)
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        if repr(a) != repr(b):
            raise ValidationError(f"Output '{name}' (not a tensor) differs.")
        return nothing, 0
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValidationError(f"Output '{name}' has shape {b.shape} instead of {a.shape}.")
    if a.dtype.kind != "f":
        return nothing, int(np.sum(a != b))
    finite = np.isfinite(a)
    if not np.isfinite(b[finite]).all():
        raise ValidationError(f"Output '{name}' is not finite where the original's is.")
    gap = np.zeros(a.shape)
    gap[finite] = np.abs(a[finite].astype(np.float64) - b[finite].astype(np.float64))
    return (_per_channel(gap) if gap.size else nothing), 0
