"""The parts a domain is made of: inputs, boxes, linear constraints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import InputError

Array = NDArray[np.float64]
SampleKind = Literal["uniform", "corner", "center", "normal"]


@dataclass(frozen=True)
class InputSpec:
    """Name, element type and symbolic shape of one model input (None: the rank is unknown)."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, eq=False)
class Box:
    """Inclusive bounds on one input: equal shapes, no axes or the input's rank with each axis full or 1."""

    lower: Array
    upper: Array

    @property
    def fixed(self) -> int:
        """Number of entries that the box leaves no choice."""
        return int(np.count_nonzero(self.lower == self.upper))


FREE = Box(np.array(-math.inf), np.array(math.inf))
"""No bound on either side."""

Piece = tuple[InputSpec, Array, Array]
"""An input with a lower and an upper bound on it."""


@dataclass(frozen=True)
class Constraint:
    """``sum of coefficient * input[flat index] <= bound``; ``terms`` holds (input, flat index, coefficient).

    The index is row-major within one sample: dynamic axes count as 1.
    """

    terms: tuple[tuple[str, int, float], ...]
    bound: float


def input_named(name: str, specs: Sequence[InputSpec], where: str) -> InputSpec:
    """The input of this name.

    Raises:
        InputError: There is none; ``where`` says who asked.
    """
    for spec in specs:
        if spec.name == name:
            return spec
    names = [spec.name for spec in specs]
    close = get_close_matches(name, names, n=1)
    hint = (f"Did you mean '{close[0]}'? " if close else "") + f"Inputs: {', '.join(names)}."
    raise InputError(f"{where}: the model has no input '{name}'.", hint=hint)


def shape_text(spec: InputSpec) -> str:
    """The shape of an input for a message."""
    if spec.shape is None:
        return "unknown"
    return "x".join("?" if n is None else str(n) for n in spec.shape) or "()"
