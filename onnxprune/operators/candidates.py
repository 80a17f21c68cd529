"""Operators that pick the largest or smallest of some entries: which entries compete for each output."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.base import NodeView
from onnxprune.operators.relaxation import Choices
from onnxprune.operators.static import input_sizes, output_sizes
from onnxprune.operators.tape import Sizes

Index = NDArray[np.int64]
LIMIT = 50_000_000
"""Candidates beyond which no table is made."""


def window_choices(
    inside: Sizes, outside: Sizes, kernel: Sizes, strides: Sizes, dilations: Sizes, before: Sizes
) -> Choices | None:
    """Candidates of windows over the last axes of a tensor (batch, channels, *inside), -1 over padding.

    None where some window sees padding only, or where there are too many.
    """
    spatial, lead = inside[2:], inside[:2]
    if prod(outside) * prod(kernel) > LIMIT:
        return None
    found = np.zeros((*outside[2:], prod(kernel)), np.int64)
    valid = np.ones(found.shape, np.bool_)
    for number, tap in enumerate(product(*(range(k) for k in kernel))):
        place = np.zeros(outside[2:], np.int64)
        for k, size in enumerate(spatial):
            position = np.arange(outside[k + 2]) * strides[k] - before[k] + tap[k] * dilations[k]
            column = position.reshape(-1, *[1] * (len(spatial) - k - 1))
            valid[..., number] &= (column >= 0) & (column < size)
            place = place * size + column
        found[..., number] = place
    if not valid.any(axis=-1).all():
        return None
    starts = np.arange(prod(lead)).reshape(-1, *[1] * found.ndim) * prod(spatial)
    return Choices(np.where(valid, found + starts, -1).reshape(prod(outside), -1), largest=True)


def axis_choices(node: NodeView, axes: tuple[int, ...], *, largest: bool) -> Choices | None:
    """Candidates along whole axes of the first input."""
    sizes, outside = input_sizes(node, 0), output_sizes(node)
    if sizes is None or outside is None or node.constant(0) is not None:
        return None
    kept = [axis for axis in range(len(sizes)) if axis not in axes]
    numbers = np.arange(prod(sizes)).reshape(sizes).transpose(*kept, *axes)
    return Choices(numbers.reshape(prod(outside), -1), largest)


def operand_choices(node: NodeView, *, largest: bool) -> Choices | None:
    """Candidates at the same place of several operands, constants included, with broadcasting."""
    outside = output_sizes(node)
    sizes = [input_sizes(node, k) for k in range(node.n_inputs)]
    known = [shape for shape in sizes if shape is not None]
    if outside is None or len(known) < len(sizes):
        return None
    columns, start = [], 0
    for shape in known:
        numbers = start + np.arange(prod(shape)).reshape(shape)
        columns.append(np.broadcast_to(numbers, outside).reshape(-1))
        start += prod(shape)
    return Choices(np.stack(columns, axis=1), largest)
