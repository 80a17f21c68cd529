"""Conversion between number types."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from onnxprune.operators.base import NodeView, Operator
from onnxprune.operators.elementwise import Unary
from onnxprune.operators.enclosure import wrapped
from onnxprune.operators.interval import Interval

PRECISION = {
    "float16": (11, 2.0**-24),
    "bfloat16": (8, 2.0**-133),
    "float32": (24, 2.0**-149),
    "float64": (53, 2.0**-1074),
}
"""Significant bits and smallest subnormal of the floating-point types that Cast understands."""


class Cast(Unary):
    """Conversion between number types; to and from 8-bit floats, sub-byte types and strings: unknown."""

    op_types = ("Cast",)

    def image(self, node: NodeView, x: Interval) -> Interval | None:
        """Rounding for floats, truncation for integers, comparison with zero for truth values."""
        target, source = node.attr("to"), node.in_type(0).dtype
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(target) if isinstance(target, int) else np.dtype(target)
        except (KeyError, TypeError):
            return None
        if source is not None and source.kind == "b":
            x = x.clamp(0.0, 1.0)
        if dtype.kind == "b":
            return Interval.of((x.lower > 0) | (x.upper < 0), (x.lower != 0) | (x.upper != 0))
        if dtype.kind in "iu":
            return wrapped(dtype, x.map(np.trunc))
        return _rounded(x, source, dtype) if dtype.name in PRECISION else None


def _rounded(x: Interval, source: np.dtype[Any] | None, target: np.dtype[Any]) -> Interval:
    """Bounds of x and of x rounded to a floating-point type; ends that have this type already stay."""
    bits, smallest = PRECISION[target.name]
    if source is not None and source.name in PRECISION:
        old_bits, old_smallest = PRECISION[source.name]
        if old_bits <= bits and old_smallest >= smallest:
            return x
    ends = []
    for end, outward in ((x.lower, -1.0), (x.upper, 1.0)):
        with np.errstate(all="ignore"):
            stays = end.astype(target).astype(np.float64) == end
            slack = np.where(np.isinf(end), 0.0, 1.01 * 2.0**-bits * np.abs(end) + smallest)
            ends.append(np.where(stays, end, np.nextafter(end + outward * slack, outward * np.inf)))
    return Interval.of(*ends)


OPERATORS: tuple[type[Operator], ...] = (Cast,)
