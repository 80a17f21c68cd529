"""Which single weights go: what costs least with the rest refitted, under budgets, or N out of M."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.surgeon.kronecker import Costs, Curve, Curves, refitted
from onnxprune.surgeon.matching import Values
from onnxprune.surgeon.selection import LayerChoices, allocate, removal_count, share_removals
from onnxprune.surgeon.stages import Choice, Masks

CHOICES = 24
"""Numbers of weights per layer among which an allocation chooses."""
REACH = 3.0
"""Curves go so many times further than an even share of what has to go."""


@dataclass(frozen=True)
class Budgets:
    """What may be left, as shares of the dense network; None: no limit.

    Attributes:
        weights: Of the weights that can be pruned.
        macs: Of their multiply-adds, zeros not counted.
        params: Of all parameters, zeros not counted.
    """

    weights: float | None = None
    macs: float | None = None
    params: float | None = None

    def at(self, share: float) -> Budgets:
        """The limits at a share of the way from the dense network."""
        return Budgets(*(None if b is None else 1 - share * (1 - b) for b in (self.weights, self.macs, self.params)))


@dataclass(frozen=True)
class WeightChoice:
    """Chooses weights one by one: one threshold for all units, or an allocation where several things are limited.

    Attributes:
        curves: Costs of the weights.
        budgets: What may be left.
        total: Parameters of the whole model.
    """

    curves: Curves
    budgets: Budgets
    total: int

    def __call__(self, share: float, values: Values, masks: Masks) -> Choice:
        """What stays at a share of the way."""
        targets, budgets = self.curves.targets, self.budgets.at(share)
        size = sum(target.size for target in targets)
        left = {t.name: int(masks[t.name].sum()) if t.name in masks else t.size for t in targets}
        if budgets.macs is None and budgets.params is None:
            more = removal_count(size, 1 - (budgets.weights or 0.0)) - (size - sum(left.values()))
            reach = min(1.0, REACH * more / max(sum(left.values()), 1))
            costs = self.curves.at(values, masks, reach)
            more = min(more, sum(len(curve.costs) - 1 for curve in costs.curves))
            return _choice(costs, share_removals([c.costs for c in costs.curves], more), values, masks)
        costs = self.curves.at(values, masks, 1.0)
        goes = self._allocated(costs.curves, left, budgets)
        taken = np.zeros(len(costs.curves), dtype=np.intp)
        for name, more in goes.items():
            own = [i for i, curve in enumerate(costs.curves) if curve.target.name == name]
            taken[own] = share_removals([costs.curves[i].costs for i in own], more)
        return _choice(costs, taken, values, masks)

    def _allocated(self, curves: Sequence[Curve], left: Mapping[str, int], budgets: Budgets) -> dict[str, int]:
        """How many more weights go, per layer: the exact least sum of costs within all limits."""
        choices, options = [], {}
        for target in self.curves.targets:
            own = [curve.costs for curve in curves if curve.target.name == target.name]
            counts = np.unique(np.append(left[target.name] * (1 - np.geomspace(1, 0.02, CHOICES)), 0).astype(int))
            options[target.name] = counts
            losses = [sum(c[k] for c, k in zip(own, share_removals(own, int(n)), strict=True)) for n in counts]
            stay = (left[target.name] - counts).astype(float)
            costs = {"weights": stay, "macs": stay * target.uses, "params": stay}
            choices.append(LayerChoices(target.name, np.array(losses), costs))
        chosen = allocate(choices, self._limits(budgets)).chosen
        return {name: int(options[name][index]) for name, index in chosen.items()}

    def _limits(self, budgets: Budgets) -> dict[str, float]:
        targets = self.curves.targets
        size = sum(target.size for target in targets)
        limits = {}
        if budgets.weights is not None:
            limits["weights"] = budgets.weights * size
        if budgets.macs is not None:
            limits["macs"] = budgets.macs * sum(target.size * target.uses for target in targets)
        if budgets.params is not None:
            limits["params"] = budgets.params * self.total - (self.total - size)
        return limits


@dataclass(frozen=True)
class PatternChoice:
    """Keeps N of every M weights that neighbour one another along the input channels.

    Attributes:
        curves: Costs of the weights, with the pattern.
    """

    curves: Curves

    def __call__(self, share: float, values: Values, masks: Masks) -> Choice:
        """What stays at a share of the way; at the end every group has its pattern."""
        costs = self.curves.at(values, masks, 1.0)
        rest = sum(len(curve.costs) - 1 for curve in costs.curves)
        before = sum(int((~masks[t.name]).sum()) for t in self.curves.targets if t.name in masks)
        more = rest if share == 1 else max(round(share * (rest + before)) - before, 0)
        return _choice(costs, share_removals([c.costs for c in costs.curves], more), values, masks)


def _choice(costs: Costs, more: NDArray[np.intp], values: Values, before: Masks) -> Choice:
    """Masks with so many more weights removed per curve, and the rest refitted."""
    own: dict[str, list[tuple[Curve, int]]] = defaultdict(list)
    for curve, count in zip(costs.curves, more, strict=True):
        own[curve.target.name].append((curve, int(count)))
    masks = {}
    for target in costs.targets:
        start = before[target.name] if target.name in before else np.ones(target.shape, dtype=bool)
        kept = target.normal_of(start).copy()
        for curve, count in own[target.name]:
            kept[curve.unit, curve.columns] = curve.kept(count)
        masks[target.name] = target.stored_of(kept)
    return Choice(masks, refitted(costs.moments, costs.targets, values, masks))
