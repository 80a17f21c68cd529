"""Domains as a user writes them: ``lower:upper``, NumPy files, VNN-LIB files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from onnxprune.domain import vnnlib
from onnxprune.domain.arrays import bounds_from_arrays
from onnxprune.domain.domain import Domain
from onnxprune.domain.intersection import intersection
from onnxprune.domain.rounding import DOWNWARD, UPWARD, decimal, finite_range, outward
from onnxprune.domain.types import Constraint, InputSpec, Piece, input_named, shape_text
from onnxprune.errors import InputError


def parse_domain(
    texts: Sequence[str],
    specs: Sequence[InputSpec],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Domain:
    """The domain that all ``texts`` together leave.

    Args:
        texts: ``lower:upper`` (all numeric inputs), ``input=lower:upper``, a ``.npz`` file (arrays
            ``<input>.lower`` and ``<input>.upper`` that broadcast to the input) or a ``.vnnlib`` file.
            Numbers are decimals or infinite, and are rounded outward to float64.
        specs: The model's inputs, in graph order.
        mean: Per channel (axis 1 of rank 4, else the last axis), or one for all: ``lower:upper`` is about
            pixels, the model sees (pixel - mean) / std. A float stands for its shortest decimal.
        std: As ``mean``.

    Raises:
        InputError: A text, a file or the resulting domain cannot be used.
    """
    channels = _channels(mean, std)
    pieces: list[Piece] = []
    constraints: list[Constraint] = []
    in_pixels = False
    for text in texts:
        if text.lower().endswith(".npz"):
            pieces += bounds_from_arrays(text, specs)
        elif text.lower().endswith(".vnnlib"):
            boxes, cuts = _from_vnnlib(text, specs)
            pieces += boxes
            constraints += cuts
        else:
            pieces += _from_text(text, specs, channels)
            in_pixels = True
    origin = ", ".join(texts) or "everything finite"
    if channels != _PLAIN:
        if not in_pixels:
            raise InputError("Mean and std have no pixel box to act on.", hint="Add one, such as 0:1 or image=0:255.")
        origin += "; mean {}; std {}".format(*(",".join(map(str, values)) for values in channels))
    return intersection(pieces, constraints, origin)


_Channels = tuple[list[Decimal], list[Decimal]]
_PLAIN: _Channels = ([Decimal(0)], [Decimal(1)])


def _channels(mean: Sequence[float] | None, std: Sequence[float] | None) -> _Channels:
    if mean is None and std is None:
        return _PLAIN
    given_mean, given_std = [0.0] if mean is None else mean, [1.0] if std is None else std
    means, stds = ([decimal(str(value)) for value in values] for values in (given_mean, given_std))
    width = max(len(means), len(stds))
    means, stds = (values * width if len(values) == 1 else values for values in (means, stds))
    if len(means) != len(stds):
        what = f"Mean has {len(means)} entries, std has {len(stds)}."
        raise InputError(what, hint="Give both one number per channel, or one for all.")
    if not all(value.is_finite() for value in means + stds) or min(stds) <= 0:
        shown = "; ".join(",".join(map(str, values)) for values in (means, stds))
        raise InputError(f"Mean and std {shown} cannot be used.", hint="Give finite numbers, each std above 0.")
    return means, stds


def _from_text(text: str, specs: Sequence[InputSpec], channels: _Channels) -> list[Piece]:
    name, named, numbers = text.rpartition("=")
    ends = [decimal(end) for end in numbers.split(":")]
    if len(ends) != 2 or any(end.is_nan() for end in ends):
        example = specs[0].name if specs else "input"
        hint = f"Write 0:1 or {example}=0:1 (decimals, -inf, inf), or a path ending in .npz or .vnnlib."
        raise InputError(f"Cannot read the domain '{text}'.", hint=hint)
    chosen = [input_named(name, specs, text)] if named else [spec for spec in specs if finite_range(spec.dtype)]
    lows, highs = (
        np.array([outward(way.divide(way.subtract(end, m), s), up=up) for m, s in zip(*channels, strict=True)])
        for end, way, up in ((ends[0], DOWNWARD, False), (ends[1], UPWARD, True))
    )
    views = [_channel_view(spec, len(lows)) for spec in chosen]
    return [(spec, lows.reshape(view), highs.reshape(view)) for spec, view in zip(chosen, views, strict=True)]


def _channel_view(spec: InputSpec, count: int) -> tuple[int, ...]:
    """The shape that lays one number per channel along the channel axis; no axes for a single number."""
    shape = spec.shape or ()
    if count == 1:
        return ()
    if len(shape) == 4 and shape[1] == count:
        return (1, count, 1, 1)
    if shape and shape[-1] == count:
        return (1,) * (len(shape) - 1) + (count,)
    what = f"Mean and std have {count} entries, no channel axis of input '{spec.name}' ({shape_text(spec)}) has."
    raise InputError(what, hint="Name the image input (image=0:1), or check the number of channels.")


def _from_vnnlib(path: str, specs: Sequence[InputSpec]) -> tuple[list[Piece], list[Constraint]]:
    found = vnnlib.read(path)
    shapes = [tuple(n if isinstance(n, int) else 1 for n in spec.shape or ()) for spec in specs]
    starts = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
    if found.lower.size != starts[-1] or any(spec.shape is None for spec in specs):
        inputs = ", ".join(f"{spec.name} {shape_text(spec)}" for spec in specs)
        what = f"{path}: {found.lower.size} variables X_i for {starts[-1]} input entries ({inputs})."
        raise InputError(what, hint="Check that file and model belong together; dynamic axes count as 1.")
    pieces = [
        (spec, found.lower[start:stop].reshape(shape), found.upper[start:stop].reshape(shape))
        for spec, shape, start, stop in zip(specs, shapes, starts, starts[1:], strict=False)
    ]
    owner = [(spec.name, index) for spec, shape in zip(specs, shapes, strict=True) for index in range(math.prod(shape))]
    return pieces, [Constraint(tuple((*owner[i], c) for i, c in row.terms), row.bound) for row in found.constraints]
