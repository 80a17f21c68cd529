"""Inputs to prune with: unlabelled samples from a file, a folder, or Python, checked before anything starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.domain import InputSpec
from onnxprune.domain.arrays import load_arrays
from onnxprune.errors import InputError

LABELS = "labels"
"""Name of the optional array of class labels."""
FEWEST = 16
"""Samples that are needed at least."""
HELD_OUT = 0.1
"""Share of the samples on which nothing is fitted; at most ``MOST_HELD_OUT`` of them."""
MOST_HELD_OUT = 500

Batch = Mapping[str, NDArray[Any]]
CalibrationLike = str | PathLike[str] | Batch | Iterable[Batch]


@dataclass(frozen=True)
class Calibration:
    """Samples of the inputs of a model.

    Attributes:
        inputs: Per input, shape (samples, *shape of one sample); a batch axis of the model is left out.
        labels: Shape (samples,), classes; None where none were given.
    """

    inputs: dict[str, NDArray[Any]]
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def nbytes(self) -> int:
        """Bytes of all samples."""
        return sum(values.nbytes for values in self.inputs.values())

    def take(self, index: NDArray[np.int64] | slice) -> Calibration:
        """Some of the samples."""
        labels = None if self.labels is None else self.labels[index]
        return Calibration({name: values[index] for name, values in self.inputs.items()}, labels)

    def split(self, seed: int) -> tuple[Calibration, Calibration]:
        """Samples to fit on, and samples held out for choices and for the report."""
        order = np.random.default_rng(seed).permutation(len(self))
        held = max(2, min(MOST_HELD_OUT, round(HELD_OUT * len(self))))
        return self.take(np.sort(order[held:])), self.take(np.sort(order[:held]))


def calibration(data: CalibrationLike, specs: Sequence[InputSpec], *, limit: int, seed: int) -> Calibration:
    """Read and check calibration data.

    Args:
        data: Path of an .npz file with one array per input (first axis: samples, classes under ``labels``), of a
            folder of such files, a mapping of arrays, or an iterable of such mappings, of which no more are taken
            than are needed.
        specs: The inputs of the model.
        limit: Samples that are kept at most: of a file or mapping chosen at random, of an iterable the first ones.
        seed: Of that choice.

    Raises:
        InputError: Wrong names, shapes or types, NaN, too few samples, samples that are all alike, or a model that
            does not take samples along its first axis.
    """
    _check_samples_axis(specs)
    rng = np.random.default_rng(seed)
    parts: list[dict[str, NDArray[Any]]] = []
    room = limit
    for where, batch, most in _batches(data, limit):
        parts.append(_part(batch, specs, min(most, room), rng, where))
        _check_alike(parts[0], parts[-1], where)
        room -= len(parts[-1][specs[0].name])
        if not room:
            break
    if not parts:
        raise InputError("The calibration data are empty.", hint="Give one mapping of arrays per batch.")
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    labels = arrays.pop(LABELS, None)
    found = Calibration(arrays, labels)
    _worthwhile(found)
    return found


def _check_samples_axis(specs: Sequence[InputSpec]) -> None:
    if not specs:
        raise InputError("The model has no inputs.", hint="Nothing that it answers depends on data.")
    for spec in specs:
        if spec.shape is None:
            continue
        if not spec.shape:
            raise InputError(f"Input '{spec.name}' is a single number.", hint="Its first axis has to run over samples.")
        if isinstance(spec.shape[0], int) and spec.shape[0] > 1:
            raise InputError(
                f"Input '{spec.name}' of shape {list(spec.shape)} takes exactly {spec.shape[0]} samples at a time.",
                hint="Export the model with a batch of 1, or with a dynamic one.",
            )


def _check_alike(first: Mapping[str, NDArray[Any]], part: Mapping[str, NDArray[Any]], where: str) -> None:
    """Parts must go together."""
    if set(part) != set(first):
        raise InputError(f"Some calibration files hold '{LABELS}', others do not.", hint="Label all of them or none.")
    for name, values in part.items():
        if values.shape[1:] != first[name].shape[1:]:
            raise InputError(
                f"{where}: samples of '{name}' have shape {list(values.shape[1:])}, earlier ones "
                f"{list(first[name].shape[1:])}.",
                hint="Bring them to one shape first.",
            )


def _batches(data: CalibrationLike, limit: int) -> Iterator[tuple[str, Batch, int]]:
    """Where arrays come from, the arrays, and how many samples to take of them; one after the other."""
    if isinstance(data, str | PathLike):
        path = Path(data)
        files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"No .npz files in {path}.", hint="Each holds one array per input of the model.")
        for file in files:
            yield str(file), _named(str(file)), -(-limit // len(files))
    elif isinstance(data, Mapping):
        yield "the calibration data", data, limit
    elif isinstance(data, Iterable) and not isinstance(data, np.ndarray):
        for number, batch in enumerate(data, 1):
            if not isinstance(batch, Mapping):
                raise InputError(
                    f"Batch {number} of the calibration data is a {type(batch).__name__}.",
                    hint="Give mappings of input names to arrays.",
                )
            yield f"batch {number} of the calibration data", batch, limit
    else:
        raise InputError(
            f"The calibration data are a {type(data).__name__}.", hint="Give a path, or a mapping of names to arrays."
        )


def _named(path: str) -> Batch:
    arrays = load_arrays(path)
    if isinstance(arrays, Mapping):
        return arrays
    raise InputError(f"{path} holds a single array.", hint="Write it with numpy.savez(path, input=array).")


def _part(batch: Batch, specs: Sequence[InputSpec], most: int, rng: np.random.Generator, where: str) -> dict[str, Any]:
    """At most ``most`` samples of one batch, as arrays of the types the model wants."""
    names = [spec.name for spec in specs]
    unknown = sorted(set(batch) - {*names, LABELS})
    missing = sorted(set(names) - set(batch))
    if unknown or missing:
        raise InputError(
            f"{where} does not match the inputs: unknown {unknown or 'none'}, missing {missing or 'none'}.",
            hint=f"It needs one array per input: {', '.join(names)} (and classes under '{LABELS}', if any).",
        )
    scalars = [name for name, values in batch.items() if np.ndim(values) == 0]
    if scalars:
        raise InputError(f"{where}: '{scalars[0]}' is a single value.", hint="The first axis runs over samples.")
    counts = {name: len(np.asarray(values)) for name, values in batch.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"{where} holds different numbers of samples: {counts}.", hint="The first axis is samples.")
    count = next(iter(counts.values()))
    chosen = np.sort(rng.permutation(count)[:most])
    found = {spec.name: _samples(np.asarray(batch[spec.name])[chosen], spec, where) for spec in specs}
    if LABELS in batch:
        found[LABELS] = _classes(np.asarray(batch[LABELS])[chosen], where)
    return found


def _samples(values: NDArray[Any], spec: InputSpec, where: str) -> NDArray[Any]:
    """Samples without the model's own batch axis."""
    if values.dtype.kind not in "fiub":
        raise InputError(f"{where}: '{spec.name}' holds {values.dtype} instead of numbers.", hint="Save numbers.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{where}: '{spec.name}' contains NaN or infinity.", hint="Clean the data.")
    shape = spec.shape
    if shape is not None:
        if values.ndim == len(shape) + 1 and values.shape[1] == 1:
            values = values[:, 0]
        wanted = shape[1:]
        fits = values.ndim == len(shape) and all(
            not isinstance(d, int) or d == n for d, n in zip(wanted, values.shape[1:], strict=True)
        )
        if not fits:
            raise InputError(
                f"{where}: '{spec.name}' has samples of shape {list(values.shape[1:])}; "
                f"the model wants {list(wanted)}.",
                hint="The first axis of each array runs over samples.",
            )
    return np.ascontiguousarray(values.astype(spec.dtype))


def _classes(values: NDArray[Any], where: str) -> NDArray[np.int64]:
    if values.dtype.kind not in "iu" or values.ndim != 1 or (values.size and values.min() < 0):
        raise InputError(
            f"{where}: '{LABELS}' has shape {values.shape} and type {values.dtype}.",
            hint="It holds one class number >= 0 per sample.",
        )
    return values.astype(np.int64)


def _worthwhile(found: Calibration) -> None:
    if len(found) < FEWEST:
        raise InputError(
            f"{len(found)} calibration samples are too few.", hint=f"Give at least {FEWEST}; a few hundred work well."
        )
    if all((values == values[:1]).all() for values in found.inputs.values()):
        raise InputError("All calibration samples are the same.", hint="Give samples like those the model will see.")
