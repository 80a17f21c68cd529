"""A domain from the bounds that several texts and files give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.domain.domain import Domain
from onnxprune.domain.rounding import finite_range, rounded_within
from onnxprune.domain.types import FREE, Array, Box, Constraint, InputSpec, Piece
from onnxprune.errors import InputError


def intersection(pieces: Sequence[Piece], constraints: Sequence[Constraint], origin: str) -> Domain:
    """Intersect the pieces per input; a box that leaves out nothing is dropped unless constraints need it."""
    merged: dict[str, Piece] = {}
    for spec, lower, upper in pieces:
        _, low, high = merged.get(spec.name, (spec, FREE.lower, FREE.upper))
        merged[spec.name] = (spec, np.maximum(low, lower), np.minimum(high, upper))
    needed = {name for constraint in constraints for name, _, _ in constraint.terms}
    boxes = {}
    for name, (spec, lower, upper) in merged.items():
        limits = finite_range(spec.dtype)
        if limits is None:
            raise InputError(
                f"Input '{name}' holds {spec.dtype}, which has no bounds.", hint="Bound numeric inputs only."
            )
        box = _fitted(spec, lower, upper, *limits)
        if name in needed or (box.lower > limits[0]).any() or (box.upper < limits[1]).any():
            boxes[name] = box
    return Domain(boxes, tuple(constraints), origin)


def _fitted(spec: InputSpec, lower: Array, upper: Array, low: float, high: float) -> Box:
    """The box as the input's type sees it: integers only, and never without a value of that type.

    Float bounds that let one value through become that value, and bounds between two neighbours, which data
    meet by rounding only, are rounded; so 0.1:0.1 fixes a float32. All others stay as they are.
    """
    if spec.dtype.kind in "biu":
        lower, upper = np.maximum(np.ceil(lower), low), np.minimum(np.floor(upper), high)
    lower, upper = np.broadcast_arrays(lower, upper)
    first, last = np.maximum(lower, low), np.minimum(upper, high)
    if (empty := first > last).any():
        at = int(np.argmax(empty))
        entry = f" at entry {at}" if lower.ndim else ""
        what = f"lower {first.flat[at]:g} is above upper {last.flat[at]:g}{entry}."
        hint = f"Give lower:upper in this order, meeting the other bounds and {spec.dtype}'s {low:g}:{high:g}."
        raise InputError(f"Empty or inverted domain for input '{spec.name}': {what}", hint=hint)
    if spec.dtype.kind in "biu":
        return Box(lower.copy(), upper.copy())
    near_first, near_last = (ends.astype(spec.dtype).astype(np.float64) for ends in (first, last))
    least = rounded_within(first, spec.dtype, first, FREE.upper).astype(np.float64)
    most = rounded_within(last, spec.dtype, FREE.lower, last).astype(np.float64)
    lower = np.where(least > most, near_first, np.where(least == most, least, lower))
    upper = np.where(least > most, near_last, np.where(least == most, most, upper))
    return Box(lower, upper)
