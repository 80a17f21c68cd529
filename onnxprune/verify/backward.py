"""Upper bounds on linear functions of a tensor, by multipliers: one pass back through the graph.

Behind an activation s with input x in [l, u], any multiplier d gives

    c s(x) <= d x + max over x in [l, u] of (c s(x) - d x),

and where s is piecewise linear the maximum is that of a few points. So coefficients go back to the inputs whatever
the multipliers are; good ones give good bounds. The slopes of linear bounds (Zhang et al. 2018), optimised ones
(Xu et al. 2021), dual solutions of the triangle relaxation (Wong & Kolter 2018; Salman et al. 2019) and the prices of
phases (Wang et al. 2021) all are such multipliers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.adjoints import Step, step
from onnxprune.verify.curves import Curve, curve, multipliers
from onnxprune.verify.curves import largest as most_over
from onnxprune.verify.dyadic import Dyadic
from onnxprune.verify.forward import Given
from onnxprune.verify.network import Network, Node
from onnxprune.verify.numbers import Interval, Numbers, contract, gamma, larger, largest, number, smaller
from onnxprune.verify.rules_entries import clip_ends

Floats = NDArray[np.float64]
Slopes = Callable[[str, Floats, Floats, Floats, Floats, Floats], Floats]
"""Multipliers for an activation: (its input, coefficients behind it, l, u, s(l), s(u)).

Arrays are (rows, entries) or (1, entries).
"""


def adaptive(_: str, c: Floats, low: Floats, high: Floats, at_low: Floats, at_high: Floats) -> Floats:
    """The chord where the coefficient is positive; else the steeper or the flatter end, whichever is nearer."""
    chord = _chord(low, high, at_low, at_high)
    steep = np.where(high > -low, 1.0, _flat(low, at_low))
    return np.where(c > 0, c * chord, c * steep)


def flat(_: str, c: Floats, low: Floats, high: Floats, at_low: Floats, at_high: Floats) -> Floats:
    """The chord where the coefficient is positive; else the slope below the knot."""
    return np.where(c > 0, c * _chord(low, high, at_low, at_high), c * _flat(low, at_low))


def opposite(_: str, c: Floats, low: Floats, high: Floats, at_low: Floats, at_high: Floats) -> Floats:
    """As :func:`adaptive`, with the end that is further away."""
    far = np.where(high > -low, _flat(low, at_low), 1.0)
    return np.where(c > 0, c * _chord(low, high, at_low, at_high), c * far)


def boxed(name: str, c: Floats, low: Floats, high: Floats, at_low: Floats, at_high: Floats) -> Floats:
    """As :func:`adaptive`; smooth activations are left to intervals."""
    return adaptive(name, c, low, high, at_low, at_high)


def _chord(low: Floats, high: Floats, at_low: Floats, at_high: Floats) -> Floats:
    width = high - low
    return np.asarray((at_high - at_low) / np.where(width > 0, width, 1.0))


def _flat(low: Floats, at_low: Floats) -> Floats:
    return np.where(low < 0, at_low / np.where(low < 0, low, -1.0), 0.0)


FAR = 1e6
"""Inputs of smooth activations beyond this are left to intervals."""
RULES: dict[str, Slopes] = {"adaptive": adaptive, "flat": flat, "opposite": opposite, "boxed": boxed}


@dataclass(frozen=True)
class Bent:
    """A piecewise-linear activation: points between which it is straight, and its values at single points."""

    node: Node
    knots: tuple[float, ...]
    value: Callable[[Interval], Interval]


def bent(given: Given) -> Bent | None:
    """A piecewise-linear activation; None for other nodes."""
    node = given.node
    if node.op == "Relu":
        return Bent(node, (0.0,), _rectified)
    if node.op == "LeakyRelu":
        alpha = float(node.get("alpha", 0.01))
        return Bent(node, (0.0,), lambda x: _leaky(x, alpha))
    if node.op == "PRelu":
        return _with_slopes(given)
    ends = clip_ends(given) if node.op == "Clip" else None
    if ends is not None:
        return Bent(node, ends, lambda x: x.clamped(*ends))
    return None


def _with_slopes(given: Given) -> Bent | None:
    """PRelu with constant slopes, one for each entry of a sample."""
    slopes, shape = given.constant(1), given.sample(0)
    if slopes is None or shape is None:
        return None
    try:
        flat = np.broadcast_to(slopes, shape).reshape(1, -1)
    except ValueError:
        return None
    return Bent(given.node, (0.0,), lambda x: _leaky(x, flat.astype(np.float64)))


def _rectified(x: Interval) -> Interval:
    return x.monotone(lambda v: larger(v, number(0.0, v)))


def _leaky(x: Interval, alpha: float | Floats) -> Interval:
    zero = number(0.0, x.low)
    slope = x.like(np.array(alpha), np.array(alpha))
    return x.monotone(lambda v: larger(v, zero)) + x.monotone(lambda v: smaller(v, zero)) * slope


@dataclass
class Backward:
    """Walks back through one model.

    Attributes:
        net: The model.
        bounds: Bounds on its tensors, per sample: axes of full length or 1. The first axis, that of the batch, may
            have one index per row of the walk.
        exact: Whether to compute without rounding.
        reached: Sums of the absolute coefficients on the model's inputs, after a walk.
        ends: The coefficients themselves, shape (rows, entries).
    """

    net: Network
    bounds: Mapping[str, Interval]
    exact: bool = False
    reached: dict[str, Floats] = field(default_factory=dict)
    ends: dict[str, Floats] = field(default_factory=dict)
    _steps: dict[int, Step | None] = field(default_factory=dict)
    _sizes: dict[str, Floats] = field(default_factory=dict)

    def upper(
        self,
        tensor: str,
        rows: Floats,
        slopes: Slopes,
        seeds: Mapping[str, Floats] | None = None,
        fixed: Mapping[str, tuple[NDArray[np.int64], Floats]] | None = None,
    ) -> Floats:
        """Upper bounds on ``rows @ tensor``, rounded up.

        Args:
            tensor: Its name; its sizes are static.
            rows: Coefficients, shape (rows, *sample).
            slopes: Chooses multipliers; where an activation is straight they are the coefficients times its slope.
            seeds: Further coefficients, on inputs of the model.
            fixed: By input of an activation, entries and the multipliers to take for them, shape (rows, entries).
        """
        self._fixed = fixed or {}
        start: Numbers = Dyadic.of(rows) if self.exact else np.asarray(rows, dtype=np.float64)
        self._open: dict[str, Numbers] = {tensor: start}
        self._count = len(rows)
        zero = np.zeros(self._count)
        self._total = Interval.of(zero, zero, exact=self.exact)
        for name, values in (seeds or {}).items():
            self._pass(name, Dyadic.of(values) if self.exact else values)
        position = {id(node): index for index, node in enumerate(self.net.nodes)}
        last = max((position[id(self.net.producer[n])] for n in self._open if n in self.net.producer), default=-1)
        for node in reversed(self.net.nodes[: last + 1]):
            if any(name in self._open for name in node.outputs):
                self._visit(node, slopes)
        for name in list(self._open):
            if name in self.net.inputs and not self.exact:
                self.ends[name] = self._open[name].reshape(self._count, -1)
                self.reached[name] = np.abs(self.ends[name]).sum(axis=0)
            self._close(name)
        return self._total.floats()[1]

    def _visit(self, node: Node, slopes: Slopes) -> None:
        given = Given(node, self.net, self.bounds, self.exact)
        if len(node.outputs) == 1 and id(node) not in self._steps:
            self._steps[id(node)] = step(given)
        known = self._steps.get(id(node))
        if known is not None:
            if self._affine(node, known):
                return
        elif len(node.outputs) == 1:
            activation = bent(given)
            if activation is not None and self._bend(activation, slopes):
                return
            smooth = curve(given) if slopes is not boxed else None
            if smooth is not None and self._curve(node, smooth, chord=slopes is adaptive):
                return
        for name in node.outputs:
            if name in self._open:
                self._close(name)

    def _affine(self, node: Node, known: Step) -> bool:
        output = node.outputs[0]
        sizes = {index: self._size(node.inputs[index]) for index in known.back}
        if any(size is None for size in sizes.values()):
            return False
        rows = self._open[output]
        results = {index: back(rows) for index, back in known.back.items()}
        if known.shift is not None:
            self._count_in(rows, known.shift)
        terms = known.always if self.exact else known.terms
        if terms:
            height = known.size({index: size for index, size in sizes.items() if size is not None})
            self._pay(gamma(terms), rows, height)
        del self._open[output]
        for index, values in results.items():
            self._pass(node.inputs[index], values)
        return True

    def _pay(self, share: float, rows: Numbers, height: Floats) -> None:
        """Add what rounding may have cost: a share of the sum of absolute products."""
        weights = np.abs(rows.floats(np.inf)) if isinstance(rows, Dyadic) else np.abs(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            cost = share * (weights * height).reshape(self._count, -1).sum(axis=1)
        cost = np.where(np.isnan(cost), np.inf, cost)
        self._total = self._total + self._total.like(-cost, cost)

    def _count_in(self, rows: Numbers, values: Interval) -> None:
        """Add the products of coefficients with values that are known up to an interval."""
        if not self.exact:
            lead = values.shape[0] if values.ndim == rows.ndim else 1
            sizes = (lead, *rows.shape[1:])
            known = values.map(lambda m: np.broadcast_to(m, sizes).reshape(lead, -1))
            self._total = self._total + contract(_along_rows, rows.reshape(self._count, -1), known, known.shape[1])
            return
        part = Interval(rows, rows) * values
        if part.shape != tuple(rows.shape):
            part = part.map(lambda m: np.broadcast_to(m, tuple(rows.shape)))
        self._total = self._total + part.map(lambda m: m.reshape(self._count, -1)).total(1)

    def _pass(self, name: str, rows: Numbers) -> None:
        if name in self._open:
            before = self._open[name]
            if not self.exact:
                size = self._size(name)
                height = np.array(np.inf) if size is None else size
                self._pay(gamma(2), np.abs(before) + np.abs(rows), height)
            rows = before + rows
        self._open[name] = rows

    def _bend(self, activation: Bent, slopes: Slopes) -> bool:
        source, output = activation.node.inputs[0], activation.node.outputs[0]
        known, shape = self.bounds.get(source), self.net.sample(source)
        if known is None or shape is None or known.ndim != len(shape):
            return False
        rows = self._open.pop(output)
        flat_rows = _flattened(rows, self._count)
        ends = _spread(known, shape)
        corners = [activation.value(Interval(end, end)).floats()[1] for end in (ends.low, ends.high)]
        floats = [*ends.floats(), *corners]
        c = flat_rows.floats(np.inf) if isinstance(flat_rows, Dyadic) else flat_rows
        below = all(k >= 0 for k in activation.knots)
        with np.errstate(all="ignore"):
            d = slopes(source, c, floats[0], floats[1], floats[2], floats[3])
        straight = self._straight(activation, floats[0], floats[1])
        d = np.where(straight == 1, c, np.where(straight == 0, 0.0, d)) if below else d
        if source in self._fixed:
            units, fixed = self._fixed[source]
            d = np.array(np.broadcast_to(d, c.shape))
            d[:, units] = fixed
        d = np.where(np.isfinite(d), d, 0.0)
        if self.exact:
            self._exactly(activation, flat_rows, d, ends)
        else:
            self._roughly(activation, c, d, floats)
        self._pass(source, (Dyadic.of(d) if self.exact else d).reshape(self._count, *shape))
        return True

    def _curve(self, node: Node, known: Curve, *, chord: bool) -> bool:
        """Past a smooth activation."""
        source, output = node.inputs[0], node.outputs[0]
        bounds, shape = self.bounds.get(source), self.net.sample(source)
        if bounds is None or shape is None or bounds.ndim != len(shape):
            return False
        low, high = _spread(bounds, shape).floats()
        if not (np.isfinite(low).all() and np.isfinite(high).all()) or max(np.abs(low).max(), np.abs(high).max()) > FAR:
            return False
        rows = _flattened(self._open.pop(output), self._count)
        c = rows.floats(np.inf) if isinstance(rows, Dyadic) else rows
        d = multipliers(known, c, low, high, chord=chord)
        total = most_over(known, c, d, low, high)
        cost = gamma(total.shape[1] + 4) * np.abs(total).sum(axis=1)
        total = total.sum(axis=1) + np.where(np.isnan(cost), np.inf, cost)
        self._total = self._total + self._total.like(total, total)
        self._pass(source, (Dyadic.of(d) if self.exact else d).reshape(self._count, *shape))
        return True

    def _exactly(self, activation: Bent, rows: Numbers, d: Floats, ends: Interval) -> None:
        """Add the largest values of ``c s(x) - d x``."""
        chosen, back = Interval.point(d, exact=True), Interval(rows, rows)
        points = [Interval(end, end) for end in (ends.low, ends.high)]
        for knot in activation.knots:
            if np.isfinite(knot):
                at = smaller(larger(number(knot, ends.low), ends.low), ends.high)
                points.append(Interval(at, at))
        most = largest([(back * activation.value(point) - chosen * point).high for point in points])
        self._total = self._total + Interval(most, most).total(1)

    def _roughly(self, activation: Bent, c: Floats, d: Floats, ends: list[Floats]) -> None:
        """The same in float64; all roundings are paid for at once."""
        low, high, at_low, at_high = ends
        with np.errstate(over="ignore", invalid="ignore"):
            most = np.maximum(c * at_low - d * low, c * at_high - d * high)
            for knot in activation.knots:
                inside = (low < knot) & (high > knot)
                if np.isfinite(knot) and inside.any():
                    value = activation.value(Interval.point(np.array(knot))).high
                    most = np.where(inside, np.maximum(most, c * value - d * knot), most)
            reach = np.maximum(np.maximum(np.abs(low), np.abs(high)), np.maximum(np.abs(at_low), np.abs(at_high)))
            cost = gamma(most.shape[1] + 4) * ((np.abs(c) + np.abs(d)) * reach).sum(axis=1)
            total = most.sum(axis=1) + cost
        total = np.where(np.isnan(total), np.inf, total)
        self._total = self._total + Interval(total, total)

    def _straight(self, activation: Bent, low: Floats, high: Floats) -> Floats:
        """1 where the activation is the identity over the bounds, 0 where it is zero, else -1."""
        if activation.node.op == "Clip":
            bottom, top = activation.knots
            return np.where((low >= bottom) & (high <= top), 1.0, -1.0)
        nothing = 0.0 if activation.node.op == "Relu" else -1.0
        return np.where(low >= 0, 1.0, np.where(high <= 0, nothing, -1.0))

    def _close(self, name: str) -> None:
        """Replace a tensor by its bounds."""
        rows, known = self._open.pop(name), self.bounds.get(name)
        if known is None:
            if np.any(rows != 0):
                self._total = self._total.like(np.full(self._count, -np.inf), np.full(self._count, np.inf))
            return
        shape = self.net.sample(name)
        if shape is not None and known.ndim == len(shape) and known.shape[0] > 1:
            known = _spread(known, shape)
            rows = _flattened(rows, self._count)
        self._count_in(rows, known)

    def _size(self, name: str) -> Floats | None:
        """Largest sizes of the entries of one sample."""
        if name not in self._sizes:
            known, shape = self.bounds.get(name), self.net.sample(name)
            if known is None or shape is None:
                return None
            low, high = known.floats()
            size = np.maximum(np.abs(low), np.abs(high))
            if size.ndim:
                size = size.max(axis=0, keepdims=True)
            self._sizes[name] = np.broadcast_to(size, shape)
        return self._sizes[name]


def _along_rows(rows: Floats, values: Floats) -> Floats:
    """Sums of products of every row with its own values, or with those of all."""
    sums: Floats = rows @ values[0] if len(values) == 1 else np.einsum("ij,ij->i", rows, values)
    return sums


def _flattened(rows: Numbers, count: int) -> Numbers:
    return rows.reshape(count, -1)


def _spread(known: Interval, shape: tuple[int, ...]) -> Interval:
    """Bounds as (rows or 1, entries)."""
    lead = known.shape[0] if known.ndim else 1
    return known.map(lambda m: np.broadcast_to(m, (lead, *shape[1:])).reshape(lead, -1))
