"""Which layer gets which sparsity, pattern or width: a multiple-choice knapsack with several budgets.

``min sum loss[l, c] x[l, c]`` with one choice per layer and ``sum cost[l, c, b] x[l, c] <= budget[b]``, as an exact
MILP with one binary per choice; a greedy solution stands in where the solver does not finish, and where its tolerances
let a budget be exceeded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from onnxprune.errors import InputError
from onnxprune.mip import Solver, Status, System
from onnxprune.surgeon.selection.arrays import Array, Index, Mask
from onnxprune.surgeon.selection.knapsack import Knapsack, improve, repair

_EXACT = 1e-6
"""Share of the loss below which a gap counts as none: what solvers prove."""


@dataclass(frozen=True)
class LayerChoices:
    """What one layer can become.

    Attributes:
        name: Of the layer.
        losses: Shape (choices,), loss of each choice.
        costs: Per budget what each choice costs, shape (choices,) each; a budget left out costs nothing here.
        allowed: Shape (choices,), False for choices this layer must not make; None allows all.
        group: Layers with the same group make the same choice, such as both sides of a residual Add.
    """

    name: str
    losses: Array
    costs: Mapping[str, Array]
    allowed: Mask | None = None
    group: str = ""


@dataclass(frozen=True)
class Allocation:
    """A choice for every layer that keeps within all budgets.

    Attributes:
        chosen: Index of the choice, per layer.
        loss: Sum of the losses.
        bound: No allocation has a lower loss; the solver's word.
        spent: What it costs, per budget.
        seconds: Time of the solver.
    """

    chosen: Mapping[str, int]
    loss: float
    bound: float
    spent: Mapping[str, float]
    seconds: float = field(compare=False)

    @property
    def gap(self) -> float:
        """How much lower the loss could be at most."""
        return max(0.0, self.loss - self.bound)

    @property
    def optimal(self) -> bool:
        """Whether it is proved that nothing is better."""
        return self.gap <= _EXACT * abs(self.loss)


def allocate(
    layers: Sequence[LayerChoices], budgets: Mapping[str, float], *, seconds: float = 10.0, solver: str = "highs"
) -> Allocation:
    """The choices with the least sum of losses within all budgets.

    Args:
        layers: What each layer can become.
        budgets: Upper limits by name, in the units of the costs.
        seconds: Time of the solver.
        solver: One of :data:`onnxprune.mip.SOLVERS`.

    Returns:
        A feasible allocation, optimal up to :attr:`Allocation.gap`.

    Raises:
        InputError: If a budget cannot be met, alone or together with the others (naming it, and by how much), or if
            layers of a group have different numbers of choices, or a layer has no choice left.
        EnvironmentFailure: If the solver cannot be used.
    """
    problem, owners = _merged(layers, budgets)
    _check_each_budget(problem)
    system = _system(problem)
    answer = Solver(system, solver).solve(-problem.losses, seconds) if len(problem.losses) else None
    bound = problem.least_loss
    chosen: Index | None = None
    if answer is not None and answer.status is Status.INFEASIBLE:
        raise _cannot_meet_together(problem, solver, seconds)
    if answer is not None and answer.x is not None:
        bound = max(bound, -answer.bound if answer.bound is not None else -np.inf)
        chosen = problem.largest_in_each(answer.x)
    candidates = [repair(problem, start) for start in (chosen, problem.cheapest_choices()) if start is not None]
    feasible = [improve(problem, found) for found in candidates if found is not None]
    if chosen is not None and problem.feasible(chosen):
        feasible.append(chosen)
    if not feasible:
        raise _cannot_meet_together(problem, solver, seconds)
    best = min(feasible, key=problem.loss)
    place = {group: int(best[number] - problem.starts[number]) for number, group in enumerate(problem.names)}
    return Allocation(
        {layer.name: place[owner] for layer, owner in zip(layers, owners, strict=True)},
        problem.loss(best),
        min(bound, problem.loss(best)),
        dict(zip(problem.budget_names, problem.spent(best).tolist(), strict=True)),
        0.0 if answer is None else answer.seconds,
    )


def _merged(layers: Sequence[LayerChoices], budgets: Mapping[str, float]) -> tuple[Knapsack, list[str]]:
    """Groups as one layer each, and the group of every layer."""
    owners = [f"group {layer.group}" if layer.group else f"layer {layer.name}" for layer in layers]
    losses: dict[str, Array] = {}
    costs: dict[str, Array] = {}
    allowed: dict[str, Mask] = {}
    for layer, owner in zip(layers, owners, strict=True):
        count = len(layer.losses)
        if len(losses.setdefault(owner, np.zeros(count))) != count:
            raise InputError(f"Layers of {owner} have different numbers of choices.", hint="Offer the same choices.")
        table = np.array([layer.costs.get(name, np.zeros(count)) for name in budgets], dtype=np.float64)
        losses[owner] = losses[owner] + layer.losses
        costs[owner] = costs.get(owner, 0.0) + table.reshape(len(budgets), count)
        fits = np.ones(count, dtype=np.bool_) if layer.allowed is None else layer.allowed
        allowed[owner] = allowed.get(owner, np.ones(count, dtype=np.bool_)) & fits & np.isfinite(layer.losses)
    for owner, fits in allowed.items():
        if not fits.any():
            raise InputError(f"No choice is left for {owner}.", hint="Relax its limits.")
    return Knapsack.of(list(losses), losses, costs, allowed, budgets), owners


def _system(problem: Knapsack) -> System:
    """One row per layer, one per budget; forbidden choices are fixed at 0."""
    columns = len(problem.losses)
    picks = sparse.csr_array(
        (np.ones(columns), (problem.owner, np.arange(columns))), shape=(len(problem.names), columns)
    )
    rows = sparse.csr_array(sparse.vstack([picks, sparse.csr_array(problem.costs)]))
    ones = np.ones(len(problem.names))
    low = np.concatenate([ones, np.full(len(problem.limits), -np.inf)])
    return System(
        np.zeros(columns),
        problem.allowed.astype(np.float64),
        np.ones(columns, dtype=np.bool_),
        rows,
        low,
        np.concatenate([ones, problem.limits]),
    )


def _check_each_budget(problem: Knapsack) -> None:
    least = problem.least_costs()
    for name, limit, needed in zip(problem.budget_names, problem.limits.tolist(), least.tolist(), strict=True):
        if needed > limit and not problem.within(needed, limit):
            raise InputError(
                f'The budget "{name}" of {limit:,.6g} cannot be met: the least possible is {needed:,.6g}.',
                hint=f"Raise it by {needed - limit:,.6g}, or allow smaller choices.",
            )


def _cannot_meet_together(problem: Knapsack, solver: str, seconds: float) -> InputError:
    """The error for budgets that exclude each other, with the least share by which all would have to be raised."""
    system = _system(problem)
    slack = sparse.csr_array(np.concatenate([np.zeros(len(problem.names)), -np.abs(problem.limits)])[:, None])
    relaxed = System(
        np.append(system.low, 0.0),
        np.append(system.high, np.inf),
        np.append(system.integer, False),
        sparse.csr_array(sparse.hstack([system.rows, slack])),
        system.row_low,
        system.row_high,
    )
    objective = np.append(np.zeros(system.columns), -1.0)
    answer = Solver(relaxed, solver).solve(objective, seconds)
    names = ", ".join(f'"{name}"' for name in problem.budget_names)
    share = "" if answer.value is None else f": together they fall short by {-100 * answer.value:.3g} %"
    return InputError(f"The budgets {names} cannot be met together{share}.", hint="Raise one of them.")
