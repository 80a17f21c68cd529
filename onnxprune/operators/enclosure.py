"""Enclosures of functions that are no mere arithmetic: monotone kernels, cases, integer results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.interval import LARGEST, TINY, Array, Interval, down, up

KERNEL = 2.0**-49
"""Relative error granted to a numpy or scipy kernel: 8 ulp, where 1 to 4 are documented."""


def increasing(
    x: Interval,
    kernel: Callable[[Array], Array],
    *,
    low: float = -np.inf,
    high: float = np.inf,
    zero: float | None = None,
    error: Callable[[Array], Array | float] = lambda ends: KERNEL,
) -> Interval:
    """Image of a non-decreasing function with values in ``[low, high]``.

    Args:
        x: Bounds of the argument.
        kernel: The function in float64.
        low: Infimum of the function.
        high: Supremum of the function.
        zero: Where the function is exactly zero: the bounds keep the sign that follows.
        error: Relative error of the kernel at an array of arguments (the smallest normal number is added).
    """
    with np.errstate(all="ignore"):
        left, right = np.minimum(kernel(x.lower), LARGEST), np.maximum(kernel(x.upper), -LARGEST)
        lower = np.maximum(down(left - np.abs(left) * error(x.lower) - TINY), low)
        upper = np.minimum(up(right + np.abs(right) * error(x.upper) + TINY), high)
    if zero is not None:
        lower = np.where(x.lower >= zero, np.maximum(lower, 0.0), lower)
        upper = np.where(x.upper <= zero, np.minimum(upper, 0.0), upper)
    return Interval.of(lower, upper)


def select(mask: NDArray[np.bool_], yes: Interval, no: Interval) -> Interval:
    """``yes`` where the mask holds, else ``no``."""
    return Interval.of(np.where(mask, yes.lower, no.lower), np.where(mask, yes.upper, no.upper))


def absolute(x: Interval) -> Interval:
    """|x|, exact."""
    least = np.minimum(np.abs(x.lower), np.abs(x.upper))
    return Interval.of(np.where((x.lower <= 0) & (x.upper >= 0), 0.0, least), x.magnitude())


def wrapped(dtype: np.dtype[Any] | None, values: Interval) -> Interval:
    """Bounds of an integer result: whole numbers, and the full range of the type where it may overflow."""
    if dtype is None or dtype.kind not in "iu":
        return values
    info = np.iinfo(dtype)
    lower, upper = np.ceil(values.lower), np.floor(values.upper)
    overflow = (lower < float(info.min)) | (upper >= float(info.max + 1))
    return Interval.of(np.where(overflow, float(info.min), lower), np.where(overflow, float(info.max), upper))


def truncated(dtype: np.dtype[Any] | None, values: Interval) -> Interval:
    """Bounds after the rounding of an integer division; an unknown type may be an integer type."""
    if dtype is not None and dtype.kind not in "iu":
        return values
    lower, upper = np.trunc(values.lower), np.trunc(values.upper)
    return wrapped(dtype, Interval.of(np.minimum(lower, values.lower), np.maximum(upper, values.upper)))
