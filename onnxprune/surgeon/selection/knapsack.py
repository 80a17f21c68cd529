"""A multiple-choice knapsack with several limits as arrays, and greedy moves between its choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxprune.surgeon.selection.arrays import Array, Index, Mask

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Knapsack:
    """Choices of all layers one after another.

    Attributes:
        names: Of the layers.
        starts: Shape (layers,), index of each layer's first choice.
        owner: Shape (choices,), layer of each choice.
        losses: Shape (choices,); 0 for choices that are not allowed.
        costs: Shape (limits, choices); 0 for choices that are not allowed.
        allowed: Shape (choices,).
        limits: Shape (limits,).
        budget_names: Of the limits.
    """

    names: list[str]
    starts: Index
    owner: Index
    losses: Array
    costs: Array
    allowed: Mask
    limits: Array
    budget_names: list[str]

    @staticmethod
    def of(
        names: list[str],
        losses: Mapping[str, Array],
        costs: Mapping[str, Array],
        allowed: Mapping[str, Mask],
        budgets: Mapping[str, float],
    ) -> Knapsack:
        """From one array per layer."""
        counts = np.array([len(losses[name]) for name in names], dtype=np.intp)
        fits = np.concatenate([allowed[name] for name in names]) if names else np.zeros(0, dtype=np.bool_)
        loss = np.concatenate([losses[name] for name in names]) if names else np.zeros(0)
        cost = np.concatenate([costs[name] for name in names], axis=1) if names else np.zeros((len(budgets), 0))
        return Knapsack(
            names,
            np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp) if names else np.zeros(0, dtype=np.intp),
            np.repeat(np.arange(len(names)), counts),
            np.where(fits, loss, 0.0),
            np.where(fits, cost, 0.0),
            fits,
            np.array(list(budgets.values()), dtype=np.float64),
            list(budgets),
        )

    @property
    def least_loss(self) -> float:
        """The loss without any limit."""
        return self.loss(self.cheapest_choices())

    def loss(self, chosen: Index) -> float:
        """Sum of the losses of the chosen."""
        return float(self.losses[chosen].sum())

    def spent(self, chosen: Index) -> Array:
        """Sum of the costs of the chosen, shape (limits,)."""
        return np.asarray(self.costs[:, chosen].sum(axis=1), dtype=np.float64)

    def within(self, cost: float, limit: float) -> bool:
        """Whether a sum of costs keeps to a limit, up to the rounding of the sum."""
        return cost <= limit + _ROUNDING * max(abs(cost), abs(limit))

    def feasible(self, chosen: Index) -> bool:
        """Whether all choices are allowed and keep to all limits."""
        spent = self.spent(chosen).tolist()
        fits = all(self.within(cost, limit) for cost, limit in zip(spent, self.limits.tolist(), strict=True))
        return fits and bool(self.allowed[chosen].all())

    def cheapest_choices(self) -> Index:
        """The allowed choice of least loss in every layer."""
        return self._best_in_each(np.where(self.allowed, self.losses, np.inf))

    def largest_in_each(self, values: Array) -> Index:
        """The allowed choice with the largest value in every layer."""
        return self._best_in_each(np.where(self.allowed, -values, np.inf))

    def least_costs(self) -> Array:
        """The least possible cost for each limit alone, shape (limits,)."""
        found = [np.where(self.allowed, row, np.inf) for row in self.costs]
        return np.array([row[self._best_in_each(row)].sum() for row in found], dtype=np.float64)

    def _best_in_each(self, values: Array) -> Index:
        ends = np.append(self.starts, len(values))[1:]
        places = [a + int(values[a:b].argmin()) for a, b in zip(self.starts.tolist(), ends.tolist(), strict=True)]
        return np.array(places, dtype=np.intp)


def repair(problem: Knapsack, chosen: Index) -> Index | None:
    """Change choices one by one until all limits hold, each time at the least loss per excess that goes.

    For one limit and choices in convex position this is the greedy solution on the convex hull.

    Args:
        problem: The knapsack.
        chosen: Shape (layers,), where to begin.

    Returns:
        None where no single change brings the choices closer to the limits.
    """
    chosen = chosen.copy()
    scale = np.where(problem.limits != 0, np.abs(problem.limits), 1.0)
    while not problem.feasible(chosen):
        current = chosen[problem.owner]
        excess = _excess(problem.spent(chosen)[:, None], problem, scale)
        moved = problem.spent(chosen)[:, None] + problem.costs - problem.costs[:, current]
        gone = excess - _excess(moved, problem, scale)
        price = problem.losses - problem.losses[current]
        useful = problem.allowed & (gone > 1e-15)
        if not useful.any():
            return None
        ratio = np.where(useful, np.where(price > 0, price / np.where(useful, gone, 1.0), price), np.inf)
        move = int(ratio.argmin())
        chosen[problem.owner[move]] = move
    return chosen


def _excess(spent: Array, problem: Knapsack, scale: Array) -> Array:
    """How far costs (limits, columns) are above the limits, as shares of these; shape (columns,)."""
    return np.asarray((np.maximum(spent - problem.limits[:, None], 0.0) / scale[:, None]).sum(axis=0), np.float64)


def improve(problem: Knapsack, chosen: Index) -> Index:
    """Change single choices as long as that lowers the loss within the limits, the largest decrease first."""
    chosen = chosen.copy()
    room = problem.limits + _ROUNDING * np.abs(problem.limits)
    while True:
        current = chosen[problem.owner]
        moved = problem.spent(chosen)[:, None] + problem.costs - problem.costs[:, current]
        gain = problem.losses[current] - problem.losses
        useful = problem.allowed & (moved <= room[:, None]).all(axis=0) & (gain > 0)
        if not useful.any():
            return chosen
        move = int(np.where(useful, gain, -np.inf).argmax())
        chosen[problem.owner[move]] = move
