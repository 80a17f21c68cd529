"""Better bounds than intervals give, each with what proves it: the steps of a certificate, checked one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.backward import RULES, Backward
from onnxprune.verify.cases import Phase, covers
from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval, choose, gamma, larger, smaller
from onnxprune.verify.reasons import Rejected
from onnxprune.verify.steps import Constraint, Leaf, Step
from onnxprune.verify.subboxes import bending, swept

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
MEMORY = 2**23
"""Coefficients on the widest tensor that are held at once."""
ALIKE = 1e-6
"""Share of the size of an entry by which a claimed bound may be looser than what is proved."""


@dataclass
class Evidence:
    """Applies the steps of a certificate while a sweep goes through a model.

    Attributes:
        net: The model.
        inputs: Bounds on its inputs.
        steps: In any order.
        constraints: Of the domain.
        exact: Whether to compute without rounding.
        solver: By tensor, how many bounds rest on a solver's word.
        strict: Whether bounds have to be what is proved; else what is proved is taken, whatever they are.
        proved: What was proved, by the identity of a step; upper bounds, of the negative where lower ones are meant.
    """

    net: Network
    inputs: Mapping[str, Interval]
    steps: Sequence[Step]
    constraints: Sequence[Constraint] = ()
    exact: bool = False
    solver: dict[str, int] = field(default_factory=dict)
    strict: bool = True
    proved: dict[int, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the steps by tensor."""
        self._by_tensor: dict[str, list[Step]] = defaultdict(list)
        for item in self.steps:
            self._by_tensor[item.tensor].append(item)
        self._split: dict[tuple[int, str, bool], Floats] = {}

    def refine(self, name: str, known: Mapping[str, Interval]) -> Interval | None:
        """Better bounds on a tensor, given bounds on it and all in front of it.

        Raises:
            Rejected: A step does not prove what it says.
        """
        found = None
        for item in self._by_tensor.get(name, []):
            current = known if found is None else {**known, name: found}
            found = self._apply(item, current)
        return found

    def bound(self, item: Step, known: Mapping[str, Interval]) -> Floats:
        """What the evidence of a step proves: upper bounds, of the negative where lower ones are meant.

        Raises:
            Rejected: It is no evidence.
        """
        shape = self.net.sample(item.tensor)
        assert shape is not None
        return self._proved(item, known, shape)

    def unused(self, known: Mapping[str, Interval]) -> list[str]:
        """Tensors of steps that the model does not have."""
        return [name for name in self._by_tensor if name not in known]

    def _apply(self, item: Step, known: Mapping[str, Interval]) -> Interval:
        shape = self.net.sample(item.tensor)
        before = known[item.tensor]
        if shape is None or before.ndim not in (0, len(shape)):
            raise Rejected(f"{item.tensor} has no static size, so no entry of it can be bounded alone")
        count = int(np.prod(shape))
        if item.bounds.shape != item.entries.shape or not proper(item.entries, count):
            raise Rejected(f"a bound names entries that {item.tensor} does not have")
        if not np.isfinite(item.bounds).all():
            raise Rejected(f"a bound on {item.tensor} is not finite")
        signed = item.bounds if item.upper else -item.bounds
        if item.trust == "solver":
            self.solver[item.tensor] = self.solver.get(item.tensor, 0) + len(item.entries)
            proved = signed
        else:
            proved = self._proved(item, known, shape)
            self.proved[id(item)] = proved
            # Where two multipliers are equally good, rounding may take one and exact numbers the other: theirs counts.
            if self.strict and not self.exact:
                self._compare(item, proved, signed, before, shape)
        return self._taken_over(item, before, proved, shape)

    def _compare(self, item: Step, proved: Floats, signed: Floats, before: Interval, shape: tuple[int, ...]) -> None:
        """Hold what is claimed against what is proved: not less, and not something else either."""
        low, high = (np.broadcast_to(end, shape).reshape(-1)[item.entries] for end in before.floats())
        size = np.maximum(np.maximum(np.abs(low), np.abs(high)), np.abs(proved))
        wrong = np.flatnonzero(~((proved <= signed) & (signed - proved <= ALIKE * size)))
        if len(wrong):
            at = int(wrong[0])
            raise Rejected(
                f"entry {int(item.entries[at])} of {item.tensor}: the evidence proves "
                f"{'an upper' if item.upper else 'a lower'} bound of {proved[at] if item.upper else -proved[at]}, "
                f"not {item.bounds[at]}"
            )

    def _taken_over(self, item: Step, before: Interval, proved: Floats, shape: tuple[int, ...]) -> Interval:
        whole = before.map(lambda m: np.broadcast_to(m, shape))
        mask, values = np.zeros(int(np.prod(shape)), dtype=bool), np.zeros(int(np.prod(shape)))
        mask[item.entries], values[item.entries] = True, proved if item.upper else -proved
        new = before.like(values.reshape(shape), values.reshape(shape))
        chosen = mask.reshape(shape)
        if item.upper:
            return Interval(whole.low, choose(chosen, smaller(whole.high, new.high), whole.high))
        return Interval(choose(chosen, larger(whole.low, new.low), whole.low), whole.high)

    def _proved(self, item: Step, known: Mapping[str, Interval], shape: tuple[int, ...]) -> Floats:
        if item.rule not in RULES:
            raise Rejected(f"there is no rule '{item.rule}' for multipliers")
        if item.cuts is not None:
            return self._by_cuts(item, known)
        if not covers([leaf.phases for leaf in item.leaves]):
            raise Rejected(f"the cases for a bound on {item.tensor} do not cover the domain")
        worst = np.full(len(item.entries), -np.inf)
        for leaf in item.leaves:
            worst = np.maximum(worst, self._in_leaf(item, leaf, known, shape))
        return worst

    def _in_leaf(self, item: Step, leaf: Leaf, known: Mapping[str, Interval], shape: tuple[int, ...]) -> Floats:
        bounds = self._restricted(leaf.phases, known)
        for name, values in leaf.multipliers.values.items():
            units = leaf.multipliers.units.get(name)
            size = self.net.sample(name)
            fits = units is not None and size is not None and proper(units, int(np.prod(size)))
            if not fits or units is None or values.shape != (len(item.entries), len(units)):
                raise Rejected(f"multipliers for {name} do not fit")
            if not np.isfinite(values).all():
                raise Rejected(f"a multiplier for {name} is not finite")
        backward = Backward(self.net, bounds, self.exact)
        sign = 1.0 if item.upper else -1.0
        batch = max(1, MEMORY // max(1, _widest(self.net)))
        parts = []
        for start in range(0, len(item.entries), batch):
            part = slice(start, min(len(item.entries), start + batch))
            rows = one_hot(item.entries[part], shape, sign)
            seeds, paid = self._constrained(leaf.multipliers.constraints, part, len(item.entries))
            fixed = leaf.multipliers.some(part)
            found = backward.upper(item.tensor, rows, RULES[item.rule], seeds, fixed)
            parts.append(np.nextafter(found + paid, np.inf))
        return np.concatenate(parts) if parts else np.zeros(0)

    def _restricted(self, phases: Sequence[Phase], known: Mapping[str, Interval]) -> Mapping[str, Interval]:
        """Bounds in a case."""
        bounds = dict(known)
        for tensor, entry, active in phases:
            shape = self.net.sample(tensor)
            if tensor not in bounds or shape is None or not 0 <= entry < int(np.prod(shape)):
                raise Rejected(f"a case names entry {entry} of {tensor}, which there is not")
            low, high = (np.array(np.broadcast_to(end, shape)).reshape(-1) for end in bounds[tensor].floats())
            low[entry], high[entry] = (max(low[entry], 0.0), max(high[entry], 0.0)) if active else (
                min(low[entry], 0.0), min(high[entry], 0.0))  # fmt: skip
            bounds[tensor] = bounds[tensor].like(low.reshape(shape), high.reshape(shape))
        return bounds

    def _constrained(self, prices: Floats | None, part: slice, count: int) -> tuple[dict[str, Floats], Floats]:
        """Coefficients on the inputs, and what is paid, where constraints of the domain are used."""
        if prices is None:
            return {}, np.zeros(1)
        if prices.shape != (count, len(self.constraints)) or not (np.isfinite(prices) & (prices >= 0)).all():
            raise Rejected("multipliers of the domain's constraints do not fit, or are negative")
        prices = prices[part]
        seeds: dict[str, Floats] = {}
        paid, sizes = np.zeros(len(prices)), np.zeros(len(prices))
        for price, constraint in zip(prices.T, self.constraints, strict=True):
            paid += price * constraint.bound
            sizes += price * abs(constraint.bound)
            for name, index, coefficient in constraint.terms:
                shape = self.net.sample(name) or ()
                rows = seeds.setdefault(name, np.zeros((len(prices), int(np.prod(shape)))))
                rows[:, index] -= price * coefficient
                sizes += price * abs(coefficient) * self._reach(name, index)
        terms = sum(len(constraint.terms) + 1 for constraint in self.constraints)
        paid = paid + gamma(terms) * sizes  # what rounding may have changed, in the seeds as in the sum
        return {name: rows.reshape(-1, *(self.net.sample(name) or ())) for name, rows in seeds.items()}, paid

    def _reach(self, name: str, entry: int) -> float:
        """How large an entry of an input can be."""
        ends = (np.broadcast_to(end, self.net.sample(name) or ()) for end in self.inputs[name].floats())
        return float(max(abs(end.reshape(-1)[entry]) for end in ends))

    def _by_cuts(self, item: Step, known: Mapping[str, Interval]) -> Floats:
        key = (id(item.cuts), item.tensor, item.upper)
        if key not in self._split:
            self._sweep(item, known)
        if key not in self._split:
            raise Rejected(f"{item.tensor} is not the input of a piecewise-linear activation of static size")
        return self._split[key][item.entries]

    def _sweep(self, item: Step, known: Mapping[str, Interval]) -> None:
        """Bound all tensors that share a tree of cuts, in every sub-box, from front to back."""
        assert item.cuts is not None
        users = {other.tensor for other in self.steps if other.cuts is item.cuts}
        last = [name for name in bending(self.net) if name in users][-1:]
        if not last:
            raise Rejected(f"{item.tensor} is not the input of a piecewise-linear activation of static size")
        for tensor, (low, high) in swept(self.net, self.inputs, item.cuts, last[0], known, self.exact).items():
            self._split[id(item.cuts), tensor, True] = high
            self._split[id(item.cuts), tensor, False] = -low


def one_hot(entries: Indices, shape: tuple[int, ...], sign: float) -> Floats:
    """Rows that pick entries of a tensor."""
    rows = np.zeros((len(entries), int(np.prod(shape))))
    rows[np.arange(len(entries)), entries] = sign
    return rows.reshape(len(entries), *shape)


def proper(entries: Indices, count: int) -> bool:
    """Whether entries of a tensor are in order, none twice, and all there."""
    return bool((entries >= 0).all() and (entries < count).all() and (np.diff(entries) > 0).all())


def _widest(net: Network) -> int:
    shapes = [net.sample(name) for node in net.nodes for name in node.outputs]
    return max((int(np.prod(shape)) for shape in shapes if shape is not None), default=1)
