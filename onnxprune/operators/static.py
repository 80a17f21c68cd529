"""What the affine rules need to know of a node: static shapes, float constants, and how operands broadcast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.operators.base import NodeView, Shape
from onnxprune.operators.interval import Array
from onnxprune.operators.tape import Sizes, T, Tape

REMEMBERED = 1 << 23
"""Entries of a constant up to which its float64 copy is kept with the view of its node."""
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def static(shape: Shape | None) -> Sizes | None:
    """A shape whose sizes are all known and positive, else None."""
    if shape is None:
        return None
    sizes = tuple(size for size in shape if isinstance(size, int) and size > 0)
    return sizes if len(sizes) == len(shape) else None


def output_sizes(node: NodeView, index: int = 0) -> Sizes | None:
    """Static shape of an output."""
    return static(node.out_shape(index)) if index < node.n_outputs and node.output(index) else None


def input_sizes(node: NodeView, index: int) -> Sizes | None:
    """Static shape of an input, read off the values where it is a constant."""
    values = node.constant(index)
    return static(node.in_shape(index) if values is None else tuple(values.shape))


def is_float(node: NodeView) -> bool:
    """Whether the first input is known to be a tensor of floats: integers wrap around and truncate."""
    values = node.constant(0)
    dtype = node.in_type(0).dtype if values is None else values.dtype
    return dtype is not None and dtype.name in FLOATS


def reals(node: NodeView, index: int) -> Array | None:
    """Finite values of a constant input as float64, None where it is no such constant."""
    values = node.constant(index)
    if values is None or values.dtype.name not in FLOATS:
        return None
    if index in node.memo:
        return node.memo[index]
    array = values.astype(np.float64)
    found = array if np.isfinite(array).all() else None
    if values.size <= REMEMBERED:
        node.memo[index] = found
    return found


def variables(node: NodeView) -> list[int]:
    """Input slots that are given and not constant."""
    return [index for index in range(node.n_inputs) if node.has_input(index) and node.constant(index) is None]


def slots(node: NodeView, found: dict[int, T]) -> list[T | None]:
    """One entry for each input slot."""
    return [found.get(index) for index in range(node.n_inputs)]


def filled(tape: Tape[T], x: T, shape: Sizes) -> T:
    """Broadcast to ``shape``."""
    own = tape.shape(x)
    if own == shape:
        return x
    return tape.expand(tape.reshape(x, (1,) * (len(shape) - len(own)) + own), shape)


def folded(tape: Tape[T], x: T, shape: Sizes) -> T:
    """The adjoint of :func:`filled`: sums over what ``shape`` was broadcast along."""
    own = tape.shape(x)
    if own == shape:
        return x
    lead = len(own) - len(shape)
    axes = [axis for axis in range(len(own)) if axis < lead or (shape[axis - lead] == 1 and own[axis] != 1)]
    return tape.reshape(tape.total(x, axes), shape)


def added(tape: Tape[T], parts: Sequence[T]) -> T:
    """Sum of one or more equal shapes."""
    total = parts[0]
    for part in parts[1:]:
        total = tape.add(total, part)
    return total
