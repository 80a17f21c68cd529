"""Bounds and points in NumPy files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.domain.types import FREE, Array, InputSpec, Piece, input_named, shape_text
from onnxprune.errors import InputError


def bounds_from_arrays(path: str, specs: Sequence[InputSpec]) -> list[Piece]:
    """Bounds from a ``.npz`` file with arrays ``<input>.lower`` and ``<input>.upper``."""
    arrays = load_arrays(path)
    pieces: list[Piece] = []
    for key in arrays if isinstance(arrays, Mapping) else ():
        name, _, side = key.rpartition(".")
        if side in ("lower", "upper"):
            spec = input_named(name, specs, path)
            values = real_numbers(arrays[key], spec, f"{path}, {key}")
            pieces.append((spec, values, FREE.upper) if side == "lower" else (spec, FREE.lower, values))
    if not pieces:
        raise InputError(f"{path}: no bounds found.", hint="Name the arrays <input>.lower and <input>.upper.")
    return pieces


def load_arrays(path: str) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """The array of a ``.npy`` file, the named arrays of a ``.npz`` file.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with open(path, "rb") as file:  # np.load leaves a file it opened itself open when it is no zip file
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                return {key: loaded[key] for key in loaded.files}
            return np.asarray(loaded)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.", hint="Check the path.") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"Cannot read {path}: no NumPy file of plain numbers.", hint="Save it with numpy.savez."
        ) from error


def real_numbers(array: NDArray[Any], spec: InputSpec, where: str) -> Array:
    """The array as float64 with no axes or the input's rank."""
    if not np.can_cast(array.dtype, np.float64):
        raise InputError(f"{where}: {array.dtype} is no real number type.", hint="Save it as float64 or narrower.")
    values = np.asarray(array, dtype=np.float64)
    if np.isnan(values).any():
        raise InputError(f"{where}: NaN found.", hint="Give a number, or -inf and inf for no bound.")
    shape = spec.shape or ()
    padded = (1,) * (len(shape) - values.ndim) + values.shape if values.ndim else ()
    if values.ndim > len(shape) or any(n not in (1, size) for n, size in zip(padded, shape, strict=False)):
        found = "x".join(map(str, values.shape))
        what = f"{where}: shape {found} does not fit input '{spec.name}' of shape {shape_text(spec)}."
        raise InputError(what, hint="Each axis needs the input's length or 1 (1 along dynamic axes).")
    return values.reshape(padded)
