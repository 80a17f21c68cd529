"""Exact numbers ``m * 2**e``: every float is one, and so are sums and products of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_LONG = 62
"""Bits up to which whole numbers fit into int64."""


class Dyadic:
    """An array of rational numbers whose denominators are powers of two: whole numbers times one power.

    It behaves like a NumPy array as far as the checker needs it; nothing is ever rounded.
    """

    __array_ufunc__ = None  # NumPy leaves mixed operations to this class
    __hash__ = None  # type: ignore[assignment] # as for NumPy's arrays
    __slots__ = ("e", "m")

    def __init__(self, m: NDArray[Any], e: int) -> None:
        self.m: NDArray[Any] = m
        self.e: int = e

    @staticmethod
    def of(values: object) -> Dyadic:
        """Finite floats or whole numbers, taken over exactly."""
        if isinstance(values, Dyadic):
            return values
        array = np.asarray(values)
        if array.dtype.kind in "iub":
            return Dyadic(_array(array.astype(object)), 0)
        array = array.astype(np.float64)
        mantissa, exponent = np.frexp(array)
        whole = (mantissa * 2.0**53).astype(np.int64)
        spare = np.where(whole == 0, 53, np.log2(np.where(whole == 0, 1, whole & -whole).astype(np.float64)))
        whole = whole >> spare.astype(np.int64)
        place = np.where(whole == 0, 0, exponent - 53 + spare.astype(np.int64))
        least = int(place[whole != 0].min(initial=0)) if (whole != 0).any() else 0
        shift = np.where(whole == 0, 0, place - least)
        if int(shift.max(initial=0)) + 53 < _LONG:
            return Dyadic(_array((whole << shift).astype(object)), least)
        return Dyadic(_array(_objects(whole) << _objects(shift)), least)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.m.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.m.ndim

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.m.size

    @property
    def T(self) -> Dyadic:  # noqa: N802 # NumPy's name
        """The transpose."""
        return Dyadic(self.m.T, self.e)

    def __len__(self) -> int:
        return len(self.m)

    def __getitem__(self, key: Any) -> Dyadic:
        return Dyadic(_array(self.m[key]), self.e)

    def reshape(self, *shape: Any) -> Dyadic:
        """Another shape."""
        return Dyadic(self.m.reshape(*shape), self.e)

    def map(self, rule: Callable[[NDArray[Any]], NDArray[Any]]) -> Dyadic:
        """A linear rearrangement of the entries."""
        return Dyadic(_array(rule(self.m)), self.e)

    def __neg__(self) -> Dyadic:
        return Dyadic(_array(-self.m), self.e)

    def __abs__(self) -> Dyadic:
        return Dyadic(_array(np.abs(self.m)), self.e)

    def __add__(self, other: object) -> Dyadic:
        one, two, e = _aligned(self, Dyadic.of(other))
        return Dyadic(_array(one + two), e)

    def __sub__(self, other: object) -> Dyadic:
        return self + (-Dyadic.of(other))

    def __mul__(self, other: object) -> Dyadic:
        factor = Dyadic.of(other)
        return Dyadic(_array(self.m * factor.m), self.e + factor.e)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: object) -> Dyadic:
        return -self + other

    def _compared(self, other: object, rule: Callable[[Any, Any], Any]) -> NDArray[np.bool_]:
        one, two, _ = _aligned(self, Dyadic.of(other))
        return np.asarray(rule(one, two), dtype=bool)

    def __lt__(self, other: object) -> NDArray[np.bool_]:
        return self._compared(other, lambda a, b: a < b)

    def __le__(self, other: object) -> NDArray[np.bool_]:
        return self._compared(other, lambda a, b: a <= b)

    def __gt__(self, other: object) -> NDArray[np.bool_]:
        return self._compared(other, lambda a, b: a > b)

    def __ge__(self, other: object) -> NDArray[np.bool_]:
        return self._compared(other, lambda a, b: a >= b)

    def __eq__(self, other: object) -> NDArray[np.bool_]:  # type: ignore[override] # entry by entry, as in NumPy
        return self._compared(other, lambda a, b: a == b)

    def __ne__(self, other: object) -> NDArray[np.bool_]:  # type: ignore[override]
        return self._compared(other, lambda a, b: a != b)

    def floats(self, toward: float) -> Floats:
        """The nearest float64 on the side of ``toward`` (minus or plus infinity)."""
        up = toward > 0
        return np.asarray(np.vectorize(lambda m: _float(m, self.e, up), otypes=[np.float64])(self.m))

    def combined(self, weights: Dyadic, rule: Callable[[Any, Any], Any]) -> Dyadic:
        """``rule(weights, self)`` for a rule that is linear in both."""
        return Dyadic(_array(rule(weights.m, self.m)), self.e + weights.e)


def pick(mask: NDArray[np.bool_], one: Dyadic, other: Dyadic) -> Dyadic:
    """Entries of one where the mask holds, of the other elsewhere."""
    a, b, e = _aligned(one, other)
    return Dyadic(_array(np.where(mask, a, b)), e)


def joined(parts: Sequence[Dyadic], axis: int) -> Dyadic:
    """Arrays behind one another."""
    e = min(part.e for part in parts)
    return Dyadic(np.concatenate([_shifted(part, e) for part in parts], axis=axis), e)


def _aligned(one: Dyadic, two: Dyadic) -> tuple[Any, Any, int]:
    e = min(one.e, two.e)
    return _shifted(one, e), _shifted(two, e), e


def _shifted(number: Dyadic, e: int) -> NDArray[Any]:
    return number.m if number.e == e else _array(number.m * (1 << (number.e - e)))


def _array(values: Any) -> NDArray[Any]:
    """Whole numbers as an array of objects: NumPy hands back bare numbers for arrays without axes."""
    if isinstance(values, np.ndarray) and values.dtype == object:
        return values
    if isinstance(values, np.ndarray):
        return values.astype(object)
    result = np.empty((), dtype=object)
    result[()] = values
    return result


def _objects(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(object)


def _float(m: int, e: int, up: bool) -> float:
    if m == 0:
        return 0.0
    spare = max(abs(m).bit_length() - 53, -1074 - e, 0)
    kept = m >> spare  # toward minus infinity
    if up and kept << spare != m:
        kept += 1
    try:
        return math.ldexp(float(kept), e + spare)
    except OverflowError:
        if up == (m > 0):
            return math.inf if m > 0 else -math.inf
        return math.copysign(np.finfo(np.float64).max, m)
