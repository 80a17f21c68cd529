"""Convolution and its adjoint in float64, by direct sums: every result is one matrix product over all taps.

No fast algorithm (FFT, Winograd) is used, so the usual error bounds of sums of products hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import numpy as np

from onnxprune.operators.interval import Array

Sizes = tuple[int, ...]
BLOCK = 4_000_000
"""Entries of the matrix of windows that are in memory at a time."""


def correlate(
    x: Array, weights: Array, strides: Sizes, dilations: Sizes, before: Sizes, groups: int, size: Sizes
) -> Array:
    """Convolution of shape (n, in, *spatial) with (out, in per group, *kernel); ``size`` windows along each axis."""
    kernel = weights.shape[2:]
    canvas = _canvas(size, kernel, strides, dilations)
    outs, terms = weights.shape[0] // groups, weights.shape[1] * prod(kernel)
    matrix = weights.reshape(groups, outs, weights.shape[1], -1).reshape(groups, outs, terms)
    result = np.empty((len(x), weights.shape[0], *size))
    for block in _blocks(len(x), x.shape[1] * prod(kernel) * prod(size)):
        padded = _shifted(x[block].swapaxes(0, 1), before, canvas)
        n = padded.shape[1]
        taps = np.empty((x.shape[1], prod(kernel), n, *size))
        for tap, cut in enumerate(_cuts(size, kernel, strides, dilations)):
            taps[:, tap] = padded[(slice(None), slice(None), *cut)]
        found = matrix @ taps.reshape(groups, terms, -1)
        result[block] = found.reshape(weights.shape[0], n, *size).swapaxes(0, 1)
    return result


def smear(x: Array, weights: Array, strides: Sizes, dilations: Sizes, before: Sizes, groups: int, size: Sizes) -> Array:
    """The adjoint: shape (n, in, *spatial) and weights (in, out per group, *kernel) to (n, out, *size)."""
    kernel, places = weights.shape[2:], x.shape[2:]
    canvas = _canvas(places, kernel, strides, dilations)
    ins, outs = weights.shape[0] // groups, weights.shape[1]
    matrix = weights.reshape(groups, ins, -1).swapaxes(1, 2)
    result = np.empty((len(x), outs * groups, *size))
    for block in _blocks(len(x), outs * groups * prod(kernel) * prod(places)):
        part = x[block].swapaxes(0, 1)
        n = part.shape[1]
        taps = (matrix @ part.reshape(groups, ins, -1)).reshape(outs * groups, -1, n, *places)
        full = np.zeros((outs * groups, n, *canvas))
        for tap, cut in enumerate(_cuts(places, kernel, strides, dilations)):
            full[(slice(None), slice(None), *cut)] += taps[:, tap]
        result[block] = _shifted(full, tuple(-b for b in before), size).swapaxes(0, 1)
    return result


def _canvas(windows: Sizes, kernel: Sizes, strides: Sizes, dilations: Sizes) -> Sizes:
    """Sizes that the windows reach over."""
    return tuple((w - 1) * s + (k - 1) * d + 1 for w, k, s, d in zip(windows, kernel, strides, dilations, strict=True))


def _blocks(count: int, entries: int) -> Iterator[slice]:
    step = max(1, BLOCK // max(entries, 1))
    for start in range(0, count, step):
        yield slice(start, start + step)


def _cuts(windows: Sizes, kernel: Sizes, strides: Sizes, dilations: Sizes) -> Iterator[tuple[slice, ...]]:
    """For each tap, what it sees of the canvas."""
    for tap in product(*(range(k) for k in kernel)):
        starts = [t * d for t, d in zip(tap, dilations, strict=True)]
        yield tuple(
            slice(start, start + (w - 1) * s + 1, s) for start, w, s in zip(starts, windows, strides, strict=True)
        )


def _shifted(x: Array, before: Sizes, size: Sizes) -> Array:
    """The last axes moved back by ``before`` places, cut off or filled with zeros to ``size``."""
    result = np.zeros((*x.shape[:2], *size))
    source, target = [], []
    for shift, old, new in zip(before, x.shape[2:], size, strict=True):
        start, stop = max(shift, 0), min(shift + old, new)
        target.append(slice(start, max(stop, start)))
        source.append(slice(start - shift, max(stop, start) - shift))
    result[(slice(None), slice(None), *target)] = x[(slice(None), slice(None), *source)]
    return result
