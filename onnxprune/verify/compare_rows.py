"""Rows of a tensor of the original against rows of one of the optimized model, both in terms of the same tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.forms import Form, Key
from onnxprune.verify.numbers import Interval
from onnxprune.verify.reasons import Rejected
from onnxprune.verify.terms import Term, added, placed, sizes, zeros
from onnxprune.verify.worth import sees_border, spread_out, worth

if TYPE_CHECKING:
    from onnxprune.verify.sides import Anchor, Side

Floats = NDArray[np.float64]
STORED = 2.0**-22
"""Share of what a constant was added up from that rounding it to float32, once or twice, may have changed."""
SUBNORMAL = 2.0**-149
UNBOUNDED = 1e30
"""Sizes from here on say nothing: they stand for values that are only known to be finite."""


@dataclass(frozen=True)
class Residual:
    """What a comparison left over: the largest over all rows.

    Attributes:
        deviation: What rows differ by, apart from the rounding of constants.
        rounding: What rounded constants make them differ by; infinite or astronomic where values are unbounded.
    """

    deviation: float
    rounding: float


def compared(
    name: str, form: Form, target: Form, anchor: Anchor, after: Side, axis: int, precise: float
) -> tuple[Form, Residual]:
    """A form whose rows are those of the target, as far as the certificate says so.

    Args:
        name: The tensor of the original, for messages.
        form: What is known of it.
        target: The tensor of the optimized model, in terms of the same tensors.
        anchor: Which rows are which.
        after: The optimized model.
        axis: Of the rows.
        precise: Largest share of a row that may be left over.

    Raises:
        Rejected: A row differs by more than may be left over.
    """
    which = np.arange(form.rows) if anchor.rows is None else anchor.rows
    if len(which) != form.rows or (which >= target.rows).any():
        raise Rejected(f"the certificate gives {len(which)} rows to {name}, which has {form.rows}")
    factors = np.ones(form.rows) if anchor.factors is None else anchor.factors
    if not np.isfinite(factors).all():
        raise Rejected(f"a factor of {name} is not finite")
    rows = np.flatnonzero(which >= 0)
    times = form.shift.like(factors[rows], factors[rows])
    mine, other = form.taken(rows), target.taken(which[rows])
    if (factors[rows] != 1).any():
        other = other.scaled(times)
    total, reach, rounding = _difference(mine, other, after, axis)
    low, high = total.floats()
    middle, half = np.abs(low / 2 + high / 2), np.maximum(high / 2 - low / 2, 0.0)
    stored = half + middle <= STORED * mine.size + SUBNORMAL
    fresh = np.where(stored, 0.0, half + middle)
    rounding = rounding + np.where(stored, half + middle, 0.0)
    bad = ~(fresh <= precise * reach + SUBNORMAL) if np.isfinite(precise) else np.zeros(len(fresh), dtype=bool)
    if bad.any():
        at = int(np.flatnonzero(bad)[np.nan_to_num(fresh[bad] / (reach[bad] + SUBNORMAL), nan=np.inf).argmax()])
        raise Rejected(
            f"row {int(rows[at])} of {name} is not row {int(which[rows[at]])} of {anchor.tensor} in the optimized "
            f"model: they may differ by {fresh[at]:.3g}, of {reach[at]:.3g} that the row can be"
        )
    residual = Residual(float(fresh.max(initial=0.0)), float(rounding.max(initial=0.0)))
    deviation, spread = mine.deviation + other.deviation + fresh, mine.rounding + other.rounding + rounding
    return _result(form, anchor, rows, which, times, (deviation, spread), target.rows), residual


def _result(
    form: Form,
    anchor: Anchor,
    rows: NDArray[np.int64],
    which: NDArray[np.int64],
    times: Interval,
    errors: tuple[Floats, Floats],
    width: int,
) -> Form:
    exact = form.shift.exact
    if anchor.rows is None and width == form.rows and (times.floats()[0] == 1).all():
        most = [float(part.max(initial=0.0)) for part in errors]
        return Form.same(anchor.tensor, exact=exact, deviation=most[0], rounding=most[1])
    chosen = np.zeros(form.rows, dtype=bool)
    chosen[rows] = True
    zero = form.shift.like(np.zeros(form.rows), np.zeros(form.rows))
    rest = form.without(chosen, zero)
    terms = dict(rest.terms)
    picked = Term.pick(rows, which[rows], times, width)
    key = (anchor.tensor, None)
    terms[key] = added(terms[key], picked, form.rows) if key in terms else picked
    deviation, rounding = rest.deviation.copy(), rest.rounding.copy()
    deviation[rows], rounding[rows] = errors
    return replace(rest, terms=terms, deviation=deviation, rounding=rounding)


def _difference(one: Form, other: Form, after: Side, axis: int) -> tuple[Interval, Floats, Floats]:
    """Bounds on the difference of rows, how large they can be, and what rounded constants are worth."""
    total = one.shift - other.shift
    reach, rounding = one.size.copy(), np.zeros(one.rows)
    for key in dict.fromkeys((*one.terms, *other.terms)):
        pair = _aligned(one.terms.get(key), other.terms.get(key), one.rows)
        size = _channels(key, pair[0].width, after, axis)
        for term in pair[:1]:
            reach[term.rows] += _dot(term.mass, term, np.where(size < UNBOUNDED, size, 1.0))
        if _equal(*pair):
            continue
        gap = pair[0].weights - pair[1].weights
        apart = sizes(gap)
        small = apart <= STORED * pair[0].mass + SUBNORMAL
        rounding[pair[0].rows] += _dot(np.where(small, apart, 0.0), pair[0], size)
        if not small.all():
            rest = gap * gap.like(np.where(small, 0.0, 1.0), np.where(small, 0.0, 1.0))
            part = worth(rest, pair[0], after.rows(key[0], axis, pair[0].width), padded=sees_border(key))
            total = total + spread_out(part, pair[0].rows, one.rows)
    return total, reach * (1 + 1e-9), rounding * (1 + 1e-9)


def _channels(key: Key, width: int, after: Side, axis: int) -> Floats:
    """The largest sizes of what a window can see of a tensor's channels."""
    return sizes(after.rows(key[0], axis, width))


def _dot(weights: Floats, term: Term, size: Floats) -> Floats:
    """Sums of non-negative weights times sizes of channels; zero times infinity is zero."""
    flat = weights.reshape(*weights.shape[:2], -1).sum(axis=2)
    seen = size[None] if term.columns is None else size[term.columns]
    with np.errstate(invalid="ignore", over="ignore"):
        sums: Floats = np.where(flat == 0, 0.0, flat * seen).sum(axis=1)
    return sums


def _aligned(one: Term | None, other: Term | None, count: int) -> tuple[Term, Term]:
    """Two terms with the same rows and columns."""
    if one is None or other is None:
        known = one if one is not None else other
        assert known is not None
        nothing = np.zeros(known.weights.shape)
        empty = replace(known, weights=known.weights.like(nothing, nothing), mass=nothing)
        return (known, empty) if one is not None else (empty, known)
    if np.array_equal(one.rows, other.rows) and _same_columns(one, other):
        return one, other
    one, other = one.dense(), other.dense()
    if np.array_equal(one.rows, other.rows):
        return one, other
    return _filled(one, count), _filled(other, count)


def _same_columns(one: Term, other: Term) -> bool:
    if one.columns is None or other.columns is None:
        return one.columns is other.columns
    return np.array_equal(one.columns, other.columns)


def _filled(term: Term, count: int) -> Term:
    shape = (count, *term.weights.shape[1:])
    mass = np.zeros(shape)
    mass[term.rows] = term.mass
    weights = placed(zeros(term.weights, shape), term.weights, (term.rows,))
    return Term(np.arange(count), weights, None, mass, term.width)


def _equal(one: Term, other: Term) -> bool:
    pairs: Mapping[str, tuple[object, object]] = {
        "low": (one.weights.low, other.weights.low),
        "high": (one.weights.high, other.weights.high),
        "point": (one.weights.low, one.weights.high),
    }
    return all(bool(np.all(a == b)) for a, b in pairs.values())
