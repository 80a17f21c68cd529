"""Enclosures of the functions that curved activations are made of."""

from __future__ import annotations

import numpy as np
from scipy.special import erfc

from onnxprune.operators.enclosure import KERNEL, increasing
from onnxprune.operators.interval import Array, Interval, multiply, negate


def enclosed(value: float) -> Interval:
    """The correctly rounded constant and its neighbours."""
    return Interval.of(np.nextafter(value, -np.inf), np.nextafter(value, np.inf))


ROOT_HALF = enclosed(0.7071067811865476)  # sqrt(1/2)
DENSITY_AT_ZERO = enclosed(0.3989422804014327)  # 1/sqrt(2 pi)
TWO_OVER_ROOT_PI = enclosed(1.1283791670955126)


def exponential(x: Interval) -> Interval:
    """exp(x) - 1."""
    return increasing(x, np.expm1, low=-1.0, zero=0.0)


def sigmoid(x: Interval) -> Interval:
    """1 / (1 + exp(-x))."""

    def kernel(values: Array) -> Array:
        small = np.exp(-np.abs(values))
        result: Array = np.where(values >= 0, 1.0, small) / (1.0 + small)
        return result

    return increasing(x, kernel, low=0.0, high=1.0)


def bell(x: Interval) -> Interval:
    """The slope of the sigmoid at points."""
    return multiply(sigmoid(x), sigmoid(negate(x)))


def gauss(x: Interval) -> Interval:
    """exp(-x * x) at points."""
    return increasing(negate(multiply(x, x)), np.exp, low=0.0, high=1.0)


def normal_cdf(x: Interval) -> Interval:
    """The normal distribution function."""

    # erfc squares its argument before it takes the exponential, so its error grows with the square.
    def error(z: Array) -> Array:
        result: Array = KERNEL * (1.0 + np.clip(z, -30.0, 0.0) ** 2)
        return result

    z = multiply(x, ROOT_HALF)
    return increasing(z, lambda values: 0.5 * erfc(-values), low=0.0, high=1.0, error=error)


def normal_density(x: Interval) -> Interval:
    """The slope of the normal distribution function at points."""
    return multiply(DENSITY_AT_ZERO, gauss(multiply(x, ROOT_HALF)))
