"""Tensors of one model in terms of tensors of another: sums of terms, a shift, and how far off that may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.numbers import Interval, choose, concatenated
from onnxprune.verify.terms import Indices, Layer, Term, Windows, added, sizes, through

Floats = NDArray[np.float64]
SLACK = 1 + 1e-9
"""Covers the rounding of the few operations on errors, which are only ever added and multiplied."""
Key = tuple[str, Windows]
"""A tensor, and how the image of its channels is met."""


@dataclass(frozen=True)
class Form:
    """``row = sum of terms + shift``, up to ``deviation`` and ``rounding``, at every place of the tensor.

    Attributes:
        axis: The axis of the rows; None for a tensor that is another one as a whole: then ``whole`` names it.
        terms: By tensor and windows. Rows that no term is part of are known by their shift alone.
        shift: Bounds on the rest, shape (rows,).
        size: How large the summands of the shift are, shape (rows,).
        deviation: How far removed or merged units move the row, shape (rows,).
        rounding: How far rounded constants move it, shape (rows,); infinite where nothing bounds that.
        whole: The tensor that this one is.
    """

    axis: int | None
    terms: Mapping[Key, Term]
    shift: Interval
    size: Floats
    deviation: Floats
    rounding: Floats
    whole: str = ""

    @staticmethod
    def same(tensor: str, *, exact: bool, deviation: float = 0.0, rounding: float = 0.0) -> Form:
        """A tensor that is another one as a whole."""
        zero = np.zeros(())
        shift = Interval.of(zero, zero, exact=exact)
        return Form(None, {}, shift, zero, np.array(deviation), np.array(rounding), tensor)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.size)

    @property
    def plain(self) -> bool:
        """Whether nothing is known to be off."""
        return not self.deviation.any() and not self.rounding.any()

    def along(self, axis: int, count: int) -> Form | None:
        """The form with rows along this axis; None where its rows run along another one."""
        if self.axis is not None:
            return self if self.axis == axis and self.rows == count else None
        rows = np.arange(count)
        zero, one = np.zeros(count), self.shift.like(np.ones(count), np.ones(count))
        term = Term.pick(rows, rows, one, count)
        spread = [np.full(count, float(part)) for part in (self.deviation, self.rounding)]
        return Form(axis, {(self.whole, None): term}, self.shift.like(zero, zero), zero, spread[0], spread[1])

    def matched(self, tensor: str) -> tuple[Indices, Interval]:
        """Per row the channel of a tensor that it is a multiple of (-1: none, or not alone), and the factor."""
        channel = np.full(self.rows, -1)
        low, high = np.zeros(self.rows), np.zeros(self.rows)
        for (name, windows), term in self.terms.items():
            if name == tensor and windows is None and term.picks and term.columns is not None:
                channel[term.rows] = term.columns[:, 0]
                low[term.rows], high[term.rows] = (end[:, 0] for end in term.weights.floats())
        for (name, windows), term in self.terms.items():
            if name != tensor or windows is not None or not term.picks:
                channel[term.rows] = -1
        channel[(sizes(self.shift) != 0) | (low != high)] = -1
        return channel, self.shift.like(low, high)

    @property
    def bare(self) -> NDArray[np.bool_]:
        """Rows that no term is part of."""
        result = np.ones(self.rows, dtype=bool)
        for term in self.terms.values():
            result[term.rows] = False
        return result

    def without(self, gone: NDArray[np.bool_], bounds: Interval) -> Form:
        """The same with some rows known by bounds alone."""
        if not gone.any():
            return self
        terms = {key: term.take(np.flatnonzero(~gone[term.rows])) for key, term in self.terms.items()}
        terms = {key: term for key, term in terms.items() if len(term.rows)}
        low, high = choose(gone, bounds.low, self.shift.low), choose(gone, bounds.high, self.shift.high)
        shift = Interval(low, high)
        size = np.where(gone, sizes(shift), self.size)
        deviation, rounding = np.where(gone, 0.0, self.deviation), np.where(gone, 0.0, self.rounding)
        return replace(self, terms=terms, shift=shift, size=size, deviation=deviation, rounding=rounding)

    def scaled(self, factors: Interval) -> Form:
        """Every row times a factor, shape (rows,)."""
        size = sizes(factors)
        terms = {key: term.scaled(factors[term.rows]) for key, term in self.terms.items()}
        errors = [_times(size, part) for part in (self.size, self.deviation, self.rounding)]
        return replace(
            self, terms=terms, shift=self.shift * factors, size=errors[0], deviation=errors[1], rounding=errors[2]
        )

    def shifted(self, by: Interval) -> Form:
        """With something added to every row, shape (rows,)."""
        return replace(self, shift=self.shift + by, size=(self.size + sizes(by)) * SLACK)

    def taken(self, indices: Indices) -> Form:
        """Rows of this form in another order, some left out, some repeated."""
        terms = {}
        for key, term in self.terms.items():
            place = np.full(self.rows, -1)
            place[term.rows] = np.arange(len(term.rows))
            kept = np.flatnonzero(place[indices] >= 0)
            if len(kept):
                terms[key] = term.take(place[indices][kept]).renumbered(kept)
        parts = [part[indices] for part in (self.size, self.deviation, self.rounding)]
        return Form(self.axis, terms, self.shift.map(lambda m: m[indices]), parts[0], parts[1], parts[2])

    def plus(self, other: Form) -> Form:
        """The sum of two forms of equally many rows."""
        terms = dict(self.terms)
        for key, term in other.terms.items():
            terms[key] = added(terms[key], term, self.rows) if key in terms else term
        parts = [
            (one + two) * SLACK
            for one, two in (
                (self.size, other.size),
                (self.deviation, other.deviation),
                (self.rounding, other.rounding),
            )
        ]
        return Form(self.axis, terms, self.shift + other.shift, parts[0], parts[1], parts[2])


def _times(one: Floats, other: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.where((one == 0) | (other == 0), 0.0, one * other * SLACK)


def stacked(forms: list[Form], axis: int) -> Form:
    """Forms behind one another along their rows."""
    total, starts = sum(form.rows for form in forms), np.cumsum([0, *(form.rows for form in forms)])
    terms: dict[Key, Term] = {}
    for form, start in zip(forms, starts, strict=False):
        for key, term in form.terms.items():
            moved = term.renumbered(term.rows + start)
            terms[key] = added(terms[key], moved, total) if key in terms else moved
    parts = [np.concatenate([getattr(form, name) for form in forms]) for name in ("size", "deviation", "rounding")]
    return Form(axis, terms, concatenated([form.shift for form in forms], 0), parts[0], parts[1], parts[2])


@dataclass(frozen=True)
class Applied:
    """A layer with constant weights and its bias, shape (out,)."""

    layer: Layer
    bias: Interval
    bounds: Interval | None = field(default=None)
    """Bounds on the channels that the layer reads: stand in for rows it cannot be composed with."""

    def to(self, form: Form) -> Form:
        """What the layer makes of a form of its input."""
        layer = self.layer
        terms: dict[Key, Term] = {}
        for (name, windows), term in form.terms.items():
            result = through(layer, term, windows)
            if result is None:
                if self.bounds is None:
                    raise ValueError("a layer cannot be composed with what is in front of it")
                gone = np.zeros(form.rows, dtype=bool)
                gone[term.rows] = True
                return self.to(form.without(gone, self.bounds))
            key, made = (name, result[0]), result[1]
            terms[key] = added(terms[key], made, layer.outs) if key in terms else made
        shift = layer.sums(form.shift) + self.bias
        size = (layer.reach(form.size) + sizes(self.bias)) * SLACK
        return Form(layer.axis, terms, shift, size, layer.reach(form.deviation), layer.reach(form.rounding))
