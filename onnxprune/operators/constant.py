"""Constants written as nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxprune.operators.base import Inputs, NodeView, Operator
from onnxprune.operators.interval import Interval
from onnxprune.operators.tensors import ENTRY_LIMIT, overall


def _exact(values: Any) -> Interval | None:
    """The values as a point, None if float64 cannot hold them or there are none."""
    array = np.asarray(values)
    if array.dtype.kind in "OSUMmc" or not 0 < array.size <= ENTRY_LIMIT:
        return None
    doubles = array.astype(np.float64)
    if array.dtype.kind in "iu" and np.abs(doubles).max() >= 2.0**53:
        return None
    return Interval.point(doubles)


class Constant(Operator):
    """A constant written as a node."""

    op_types = ("Constant",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        """The values themselves."""
        for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
            value = node.attr(name)
            if value is not None:
                found = _exact(getattr(value, "values", value))
                return None if found is None else [found]
        return None


class ConstantOfShape(Operator):
    """One value everywhere."""

    op_types = ("ConstantOfShape",)

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        """The value, 0 by default."""
        value = node.attr("value")
        found = _exact(0.0 if value is None else value.values)
        return None if found is None else [overall(found)]


OPERATORS: tuple[type[Operator], ...] = (
    Constant,
    ConstantOfShape,
)
