"""Linear parts of tensors: rows of weights over the channels of another tensor, with or without sliding windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.numbers import Interval, contract
from onnxprune.verify.windows import Geometry

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
Windows = Geometry | tuple[Any, ...] | None
"""How rows meet an image: None for every place by itself, a tuple for windows that are only compared."""


@dataclass(frozen=True)
class Term:
    """``sum over k of weights[p, k] * channel[columns[p, k]]`` for the rows ``rows[p]`` of a tensor.

    Attributes:
        rows: Which rows it is part of, shape (p,).
        weights: Shape (p, k, *kernel).
        columns: Shape (p, k); None where k runs over all channels.
        mass: Sums of the absolute values that the weights were added up from, shape (p, k, *kernel).
        width: Number of channels.
    """

    rows: Indices
    weights: Interval
    columns: Indices | None
    mass: Floats
    width: int

    @staticmethod
    def of(rows: Indices, weights: Interval, columns: Indices | None, width: int) -> Term:
        """A term whose weights are single numbers."""
        return Term(rows, weights, columns, sizes(weights), width)

    @staticmethod
    def pick(rows: Indices, channels: Indices, factors: Interval, width: int) -> Term:
        """Single channels, times factors."""
        return Term.of(rows, factors.map(lambda m: m[:, None]), channels[:, None], width)

    @property
    def picks(self) -> bool:
        """Whether every row is one channel times a factor."""
        return self.columns is not None and self.columns.shape[1] == 1 and self.weights.ndim == 2

    def take(self, kept: Indices) -> Term:
        """Some of the rows, by their place in ``rows``."""
        columns = None if self.columns is None else self.columns[kept]
        return Term(self.rows[kept], self.weights.map(lambda m: m[kept]), columns, self.mass[kept], self.width)

    def renumbered(self, rows: Indices) -> Term:
        """The same for other rows."""
        return replace(self, rows=rows)

    def scaled(self, factors: Interval) -> Term:
        """Every row times a factor, shape (p,)."""
        spread = factors.map(lambda m: m.reshape(-1, *(1,) * (self.weights.ndim - 1)))
        return replace(self, weights=self.weights * spread, mass=self.mass * sizes(spread))

    def dense(self) -> Term:
        """With all channels written out."""
        if self.columns is None:
            return self
        count, width, kernel = len(self.rows), self.width, self.weights.shape[2:]
        places = np.arange(count)
        unique = self.columns.shape[1] == 1 or all(len(set(row)) == len(row) for row in self.columns.tolist())
        total = zeros(self.weights, (count, width, *kernel))
        mass = np.zeros((count, width, *kernel))
        if unique:
            total = placed(total, self.weights, (places[:, None], self.columns))
            mass[places[:, None], self.columns] = self.mass
            return Term(self.rows, total, None, mass, width)
        for k in range(self.columns.shape[1]):
            at = (places, self.columns[:, k])
            total = placed(total, total[at] + self.weights[:, k], at)
            np.add.at(mass, at, self.mass[:, k])
        return Term(self.rows, total, None, mass, width)


def sizes(values: Interval) -> Floats:
    """Largest absolute values, rounded up."""
    low, high = values.floats()
    return np.maximum(np.abs(low), np.abs(high))


def added(one: Term, other: Term, count: int) -> Term:
    """The sum of two terms over the same channels and windows, for a tensor of ``count`` rows."""
    if not np.intersect1d(one.rows, other.rows).size and (one.columns is None) == (other.columns is None):
        same = one.columns is None or (other.columns is not None and one.columns.shape[1] == other.columns.shape[1])
        if same:
            return _stacked(one, other)
    one, other, width = one.dense(), other.dense(), one.width
    kernel = one.weights.shape[2:]
    total, mass = zeros(one.weights, (count, width, *kernel)), np.zeros((count, width, *kernel))
    for term in (one, other):
        at = (term.rows,)
        total = placed(total, total[at] + term.weights, at)
        mass[term.rows] += term.mass
    rows = np.union1d(one.rows, other.rows)
    return Term(rows, total[rows], None, mass[rows], width)


def _stacked(one: Term, other: Term) -> Term:
    from onnxprune.verify.numbers import concatenated  # noqa: PLC0415

    columns = None if one.columns is None else np.concatenate([one.columns, other.columns])
    return Term(
        np.concatenate([one.rows, other.rows]),
        concatenated([one.weights, other.weights], 0),
        columns,
        np.concatenate([one.mass, other.mass]),
        one.width,
    )


def zeros(like: Interval, shape: tuple[int, ...]) -> Interval:
    """Zeros in the arithmetic of an interval."""
    return like.like(np.zeros(shape), np.zeros(shape))


def placed(total: Interval, values: Interval, at: tuple[Any, ...]) -> Interval:
    """A copy with some entries replaced."""

    def put(whole: Any, part: Any) -> Any:
        if not total.exact:
            result = whole.copy()
            result[at] = part
            return result
        from onnxprune.verify.dyadic import Dyadic, _aligned  # noqa: PLC0415

        a, b, e = _aligned(whole, part)
        result = a.copy()
        result[at] = b
        return Dyadic(result, e)

    return Interval(put(total.low, values.low), put(total.high, values.high))


@dataclass(frozen=True)
class Layer:
    """A layer with constant weights, in one form for dense and convolutional ones.

    Attributes:
        weights: Exact numbers, shape (out, in per group, *kernel).
        groups: Channels of different groups do not meet.
        windows: See :data:`Windows`.
        views: Which taps meet the image together (see ``Geometry.views``).
        axis: Axis of the channels.
    """

    weights: NDArray[Any]
    groups: int
    windows: Windows
    views: list[NDArray[np.bool_]] | None
    axis: int

    @property
    def outs(self) -> int:
        """Number of rows."""
        return int(self.weights.shape[0])

    @property
    def ins(self) -> int:
        """Number of channels it reads."""
        return int(self.weights.shape[1]) * self.groups

    def sums(self, values: Interval) -> Interval:
        """What channels that are constant, shape (in,), add to every row; over all borders of the image."""
        if not sizes(values).any():
            zero = np.zeros(self.outs)
            return values.like(zero, zero)
        views = self.views
        if views is None:
            values, views = (
                values.hull(values.like(np.zeros(()), np.zeros(()))),
                [np.ones(self.weights.shape[2:], bool)],
            )
        taps = int(np.prod(self.weights.shape[2:]))
        found = None
        for view in views:
            weights = self.weights if view.all() else np.where(view, self.weights, 0)
            part = contract(self._summed, weights, values, self.weights.shape[1] * taps)
            found = part if found is None else found.hull(part)
        assert found is not None
        return found

    def _summed(self, weights: Any, values: Any) -> Any:
        outs, ins = len(weights) // self.groups, weights.shape[1]
        sums = weights.reshape(self.groups, outs, ins, -1).sum(axis=3)
        if self.groups == 1:
            return sums[0] @ values
        return (sums * values.reshape(self.groups, 1, ins)).sum(axis=2).reshape(-1)

    def reach(self, values: Floats) -> Floats:
        """Absolute weights times sizes per channel, rounded up; zero times infinity is zero."""
        absolute = np.abs(self.weights.astype(np.float64))
        finite = np.where(np.isfinite(values), values, 0.0)
        total = self._summed(absolute, finite) * (1 + 1e-9)
        wild = self._summed((absolute != 0).astype(np.float64), (~np.isfinite(values)).astype(np.float64)) > 0
        return np.where(wild, np.inf, total)


def through(layer: Layer, term: Term, windows: Windows) -> tuple[Windows, Term] | None:
    """What a layer makes of a term of its input; None where it cannot be written as one.

    Args:
        layer: The layer.
        term: Part of the tensor that the layer reads.
        windows: How that part meets the image of its own channels.
    """
    if term.columns is not None and term.columns.shape[1] == 1 and _only_pads(windows):
        bare = replace(term, weights=term.weights.map(lambda m: m.reshape(-1, 1)), mass=term.mass.reshape(-1, 1))
        if windows is None or isinstance(windows, tuple):
            return layer.windows, _picked(layer, bare)
        if isinstance(layer.windows, Geometry):
            return _merged(windows, layer.windows)[0], _picked(layer, bare)
    if layer.groups > 1:
        return None
    return _composed(layer, term.dense(), windows)


def _only_pads(windows: Windows) -> bool:
    """Whether every place is met by itself, with zeros around the image at most."""
    if windows is None:
        return True
    return isinstance(windows, Geometry) and all(
        k == s == 1 for k, s in zip(windows.kernel, windows.strides, strict=True)
    )


def _picked(layer: Layer, term: Term) -> Term:
    assert term.columns is not None
    width = term.width
    channels, factors = term.columns[:, 0], term.weights.map(lambda m: m[:, 0])
    plain = bool((sizes(factors) == 1).all() and (factors.floats()[0] == 1).all())
    exact = factors.exact
    if layer.groups > 1:
        return _grouped(layer, term, channels, factors)
    used = Interval.point(layer.weights[:, term.rows], exact=exact)
    if not plain:
        used = used * factors.map(lambda m: m.reshape(1, -1, *(1,) * (layer.weights.ndim - 2)))
    rows = np.arange(layer.outs)
    shape = (layer.outs, width, *layer.weights.shape[2:])
    first = np.unique(channels, return_index=True)[1]
    total = placed(zeros(used, shape), used[:, first], (slice(None), channels[first]))
    mass = np.zeros(shape)
    mass[:, channels[first]] = sizes(used[:, first])
    for k in np.setdiff1d(np.arange(len(channels)), first):
        at = (slice(None), channels[k])
        total = placed(total, total[at] + used[:, k], at)
        mass[at] += sizes(used[:, k])
    return Term(rows, total, None, mass, width)


def _grouped(layer: Layer, term: Term, channels: Indices, factors: Interval) -> Term:
    """Rows of a grouped layer; inputs that the term has no part in get weight zero."""
    ins, outs = layer.weights.shape[1], layer.outs // layer.groups
    place = np.full(layer.ins, -1)
    place[term.rows] = np.arange(len(term.rows))
    reads = np.repeat(np.arange(layer.groups), outs)[:, None] * ins + np.arange(ins)
    where = place[reads]
    columns = np.where(where >= 0, channels[where], 0)
    weights = Interval.point(layer.weights, exact=factors.exact)
    kernel = (1,) * (layer.weights.ndim - 2)
    spread = factors.map(lambda m: m[where].reshape(*where.shape, *kernel))
    here = (where >= 0).reshape(*where.shape, *kernel).astype(np.float64)
    weights = weights * spread * Interval.point(here, exact=factors.exact)
    return Term.of(np.arange(layer.outs), weights, columns, term.width)


def _composed(layer: Layer, term: Term, windows: Windows) -> tuple[Windows, Term] | None:
    """One layer behind another; the second must not be padded where the first is more than a single tap."""
    if isinstance(windows, tuple) or isinstance(layer.windows, tuple):
        return None
    rows = np.arange(layer.outs)
    used = layer.weights[:, term.rows]
    if windows is None and layer.windows is None:
        weights = contract(lambda w, v: w @ v, used, term.weights, used.shape[1])
        return None, Term(rows, weights, None, np.abs(used.astype(np.float64)) @ term.mass, term.width)
    rank = len((windows or layer.windows).kernel)  # type: ignore[union-attr]
    unit = Geometry((1,) * rank, (1,) * rank, (1,) * rank, (0,) * (2 * rank))
    one, two = windows or unit, layer.windows or unit
    single = all(k == 1 for k in one.kernel)
    if two.padded and not (single and all(s == 1 for s in one.strides)):
        return None
    form, first, second = _merged(one, two)
    inner = term.weights if windows is not None else term.weights.map(lambda m: m.reshape(*m.shape, *(1,) * rank))
    mass = term.mass.reshape(*term.mass.shape[:2], *one.kernel)
    outer = used if layer.windows is not None else used.reshape(*used.shape, *(1,) * rank)

    def placed(w: Any, v: Any) -> Any:
        total = np.zeros((len(w), term.width, *form.kernel), dtype=np.result_type(w, v))
        for at, by in product(one.taps(), two.taps()):
            spot = tuple(a * f + b * g for a, f, b, g in zip(at, first, by, second, strict=True))
            key: tuple[Any, ...] = (slice(None), slice(None), *spot)
            total[key] = total[key] + w[(slice(None), slice(None), *by)] @ v[(slice(None), slice(None), *at)]
        return total

    terms = used.shape[1] * int(np.prod(two.kernel))
    weights = contract(placed, outer, inner, terms)
    return form, Term(rows, weights, None, placed(np.abs(outer.astype(np.float64)), mass), term.width)


def _merged(one: Geometry, two: Geometry) -> tuple[Geometry, list[int], list[int]]:
    """Windows of windows, and how far apart the taps of either lie in them."""
    axes = range(len(one.kernel))
    first, second, kernel, dilations = [], [], [], []
    for a in axes:
        steps = (
            one.dilations[a] if one.kernel[a] > 1 else 0,
            one.strides[a] * two.dilations[a] if two.kernel[a] > 1 else 0,
        )
        grid = int(np.gcd(*steps)) or 1
        first.append(steps[0] // grid)
        second.append(steps[1] // grid)
        kernel.append(first[a] * (one.kernel[a] - 1) + second[a] * (two.kernel[a] - 1) + 1)
        dilations.append(grid)
    pads = tuple(p + s * q for p, s, q in zip(one.pads, one.strides * 2, two.pads, strict=True))
    strides = tuple(s * t for s, t in zip(one.strides, two.strides, strict=True))
    return Geometry(tuple(kernel), strides, tuple(dilations), pads), first, second
