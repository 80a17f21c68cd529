"""Rounding with a direction: decimals to float64, float64 to the types of inputs, and sums."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.domain.types import Array

_BFLOAT16_MAX = float.fromhex("0x1.fep127")

# Without traps a result out of range becomes infinite or the largest number, as its direction demands.
UPWARD = Context(prec=50, rounding=ROUND_CEILING, traps=[])
DOWNWARD = Context(prec=50, rounding=ROUND_FLOOR, traps=[])


def outward(value: Decimal, *, up: bool) -> float:
    """The float64 nearest to ``value`` among those not below it (``up``) or not above it."""
    nearest = float(value) + 0.0  # -0.0 becomes 0.0
    if up and Decimal(nearest) < value:
        return math.nextafter(nearest, math.inf)
    if not up and Decimal(nearest) > value:
        return math.nextafter(nearest, -math.inf)
    return nearest


def decimal(text: str) -> Decimal:
    """The number a text writes, NaN if it writes none."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("nan")


def decimal_text(value: float, rounding: str) -> str:
    """The shortest decimal, or 17 digits where that one lies on the wrong side."""
    text, exact = repr(value), Decimal(value)
    if (Decimal(text) < exact) if rounding == ROUND_CEILING else (Decimal(text) > exact):
        text = str(Context(prec=17, rounding=rounding).plus(exact))
    return text.removesuffix(".0")


def shifted(values: Array, shift: Array, toward: float) -> Array:
    """``values + shift``, one float further where rounding went the other way (Knuth's TwoSum tells)."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = values + shift
        virtual = total - values
        error = (values - (total - virtual)) + (shift - virtual)
        return np.where(np.sign(toward) * error > 0, np.nextafter(total, toward), total)


def finite_range(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """Smallest and largest finite value of a type, rounded outward to float64; None if not numeric."""
    if dtype.kind == "b":
        return 0.0, 1.0
    if dtype.kind in "iu":
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    if dtype.kind == "f":
        return -float(np.finfo(dtype).max), float(np.finfo(dtype).max)
    return (-_BFLOAT16_MAX, _BFLOAT16_MAX) if dtype.name == "bfloat16" else None


def rounded_within(values: Array, dtype: np.dtype[Any], lower: Array, upper: Array) -> NDArray[Any]:
    """Values of the type within the bounds: the nearest, or its neighbour where that one lies outside."""
    near = values.astype(dtype)
    if dtype.kind in "biu":
        return near
    with np.errstate(over="ignore"):
        near = np.where(near.astype(np.float64) > upper, np.nextafter(near, dtype.type(-math.inf)), near)
        return np.where(near.astype(np.float64) < lower, np.nextafter(near, dtype.type(math.inf)), near)
