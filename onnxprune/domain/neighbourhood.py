"""All inputs near a given one."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.domain.arrays import load_arrays, real_numbers
from onnxprune.domain.domain import Domain
from onnxprune.domain.intersection import intersection
from onnxprune.domain.rounding import decimal, outward, shifted
from onnxprune.domain.types import InputSpec, input_named
from onnxprune.errors import InputError


def around(
    point: str | os.PathLike[str] | NDArray[Any] | Mapping[str, NDArray[Any]],
    radius: float | str,
    specs: Sequence[InputSpec],
    clip: Domain | None = None,
) -> Domain:
    """The inputs within ``radius`` of ``point`` in every entry, and in ``clip``.

    Args:
        point: A ``.npy`` file or an array (models with one input), a ``.npz`` file or a mapping by input;
            other inputs stay free.
        radius: A float stands for its shortest decimal.
        specs: The model's inputs, in graph order.
        clip: A domain to stay in.

    Raises:
        InputError: The point, the radius or the resulting domain cannot be used.
    """
    amount = decimal(str(radius))
    if not amount.is_finite() or amount < 0:
        raise InputError(f"Radius {radius} is not a number >= 0.", hint="Give one such as 0.02.")
    where = os.fspath(point) if isinstance(point, str | os.PathLike) else "The point"
    arrays = load_arrays(where) if isinstance(point, str | os.PathLike) else point
    if not isinstance(arrays, Mapping):
        if len(specs) != 1:
            hint = f"Name the arrays: {', '.join(spec.name for spec in specs)}."
            raise InputError(f"{where}: one array for a model with {len(specs)} inputs.", hint=hint)
        arrays = {specs[0].name: arrays}
    span = np.array(outward(amount, up=True))
    pieces = []
    for name in arrays:
        spec = input_named(name, specs, where)
        center = real_numbers(arrays[name], spec, where)
        pieces.append((spec, shifted(center, -span, -math.inf), shifted(center, span, math.inf)))
    origin = f"{where} +- {radius}"
    if clip is None:
        return intersection(pieces, [], origin)
    pieces += [
        (spec, clip.boxes[spec.name].lower, clip.boxes[spec.name].upper) for spec in specs if spec.name in clip.boxes
    ]
    return intersection(pieces, clip.constraints, f"{origin}, {clip.origin}")
