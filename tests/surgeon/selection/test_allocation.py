"""Allocation: against enumeration, and budgets that cannot be met."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import InputError
from onnxprune.mip import Solution, Solver, Status
from onnxprune.surgeon.selection import LayerChoices, allocate
from tests.surgeon.selection.support import seeds


def random_layers(seed: int, layers: int, budgets: int) -> list[LayerChoices]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(layers):
        count = int(rng.integers(1, 5))
        costs = {f"b{k}": rng.integers(0, 20, size=count).astype(np.float64) for k in range(budgets)}
        allowed = rng.random(count) < 0.8
        allowed[0] = True
        found.append(LayerChoices(f"l{number}", rng.random(count), costs, allowed if rng.random() < 0.5 else None))
    return found


def best(layers: list[LayerChoices], budgets: Mapping[str, float]) -> float | None:
    losses = []
    for choice in product(*[range(len(layer.losses)) for layer in layers]):
        pairs = list(zip(layers, choice, strict=True))
        if any(layer.allowed is not None and not layer.allowed[k] for layer, k in pairs):
            continue
        if all(sum(layer.costs[name][k] for layer, k in pairs) <= limit for name, limit in budgets.items()):
            losses.append(float(sum(layer.losses[k] for layer, k in pairs)))
    return min(losses, default=None)


@given(seeds, st.integers(1, 4), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_enumeration_agrees(seed: int, count: int, budgets: int) -> None:
    layers = random_layers(seed, count, budgets)
    limits = {f"b{k}": float(np.random.default_rng(seed).integers(0, 20 * count)) for k in range(budgets)}
    expected = best(layers, limits)
    if expected is None:
        with pytest.raises(InputError, match="cannot be met"):
            allocate(layers, limits)
        return
    found = allocate(layers, limits)
    assert found.loss == pytest.approx(expected, abs=1e-5)
    assert found.bound <= expected + 1e-5
    assert found.gap <= 1e-5
    for name, limit in limits.items():
        total = sum(layer.costs[name][found.chosen[layer.name]] for layer in layers)
        assert found.spent[name] == pytest.approx(total)
        assert total <= limit


def test_a_single_budget_that_cannot_be_met_says_by_how_much() -> None:
    layers = [LayerChoices("a", np.zeros(2), {"macs": np.array([700.0, 500.0])})]
    with pytest.raises(InputError, match='"macs" of 400 cannot be met: the least possible is 500') as told:
        allocate(layers, {"macs": 400.0})
    assert "Raise it by 100" in told.value.hint


def test_budgets_that_exclude_each_other_are_named() -> None:
    layers = [LayerChoices("a", np.zeros(2), {"macs": np.array([10.0, 20.0]), "nnz": np.array([20.0, 10.0])})]
    with pytest.raises(InputError, match=r'"macs", "nnz" cannot be met together: .* 100 %'):
        allocate(layers, {"macs": 10.0, "nnz": 10.0})


def test_groups_choose_alike() -> None:
    costs = {"nnz": np.array([10.0, 5.0])}
    layers = [
        LayerChoices("a", np.array([0.0, 1.0]), costs, group="residual"),
        LayerChoices("b", np.array([0.0, 9.0]), costs, group="residual"),
        LayerChoices("c", np.array([0.0, 4.0]), costs),
    ]
    free = [LayerChoices(layer.name, layer.losses, layer.costs) for layer in layers]
    assert allocate(free, {"nnz": 20.0}).chosen == {"a": 1, "b": 0, "c": 1}
    assert allocate(layers, {"nnz": 20.0}).chosen == {"a": 1, "b": 1, "c": 0}
    assert allocate(layers, {"nnz": 25.0}).chosen == {"a": 0, "b": 0, "c": 1}
    with pytest.raises(InputError, match="different numbers of choices"):
        allocate([*layers, LayerChoices("d", np.zeros(3), {}, group="residual")], {"nnz": 20.0})


def test_a_layer_without_a_choice_is_named() -> None:
    with pytest.raises(InputError, match="No choice is left for layer a"):
        allocate([LayerChoices("a", np.zeros(2), {}, np.zeros(2, dtype=np.bool_))], {})


def test_budgets_met_exactly_and_costs_of_nothing() -> None:
    layers = [LayerChoices("a", np.array([0.0, 1.0]), {"nnz": np.array([0.1 + 0.2, 0.0])})]
    assert allocate(layers, {"nnz": 0.3}).chosen == {"a": 0}
    assert allocate(layers, {"other": 0.0}).chosen == {"a": 0}
    assert allocate([], {"nnz": 1.0}).chosen == {}


def test_a_solver_that_stops_leaves_a_feasible_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    layers = [
        LayerChoices(f"l{n}", np.sort(rng.random(10)), {"nnz": np.linspace(100.0, 10.0, 10), "macs": rng.random(10)})
        for n in range(50)
    ]
    limits = {"nnz": 2000.0, "macs": 25.0}
    exact = allocate(layers, limits)
    assert exact.optimal
    monkeypatch.setattr(Solver, "solve", lambda *_: Solution(Status.STOPPED, 0.0))
    found = allocate(layers, limits)
    assert all(found.spent[name] <= limit for name, limit in limits.items())
    assert exact.loss <= found.loss <= 1.2 * exact.loss
    assert found.bound <= exact.loss
    assert not found.optimal


def test_five_hundred_binaries_are_quick() -> None:
    rng = np.random.default_rng(1)
    share = np.linspace(0.05, 1, 10)
    sizes = rng.integers(1000, 100_000, size=50).tolist()
    losses = [np.asarray(rng.random() * (1 - share) ** 2 / share, dtype=np.float64) for _ in sizes]
    layers = [
        LayerChoices(f"l{n}", loss, {"nnz": np.asarray(size * share, dtype=np.float64)})
        for n, (size, loss) in enumerate(zip(sizes, losses, strict=True))
    ]
    found = allocate(layers, {"nnz": 0.3 * sum(sizes)})
    assert found.optimal
    assert found.seconds < 5  # a fraction of a second on a quiet machine
