"""Bounds on rows of the original from what they are in terms of tensors of the optimized model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.backward import Backward, adaptive, flat
from onnxprune.verify.forms import Form, Key
from onnxprune.verify.forward import RULES, Given
from onnxprune.verify.meanings import meaning
from onnxprune.verify.numbers import Interval, choose
from onnxprune.verify.terms import Term, placed, sizes
from onnxprune.verify.windows import Geometry

if TYPE_CHECKING:
    from onnxprune.verify.sides import Side

Floats = NDArray[np.float64]
CANCELLED = 1e-9
"""Share of its summands that is left of a sum that cancels."""
CONSTANT = 2.0**-40
"""Share of its size by which a channel may vary and still count as constant."""


def learn(side: Side, after: Side, tensor: str, form: Form, rows: NDArray[np.bool_]) -> None:
    """Note what follows for a tensor, and for what activations make of it, from what some of its rows are.

    Sums of rows that are one and the same in the optimized model cancel there, which no bound in the original shows.

    Args:
        side: The model of the tensor: gains bounds.
        after: The optimized model.
        tensor: Its name.
        form: What it is, in terms of tensors of the optimized model.
        rows: Which rows to look at, shape (rows,).
    """
    axis, shape = form.axis, side.net.shape(tensor)
    if axis is None or shape is None or tensor in side.net.constants or not rows.any():
        return
    which = np.flatnonzero(rows)
    found = bounded(form.taken(which), after)
    known = side.rows(tensor, axis, form.rows)
    spread = np.zeros(form.rows, dtype=np.int64)
    spread[which] = np.arange(len(which))
    low, high = (choose(rows, end[spread], old) for end, old in ((found.low, known.low), (found.high, known.high)))
    extents = [form.rows if a == axis else 1 for a in range(len(shape))]
    side.learn(tensor, Interval(low, high).map(lambda m: m.reshape(extents)))
    sharper = {**side.bounds, tensor: side.known(tensor).meet(side.implied[tensor])}
    for node in side.net.readers.get(tensor, []):
        given = Given(node, side.net, sharper, side.exact)
        if meaning(given) is not None:
            with np.errstate(all="ignore"):
                images = RULES[node.op](given)
            if images:
                side.learn(node.outputs[0], images[0])


def cancelled(form: Form) -> NDArray[np.bool_]:
    """Rows whose weights are next to nothing beside what they were added up from."""
    left, mass = np.zeros(form.rows), np.zeros(form.rows)
    for term in form.terms.values():
        left[term.rows] += sizes(term.weights).reshape(len(term.rows), -1).sum(axis=1)
        mass[term.rows] += term.mass.reshape(len(term.rows), -1).sum(axis=1)
    return (mass > 0) & (left <= CANCELLED * mass)


def bounded(form: Form, after: Side) -> Interval:
    """Bounds on the rows of a form, shape (rows,): of its tensors' intervals, and of walks back from them."""
    total = form.shift
    for key, term in form.terms.items():
        part = worth(term.weights, term, after.rows(key[0], form.axis or 0, term.width), padded=sees_border(key))
        total = total + spread_out(part, term.rows, form.rows)
    if all(_is_vector(key, term, after) for key, term in form.terms.items()):
        total = total.meet(_walked(form, after))
    off = form.deviation + form.rounding
    return total + total.like(-off, off)


def _is_vector(key: Key, term: Term, after: Side) -> bool:
    """Whether the channels of a term are all that there is of a tensor."""
    return key[1] is None and term.weights.ndim == 2 and np.prod(after.net.sample(key[0]) or (0,)) == term.width


def _walked(form: Form, after: Side) -> Interval:
    total = form.shift
    seeds: dict[str, Floats] = {}
    for (tensor, _), term in form.terms.items():
        dense = term.dense()
        low, high = dense.weights.floats()
        middle = low / 2 + high / 2
        rest = dense.weights - dense.weights.like(middle, middle)
        part = worth(rest, dense, after.rows(tensor, form.axis or 0, term.width), padded=False)
        total = total + spread_out(part, dense.rows, form.rows)
        seeds[tensor] = np.zeros((form.rows, *(after.net.sample(tensor) or ())))
        seeds[tensor][dense.rows] = middle.reshape(len(dense.rows), *seeds[tensor].shape[1:])
    first, *others = seeds
    ends = []
    for sign in (-1.0, 1.0):
        ends.append(np.full(form.rows, np.inf))
        for rule in (adaptive, flat):
            walk = Backward(after.net, after.bounds, after.exact)
            found = walk.upper(first, sign * seeds[first], rule, {name: sign * seeds[name] for name in others})
            ends[-1] = np.minimum(ends[-1], found)
    return total + total.like(-ends[0], ends[1])


def worth(weights: Interval, term: Term, bounds: Interval, *, padded: bool) -> Interval:
    """Bounds on the products of weights with channels, per row.

    Channels that do not vary are added up tap by tap before anything else, since what one of them lacks another one
    may make up for; where a window reaches beyond the image a tap counts or not.
    """
    low, high = bounds.floats()
    still = high - low <= CONSTANT * np.maximum(np.abs(low), np.abs(high))
    columns = term.columns
    seen = bounds.map(lambda m: m[None] if columns is None else m[columns])
    fixed = np.broadcast_to(still[None] if columns is None else still[columns], weights.shape[:2])
    kernel = (1,) * (weights.ndim - 2)
    products = weights * seen.map(lambda m: m.reshape(*m.shape, *kernel))
    parts = []
    for mask in (fixed, ~fixed):
        chosen = mask.astype(np.float64).reshape(*mask.shape, *kernel)
        parts.append(products * products.like(chosen, chosen))
    taps = parts[0].total(1)
    if padded:
        zero = parts[1].like(np.zeros(()), np.zeros(()))
        taps, parts[1] = taps.hull(zero), parts[1].hull(zero)
    flat = [part.map(lambda m: m.reshape(len(m), -1)).total(1) for part in (taps, parts[1])]
    return flat[0] + flat[1]


def sees_border(key: Key) -> bool:
    """Whether windows may reach beyond the image."""
    return isinstance(key[1], tuple) or (isinstance(key[1], Geometry) and key[1].padded)


def spread_out(part: Interval, rows: NDArray[np.int64], count: int) -> Interval:
    """Values of some rows, zero for the others, shape (count,)."""
    zero = np.zeros(count)
    return placed(part.like(zero, zero), part, (rows,))
