"""Rules for layers that multiply by constants, for normalisation and for pools.

Where bounds do not depend on the place in an image they have length 1 along its axes; then a window sees the same
bounds everywhere, and zero as well where the image is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.forward import Given, full, rule
from onnxprune.verify.numbers import Interval, contract, larger
from onnxprune.verify.windows import Geometry, convolved, geometry, padded


@rule("Gemm")
def _gemm(given: Given) -> Sequence[Interval] | None:
    weights, shape = given.constant(1), given.sample(0)
    if weights is None or shape is None or int(given.node.get("transA", 0)):
        return None
    matrix = weights if int(given.node.get("transB", 0)) else weights.T
    x = full(given.bounds(0), (given.bounds(0).shape or (1,))[:1] + shape[1:])
    if x is None:
        return None
    result = contract(lambda w, v: v @ w.T, matrix, x, matrix.shape[1])
    result = _times(given, result, float(given.node.get("alpha", 1.0)))
    if given.node.has(2):
        result = result + _times(given, given.bounds(2), float(given.node.get("beta", 1.0)))
    return [result]


def _times(given: Given, x: Interval, factor: float) -> Interval:
    return x if factor == 1.0 else x * given.point(factor)


@rule("MatMul")
def _matmul(given: Given) -> Sequence[Interval] | None:
    left, right = given.constant(0), given.constant(1)
    if (left is None) == (right is None):
        return None
    x = given.full(1 if right is None else 0)
    if x is None or x.ndim < 1:
        return None
    if right is not None:
        return [contract(lambda w, v: np.matmul(v, w), right, x, right.shape[-2] if right.ndim > 1 else len(right))]
    return [contract(np.matmul, left, x, left.shape[-1])] if left is not None else None


@rule("Conv")
def _conv(given: Given) -> Sequence[Interval] | None:
    weights, sample = given.constant(1), given.sample(0)
    if weights is None or weights.ndim < 3:
        return None
    groups = int(given.node.get("group", 1))
    where = geometry(given.node, weights.shape[2:], None if sample is None else sample[2:])
    channels = weights.shape[1] * groups
    x = _channels(given.bounds(0), channels, weights.ndim)
    if x is None:
        return None
    result = None
    if _flat(x):
        views = [np.ones(weights.shape[2:], bool)] if where is None else where.views(sample[2:] if sample else None)
        result = _uniform(weights, x, views, groups)
    if result is None:
        image = full(x, (1, channels, *sample[2:])) if sample is not None else None
        if image is None or where is None:
            return None
        terms = int(np.prod(weights.shape[1:]))
        result = contract(lambda w, v: convolved(w, v, where, groups), weights, image, terms)
    return [_with_bias(given, result, 2)]


def _channels(x: Interval, channels: int, rank: int) -> Interval | None:
    """Bounds with all channels written out."""
    if x.ndim == 0:
        return x.map(lambda m: np.broadcast_to(m, (1, channels, *(1,) * (rank - 2))))
    if x.ndim != rank or x.shape[1] not in (1, channels):
        return None
    return x.map(lambda m: np.broadcast_to(m, (m.shape[0], channels, *m.shape[2:])))


def _flat(x: Interval) -> bool:
    return all(size == 1 for size in x.shape[2:])


def _uniform(weights: NDArray[Any], x: Interval, views: list[NDArray[np.bool_]] | None, groups: int) -> Interval:
    """The same bounds at every place of the image.

    Args:
        weights: Shape (out, in per group, *kernel).
        x: Bounds per channel.
        views: Which taps may meet the image together, the others meeting zeros; None for any of them.
        groups: Channels of different groups do not meet.
    """
    if views is None:
        x, views = x.hull(x.like(np.zeros(()), np.zeros(()))), [np.ones(weights.shape[2:], bool)]
    outs, ins, taps = weights.shape[0] // groups, weights.shape[1], int(np.prod(weights.shape[2:]))
    rank = weights.ndim

    def summed(w: Any, v: Any) -> Any:
        sums = w.reshape(groups, outs, ins, taps).sum(axis=3)
        columns = v.reshape(len(v), groups, ins)
        total = columns[:, 0] @ sums[0].T if groups == 1 else (columns[:, :, None, :] * sums).sum(axis=3)
        return total.reshape(len(v), groups * outs, *(1,) * (rank - 2))

    found = [contract(summed, np.where(view, weights, 0), x, ins * taps) for view in views]
    total = found[0]
    for other in found[1:]:
        total = total.hull(other)
    return total


def _with_bias(given: Given, result: Interval, index: int) -> Interval:
    if not given.node.has(index):
        return result
    bias, rank = given.bounds(index), result.ndim
    return result + (bias if bias.ndim == 0 else bias.map(lambda m: m.reshape(1, -1, *(1,) * (rank - 2))))


@rule("ConvTranspose")
def _conv_transpose(given: Given) -> Sequence[Interval] | None:
    weights = given.constant(1)
    if weights is None or weights.ndim < 3:
        return None
    groups, rank = int(given.node.get("group", 1)), weights.ndim
    x = _channels(given.bounds(0), weights.shape[0], rank)
    if x is None:
        return None
    seen = x.over(tuple(range(2, rank)))
    turned = weights.reshape(groups, weights.shape[0] // groups, *weights.shape[1:]).swapaxes(1, 2)
    turned = turned.reshape(-1, *turned.shape[2:])
    return [_with_bias(given, _uniform(turned, seen, None, groups), 2)]  # some taps meet nothing


@rule("BatchNormalization")
def _normalize(given: Given) -> Sequence[Interval] | None:
    affine = scale_and_shift(given)
    if affine is None:
        return None
    rank = given.bounds(0).ndim
    scale, shift, mean = (part.map(lambda m: m.reshape(1, -1, *(1,) * max(0, rank - 2))) for part in affine)
    return [(given.bounds(0) - mean) * scale + shift]


def scale_and_shift(given: Given) -> tuple[Interval, Interval, Interval] | None:
    """Factor, summand and mean of a normalisation with constants: ``(x - mean) * factor + summand``."""
    values = [given.constant(index) for index in range(1, 5)]
    if any(v is None for v in values) or int(given.node.get("training_mode", 0)):
        return None
    gain, shift, mean, variance = (np.asarray(v, dtype=np.float64) for v in values)
    spread = variance + float(given.node.get("epsilon", 1e-5))
    if (spread <= 0).any():
        return None
    factor = gain / np.sqrt(spread)
    error = np.abs(factor) * 2.0**-50
    inexact = [factor - error, factor + error]
    return given.point(0.0).like(*inexact), given.point(shift), given.point(mean)


@rule("MaxPool")
def _max_pool(given: Given) -> Sequence[Interval] | None:
    if len([name for name in given.node.outputs if name]) > 1:
        return None
    x = given.bounds(0)
    if x.ndim < 3 or _flat(x):
        return [x]
    where, image = _pool(given)
    if where is None or image is None:
        return [x.over(tuple(range(2, x.ndim)))]
    more = _reach(where, image.shape[2:], given)
    return [Interval(*(_windowed(end, where, more, given) for end in (image.low, image.high)))]


def _pool(given: Given) -> tuple[Geometry | None, Interval | None]:
    kernel = tuple(int(k) for k in given.node.get("kernel_shape", ()))
    sample = given.sample(0)
    where = geometry(given.node, kernel, None if sample is None else sample[2:])
    return where, given.full(0)


def _reach(where: Geometry, sizes: tuple[int, ...], given: Given) -> tuple[int, ...]:
    """How far windows of a result rounded up reach beyond the padding."""
    results = where.results(sizes, ceil=bool(int(given.node.get("ceil_mode", 0))))
    half = len(sizes)
    needed = [
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(results, where.strides, where.dilations, where.kernel, strict=True)
    ]
    return tuple(max(0, needed[a] - sizes[a] - where.pads[a] - where.pads[half + a]) for a in range(half))


def _windowed(end: Any, where: Geometry, more: tuple[int, ...], given: Given) -> Any:
    """Maxima over windows; what lies beyond the image does not count."""
    sizes = where.results(tuple(end.shape[2:]), ceil=bool(int(given.node.get("ceil_mode", 0))))
    least = end.map(np.min) if hasattr(end, "map") else np.min(end)
    total: Any = None
    for tap in where.taps():
        cut = (slice(None), slice(None), *where.window(tap, sizes))
        if hasattr(end, "map"):
            seen = end.map(lambda m, c=cut: padded(m, where, least.m[()], more)[c])
        else:
            seen = padded(end, where, least, more)[cut]
        total = seen if total is None else larger(total, seen)
    return total


@rule("AveragePool")
def _average_pool(given: Given) -> Sequence[Interval] | None:
    x = given.bounds(0)
    where, image = _pool(given)
    sees_zero = (where is None or where.padded or bool(int(given.node.get("ceil_mode", 0)))) and bool(
        int(given.node.get("count_include_pad", 0))
    )
    plain = where is not None and not where.padded and not int(given.node.get("ceil_mode", 0))
    if x.ndim >= 3 and not _flat(x) and plain and image is not None and where is not None:
        count, channels = int(np.prod(where.kernel)), image.shape[1]
        ones = np.ones((channels, 1, *where.kernel))
        sums = contract(lambda w, v: convolved(w, v, where, channels), ones, image, count)
        return [sums * given.point(0.0).like(np.nextafter(1.0 / count, 0.0), np.nextafter(1.0 / count, 1.0))]
    if x.ndim >= 3:
        x = x.over(tuple(range(2, x.ndim)))
    return [x.hull(x.like(np.zeros(()), np.zeros(()))) if sees_zero else x]


@rule("GlobalMaxPool")
def _global_pool(given: Given) -> Sequence[Interval]:
    x = given.bounds(0)
    return [x.over(tuple(range(2, x.ndim)))]


@rule("GlobalAveragePool")
def _global_average_pool(given: Given) -> Sequence[Interval]:
    x, shape = given.bounds(0), given.sample(0)
    hull = x.over(tuple(range(2, x.ndim)))
    if shape is None or x.ndim < 3 or x.shape[2:] != shape[2:] or hull.shape == x.shape:
        return [hull]
    count = int(np.prod(shape[2:]))
    sums = x.map(lambda m: m.reshape(*m.shape[:2], count)).total(2).map(lambda m: m.reshape(hull.shape))
    return [
        hull.meet(sums * x.like(np.array(np.nextafter(1.0 / count, 0.0)), np.array(np.nextafter(1.0 / count, 1.0))))
    ]
