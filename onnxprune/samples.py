"""Inputs to run a model with: their types, sizes for dynamic dimensions, the user's own data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.domain import Domain, InputSpec
from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.graph.graph import Graph
from onnxprune.runtime import Feeds, Runner

IMAGE = (64, 224, 32, 320, 640, 48)
SEQUENCE = (8, 16, 32, 512, 256, 576, 1024, 1)
MOST = 64
"""User samples that are run at most."""


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


def working_shapes(
    runner: Runner,
    specs: Sequence[InputSpec],
    domain: Domain,
    given: Mapping[str, tuple[int, ...]],
    rng: np.random.Generator,
) -> dict[str, tuple[int, ...]]:
    """Sizes for dynamic dimensions with which the model runs; equal symbols get equal sizes."""
    check_shapes(specs, given)
    failure: EnvironmentFailure | None = None
    for sizes in _candidates(specs, given):
        try:
            runner.run(domain.sample(specs, sizes, rng, "uniform"))
        except EnvironmentFailure as error:
            failure = failure or error
            continue
        return sizes
    raise failure or EnvironmentFailure("The model could not be run.")


def check_shapes(specs: Sequence[InputSpec], given: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse shapes that no input of the model can have.

    Raises:
        InputError: An unknown input, a wrong rank, a size that contradicts a fixed dimension or is not positive.
    """
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


def _candidates(
    specs: Sequence[InputSpec], given: Mapping[str, tuple[int, ...]]
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Sizes to try: images and sequences of usual lengths, batches of two and of one."""
    tried: set[tuple[tuple[int, ...], ...]] = set()
    for image, length, batch in product(IMAGE, SEQUENCE, (2, 1)):
        for inner in (length, batch):
            sizes = {
                spec.name: given.get(spec.name)
                or _sizes(spec, batch, inner, image if len(spec.shape or ()) >= 4 else length)
                for spec in specs
            }
            if tuple(sizes.values()) not in tried:
                tried.add(tuple(sizes.values()))
                yield sizes


def _sizes(spec: InputSpec, batch: int, inner: int, last: int) -> tuple[int, ...]:
    """Sizes for dynamic dimensions: of the first axis, of those between, of the last one (or two of an image)."""
    shape = spec.shape or ()
    trailing = len(shape) - (2 if len(shape) >= 4 else 1)
    return tuple(
        size if isinstance(size, int) else batch if axis == 0 else last if axis >= trailing else inner
        for axis, size in enumerate(shape)
    )


def user_samples(
    data: Mapping[str, NDArray[Any]], specs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]
) -> list[Feeds]:
    """User data as single feeds: samples along the first axis of each array.

    Raises:
        InputError: Wrong names, shapes or types, no samples, NaN or infinity.
    """
    if not data:
        return []
    unknown = sorted(set(data) - {s.name for s in specs})
    missing = sorted({s.name for s in specs} - set(data))
    if unknown or missing:
        raise InputError(
            f"--data does not match the inputs: unknown {unknown or 'none'}, missing {missing or 'none'}.",
            hint=f"It needs one array per input: {', '.join(s.name for s in specs)}.",
        )
    arrays = {spec.name: _numeric(data[spec.name], spec) for spec in specs}
    count = min(len(values) for values in arrays.values())
    return [
        {spec.name: _sample(arrays[spec.name][index], spec, len(shapes[spec.name])) for spec in specs}
        for index in range(min(count, MOST))
    ]


def _numeric(values: Any, spec: InputSpec) -> NDArray[Any]:
    array = np.asarray(values)
    hint = "It needs numbers, with samples along the first axis."
    if array.dtype.kind not in "fiub":
        raise InputError(f"--data: '{spec.name}' holds {array.dtype} instead of numbers.", hint=hint)
    if array.ndim == 0 or len(array) == 0:
        raise InputError(f"--data: '{spec.name}' holds no samples (shape {array.shape}).", hint=hint)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"--data: '{spec.name}' contains NaN or infinity.", hint="Clean the data.")
    return array


def _sample(sample: NDArray[Any], spec: InputSpec, rank: int) -> NDArray[Any]:
    if sample.ndim == rank - 1:
        sample = sample[None]
    static = spec.shape or ()
    wrong = any(isinstance(d, int) and d != n for d, n in zip(static, sample.shape, strict=False))
    if sample.ndim != rank or wrong:
        raise InputError(
            f"--data: a sample of '{spec.name}' has shape {sample.shape}, the model wants {list(static)}.",
            hint="The first axis of each array runs over samples.",
        )
    return np.asarray(sample.astype(spec.dtype), order="C")
