"""Pairs rows of two models by their weights, as far as random projections tell them apart."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.forms import Form, Key
from onnxprune.verify.numbers import Interval
from onnxprune.verify.sides import Side
from onnxprune.verify.terms import Indices, Term
from onnxprune.verify.worth import CONSTANT, sees_border

Floats = NDArray[np.float64]
ALIKE = 2e-5
"""Projections of rows that agree to this share of their largest possible size count as equal."""
PROPORTIONAL = 1e-6
"""The same for rows that are multiples of one another."""
NEGLIGIBLE = 1e-8
"""Channels that vary by no more than this share of the largest one count as constant."""
NOTHING = 1e-30
"""Weights below this are lost when they are rounded to float32."""


@dataclass(frozen=True)
class Views:
    """Random vectors that rows are multiplied by; channels that the domain fixes count towards the shift.

    Attributes:
        after: The optimized model.
        axis: Of the rows.
    """

    after: Side
    axis: int

    def projected(self, form: Form, keys: list[Key]) -> tuple[Floats, Floats, Floats]:
        """Every row times two random vectors, how large that could be, and its shift."""
        total, size = np.zeros((form.rows, 2)), np.zeros(form.rows)
        low, high = form.shift.floats()
        shift = low / 2 + high / 2
        for key in keys:
            term = form.terms.get(key)
            if term is None:
                continue
            weights, (fixed, values) = middle(term.weights), self._fixed(key, term)
            kernel = (1,) * (weights.ndim - 2)
            chosen = np.arange(term.width)[None] if term.columns is None else term.columns
            still, value = fixed[chosen].reshape(*chosen.shape, *kernel), values[chosen].reshape(*chosen.shape, *kernel)
            worth = weights * np.where(still, value, 0.0)
            padded = sees_border(key)
            for number, vector in enumerate(self._vectors(key, term)):
                total[term.rows, number] += (weights * vector * ~still).reshape(len(weights), -1).sum(axis=1)
                if padded:
                    taps = np.random.default_rng([number, 1]).uniform(0.5, 1.5, weights.shape[2:])
                    total[term.rows, number] += (worth.sum(axis=1) * taps).reshape(len(weights), -1).sum(axis=1)
            if not padded:
                shift[term.rows] += worth.reshape(len(weights), -1).sum(axis=1)
            mass = np.abs(term.mass) * np.where(still, np.abs(value), 1.0)
            size[term.rows] += mass.reshape(len(weights), -1).sum(axis=1)
        return total, size, shift

    def _fixed(self, key: Key, term: Term) -> tuple[NDArray[np.bool_], Floats]:
        low, high = self.after.rows(key[0], self.axis, term.width).floats()
        size = np.maximum(np.abs(low), np.abs(high))
        room = np.maximum(CONSTANT * size, NEGLIGIBLE * size.max(initial=0.0, where=np.isfinite(size)))
        return high - low <= room, low / 2 + high / 2

    def _vectors(self, key: Key, term: Term) -> list[Floats]:
        kernel = term.weights.shape[2:]
        seed = zlib.crc32(repr(key).encode())
        found = []
        for number in range(2):
            values = np.random.default_rng([seed, number]).uniform(0.5, 1.5, (term.width, *kernel))
            found.append(values[None] if term.columns is None else values[term.columns])
        return found


def paired(form: Form, target: Form, views: Views) -> Indices:
    """Per row of the form the row of the target with the same weights, in order; -1 for none."""
    keys = list(dict.fromkeys((*form.terms, *target.terms)))
    (mine, size, shift), (other, _, shifted) = (views.projected(f, keys) for f in (form, target))
    low, high = form.shift.floats()
    loose = high - low  # rows that were removed in front without a proof so far
    which = np.full(form.rows, -1)
    free = np.ones(form.rows, dtype=bool)
    for j in range(target.rows):
        gap = np.abs(mine - other[j]).max(axis=1)
        usable = free & ~form.bare
        near = np.flatnonzero((gap <= ALIKE * size) & usable)
        near = near if len(near) else np.flatnonzero((gap <= NOTHING) & usable)
        gaps = np.abs(shift[near] - shifted[j])
        fits = gaps <= loose[near] + ALIKE * (form.size[near] + size[near])
        near, gaps = near[fits], gaps[fits]
        if not len(near):
            continue
        best = int(near[np.flatnonzero(gaps <= gaps.min() + 1e-6 * abs(shifted[j]))[0]])
        which[best], free[best] = j, False
    return which


def middle(bounds: Interval) -> Floats:
    """Middles of bounds."""
    low, high = bounds.floats()
    return np.asarray(low / 2 + high / 2)


def multiples(form: Form, target: Form, which: Indices, views: Views) -> Floats:
    """Gives rows that are left the row they are a positive multiple of; factors of all rows."""
    keys = list(dict.fromkeys((*form.terms, *target.terms)))
    (mine, _, shift), (other, size, shifted) = (views.projected(f, keys) for f in (form, target))
    factors = np.ones(form.rows)
    for i in np.flatnonzero((which < 0) & ~form.bare):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = mine[i, 0] / other[:, 0]
            gap = np.abs(mine[i, 1] - ratio * other[:, 1]) + np.abs(shift[i] - ratio * shifted)
            good = (ratio > 0) & np.isfinite(ratio) & (gap <= PROPORTIONAL * ratio * (size + np.abs(shifted)))
        if good.any():
            j = int(np.flatnonzero(good)[0])
            which[i], factors[i] = j, _rounded(float(ratio[j]))
    return factors


def _rounded(value: float) -> float:
    """A factor as the division of two float32 numbers most likely was."""
    short = float(np.float32(value))
    return short if abs(short - value) <= 1e-9 * value else value
