"""The few array primitives in which operators write down their affine maps and the adjoints of these.

A rule is written once, against :class:`Tape`, and serves many ends, depending on who executes it: numpy at once
(:class:`NumpyTape`), or a graph under construction (:class:`onnxprune.operators.onnx_tape.OnnxTape`).

Every array has a leading axis of *rows* (points, or coefficient vectors). Axes and shapes in this interface leave
it out: axis 0 is the first axis of the tensor itself, and constants have no rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.interval import Array
from onnxprune.operators.sliding import correlate, smear

T = TypeVar("T")
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """How a convolution slides, one entry per spatial axis. What lies behind the tensor follows from the sizes.

    Attributes:
        strides: Steps between windows.
        dilations: Steps between taps.
        before: Zeros in front of the tensor.
        groups: Number of groups of channels that do not meet.
    """

    strides: Sizes
    dilations: Sizes
    before: Sizes
    groups: int = 1


class Tape(ABC, Generic[T]):
    """Executes the primitives on handles of type ``T``.

    Args:
        absolute: Take the magnitudes of all constants and no negatives: an affine map becomes ``|W| x + |b|``.
        shifts: Whether additive constants count; without them an affine map becomes its linear part.
    """

    def __init__(self, *, absolute: bool = False, shifts: bool = True) -> None:
        self.absolute = absolute
        self.shifts = shifts

    def weight(self, values: NDArray[np.generic]) -> Array:
        """Multiplicative constants as this tape takes them."""
        array = np.asarray(values, dtype=np.float64)
        return np.abs(array) if self.absolute else array

    def shift(self, values: NDArray[np.generic]) -> Array:
        """Additive constants as this tape takes them."""
        return self.weight(values) if self.shifts else np.zeros((), np.float64)

    def negate(self, x: T) -> T:
        """-x; x where magnitudes are taken."""
        return x if self.absolute else self._negate(x)

    def scale(self, x: T, values: NDArray[np.generic]) -> T:
        """Product with constants that broadcast to the shape of x."""
        return self._multiply(x, self.weight(values))

    def translate(self, x: T, values: NDArray[np.generic]) -> T:
        """Sum with constants that broadcast to the shape of x."""
        return self._add_constant(x, self.shift(values)) if self.shifts else x

    def matmul(self, x: T, matrix: NDArray[np.generic]) -> T:
        """``x @ matrix`` with batches of matrices as in numpy; x has at least as many axes as ``matrix``."""
        return self._matmul(x, self.weight(matrix))

    def convolve(self, x: T, weights: NDArray[np.generic], window: Window, size: Sizes) -> T:
        """Convolution as ONNX's Conv, without bias.

        Args:
            x: Shape (batch, in, *spatial).
            weights: Shape (out, in per group, *kernel).
            window: How it slides.
            size: Number of windows along each spatial axis.
        """
        return self._convolve(x, self.weight(weights), window, size)

    def spread(self, x: T, weights: NDArray[np.generic], window: Window, size: Sizes) -> T:
        """The adjoint of :meth:`convolve`, which is ONNX's ConvTranspose.

        Args:
            x: Shape (batch, in, *spatial).
            weights: Shape (in, out per group, *kernel).
            window: How it slides; ``before`` is what is cut off in front.
            size: Spatial sizes of the result.
        """
        return self._spread(x, self.weight(weights), window, size)

    @abstractmethod
    def shape(self, x: T) -> Sizes:
        """Shape without rows."""

    @abstractmethod
    def add(self, x: T, y: T) -> T:
        """Sum of equal shapes."""

    @abstractmethod
    def reshape(self, x: T, shape: Sizes) -> T:
        """The same entries in another shape."""

    @abstractmethod
    def transpose(self, x: T, order: Sequence[int]) -> T:
        """Axes in another order."""

    @abstractmethod
    def expand(self, x: T, shape: Sizes) -> T:
        """Axes of length 1 repeated, to a shape of the same rank."""

    @abstractmethod
    def total(self, x: T, axes: Sequence[int]) -> T:
        """Sum over axes, kept at length 1."""

    @abstractmethod
    def concatenate(self, parts: Sequence[T], axis: int) -> T:
        """Side by side along an axis."""

    @abstractmethod
    def cut(self, x: T, axis: int, start: int, stop: int) -> T:
        """The indices from ``start`` to before ``stop`` along an axis."""

    @abstractmethod
    def embed(self, x: T, axis: int, before: int, after: int) -> T:
        """Zeros in front and behind along an axis."""

    @abstractmethod
    def gather(self, x: T, index: NDArray[np.int64]) -> T:
        """Entries of a vector (shape (n,)), in the shape of ``index``."""

    @abstractmethod
    def _negate(self, x: T) -> T: ...
    @abstractmethod
    def _multiply(self, x: T, values: Array) -> T: ...
    @abstractmethod
    def _add_constant(self, x: T, values: Array) -> T: ...
    @abstractmethod
    def _matmul(self, x: T, matrix: Array) -> T: ...
    @abstractmethod
    def _convolve(self, x: T, weights: Array, window: Window, size: Sizes) -> T: ...
    @abstractmethod
    def _spread(self, x: T, weights: Array, window: Window, size: Sizes) -> T: ...


class NumpyTape(Tape[Array]):
    """Computes at once, in float64 and by direct sums only, so that a priori error bounds hold."""

    def shape(self, x: Array) -> Sizes:
        """Shape without rows."""
        return x.shape[1:]

    def add(self, x: Array, y: Array) -> Array:
        """Sum of equal shapes."""
        return x + y

    def reshape(self, x: Array, shape: Sizes) -> Array:
        """The same entries in another shape."""
        return x.reshape(len(x), *shape)

    def transpose(self, x: Array, order: Sequence[int]) -> Array:
        """Axes in another order."""
        return x.transpose(0, *(axis + 1 for axis in order))

    def expand(self, x: Array, shape: Sizes) -> Array:
        """Axes of length 1 repeated."""
        return np.broadcast_to(x, (len(x), *shape))

    def total(self, x: Array, axes: Sequence[int]) -> Array:
        """Sum over axes, kept at length 1."""
        return np.asarray(x.sum(axis=tuple(axis + 1 for axis in axes), keepdims=True))

    def concatenate(self, parts: Sequence[Array], axis: int) -> Array:
        """Side by side along an axis."""
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis + 1)

    def cut(self, x: Array, axis: int, start: int, stop: int) -> Array:
        """A range of indices along an axis."""
        return x[(slice(None),) * (axis + 1) + (slice(start, stop),)]

    def embed(self, x: Array, axis: int, before: int, after: int) -> Array:
        """Zeros in front and behind along an axis."""
        widths = [(0, 0)] * x.ndim
        widths[axis + 1] = (before, after)
        return np.pad(x, widths)

    def gather(self, x: Array, index: NDArray[np.int64]) -> Array:
        """Entries of a vector, in the shape of ``index``."""
        return np.take(x, index, axis=1)

    def _negate(self, x: Array) -> Array:
        return -x

    def _multiply(self, x: Array, values: Array) -> Array:
        return np.asarray(x * values)

    def _add_constant(self, x: Array, values: Array) -> Array:
        return np.asarray(x + values)

    def _matmul(self, x: Array, matrix: Array) -> Array:
        if matrix.ndim > 2:
            return np.asarray(x @ matrix)
        flat = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        return np.asarray((flat @ matrix).reshape(*x.shape[:-1], matrix.shape[-1]))

    def _convolve(self, x: Array, weights: Array, window: Window, size: Sizes) -> Array:
        flat = np.ascontiguousarray(x).reshape(-1, *x.shape[2:])
        found = correlate(flat, weights, window.strides, window.dilations, window.before, window.groups, size)
        return found.reshape(*x.shape[:2], *found.shape[1:])

    def _spread(self, x: Array, weights: Array, window: Window, size: Sizes) -> Array:
        flat = np.ascontiguousarray(x).reshape(-1, *x.shape[2:])
        found = smear(flat, weights, window.strides, window.dilations, window.before, window.groups, size)
        return found.reshape(*x.shape[:2], *found.shape[1:])
