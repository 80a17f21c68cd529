"""The tableau against recomputation, and exchanges and blocks that never lose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.surgeon.selection import improve_by_blocks, improve_by_swaps, refit, refit_cost, select_in_rows
from onnxprune.surgeon.selection import tableau as tableau_module
from onnxprune.surgeon.selection.arrays import Array, Mask, damped, inverse
from onnxprune.surgeon.selection.tableau import Tableau
from tests.surgeon.selection.support import RIDGE, cost, moments, seeds, subsets


def problem(seed: int, size: int, rows: int = 1) -> tuple[Array, Array, Mask]:
    rng = np.random.default_rng(seed)
    return moments(rng, size), rng.normal(size=(rows, size)), rng.random((rows, size)) < rng.random()


def check(tableau: Tableau, h: Array, w: Array) -> None:
    masks = np.broadcast_to(tableau.kept, w.shape)
    assert tableau.cost == pytest.approx(refit_cost(h, w, masks, ridge=RIDGE).sum(), rel=1e-5, abs=1e-9)
    found = refit(h, w, masks, ridge=RIDGE)
    assert np.allclose(tableau.values[tableau.kept], found[:, tableau.kept].T, rtol=1e-4, atol=1e-6)


def test_two_weights_by_hand() -> None:
    tableau = Tableau(np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[4.0, 6.0]]), np.array([True, False]))
    assert np.allclose(tableau.matrix, [[-0.5, 0.5], [0.5, 2.5]])
    assert np.allclose(tableau.values[:, 0], [7.0, 15.0])
    # the other one alone: q = (2 - 1/3) * 4, cost 1/2 * 4 * q
    assert tableau.exchange_changes(np.array([1]), np.array([0]))[0, 0] == pytest.approx(40 / 3 - 45)


@given(seeds, st.integers(1, 9), st.integers(1, 3))
def test_moves_follow_recomputation(seed: int, size: int, rows: int) -> None:
    h, w, masks = problem(seed, size, rows)
    system = damped(h, RIDGE)
    tableau = Tableau(system, w, masks[0], inverse(system))
    rng = np.random.default_rng(seed)
    for _ in range(4):
        check(tableau, h, w)
        index = rng.permutation(size)[: rng.integers(1, size + 1)]
        before, change = tableau.cost, tableau.change(index)
        tableau.move(index)
        assert tableau.cost - before == pytest.approx(change, rel=1e-6, abs=1e-6 * abs(before) + 1e-9)
    check(tableau, h, w)


def test_many_moves_are_cleared_of_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tableau_module, "FRESH", 5)
    h, w, masks = problem(11, 20)
    tableau = Tableau(damped(h, RIDGE), w, masks[0])
    rng = np.random.default_rng(0)
    for _ in range(40):
        tableau.move(rng.permutation(20)[:3])
    check(tableau, h, w)


@given(seeds, st.integers(2, 8), st.integers(1, 3))
def test_the_exchange_formula_is_what_recomputation_gives(seed: int, size: int, rows: int) -> None:
    h, w, masks = problem(seed, size, rows)
    tableau = Tableau(damped(h, RIDGE), w, masks[0])
    removed, kept = np.flatnonzero(~masks[0]), np.flatnonzero(masks[0])
    changes, singles = tableau.exchange_changes(removed, kept), tableau.single_changes()
    now = sum(cost(h, row, masks[0]) for row in w)
    for a, i in enumerate(removed):
        for b, j in enumerate(kept):
            mask = masks[0].copy()
            mask[i], mask[j] = True, False
            told = sum(cost(h, row, mask) for row in w) - now
            assert changes[a, b] == pytest.approx(told, rel=1e-5, abs=1e-6 * abs(now) + 1e-9)
    for k in range(size):
        told = sum(cost(h, row, masks[0] ^ (np.arange(size) == k)) for row in w) - now
        assert singles[k] == pytest.approx(told, rel=1e-5, abs=1e-6 * abs(now) + 1e-9)


@given(seeds, st.integers(2, 7))
@settings(max_examples=50)
def test_released_sets_price_every_choice(seed: int, size: int) -> None:
    h, w, masks = problem(seed, size)
    tableau = Tableau(damped(h, RIDGE), w, masks[0])
    rng = np.random.default_rng(seed)
    place = rng.permutation(size)[: rng.integers(1, size + 1)]
    matrix, values, saved = tableau.released(place[None, :])
    now = cost(h, w[0], masks[0])
    whole = masks[0].copy()
    whole[place] = True
    assert saved[0] == pytest.approx(now - cost(h, w[0], whole), rel=1e-5, abs=1e-6 * now + 1e-9)
    for count in range(len(place) + 1):
        for chosen in subsets(len(place), count):
            gone = np.flatnonzero(~chosen)
            v = values[0, gone]
            more = float(v @ np.linalg.solve(matrix[0][np.ix_(gone, gone)], v)) / 2 if len(gone) else 0.0
            mask = masks[0].copy()
            mask[place] = chosen
            told = cost(h, w[0], mask) - now + saved[0]
            assert more == pytest.approx(told, rel=1e-4, abs=1e-5 * now + 1e-9)


@given(seeds, st.integers(2, 8), st.integers(1, 4))
@settings(max_examples=50)
def test_exchanges_end_in_a_local_optimum(seed: int, size: int, rows: int) -> None:
    h, w, masks = problem(seed, size, rows)
    found = improve_by_swaps(h, w, masks, ridge=RIDGE)
    assert found.finished
    assert (found.mask.sum(axis=1) == masks.sum(axis=1)).all()
    assert (found.after <= found.before).all()
    for row in range(rows):
        assert found.after[row] == pytest.approx(cost(h, w[row], found.mask[row]), rel=1e-5, abs=1e-9)
        for i in np.flatnonzero(~found.mask[row]):
            for j in np.flatnonzero(found.mask[row]):
                mask = found.mask[row].copy()
                mask[i], mask[j] = True, False
                assert cost(h, w[row], mask) >= found.after[row] * (1 - 1e-4) - 1e-9


def test_locked_weights_and_limits_are_kept() -> None:
    h, w, masks = problem(3, 12, 3)
    locked = np.zeros((3, 12), dtype=np.bool_)
    locked[:, ::2] = True
    found = improve_by_swaps(h, w, masks, ridge=RIDGE, locked=locked)
    assert (found.mask[locked] == masks[locked]).all()
    assert found.moves > 0
    late = improve_by_swaps(h, w, masks, ridge=RIDGE, seconds=0.0)
    assert not late.finished
    assert (late.mask == masks).all()
    assert improve_by_swaps(h, w, masks, ridge=RIDGE, swaps=1).moves <= 3


@given(seeds, st.integers(2, 7))
@settings(max_examples=25)
def test_a_block_of_all_weights_is_the_best_choice(seed: int, size: int) -> None:
    h, w, masks = problem(seed, size)
    found = improve_by_blocks(h, w, masks, size=size, ridge=RIDGE, blocks=2)
    best = min(cost(h, w[0], mask) for mask in subsets(size, int((~masks).sum())))
    assert found.after[0] == pytest.approx(best, rel=1e-4, abs=1e-9)
    assert (found.mask.sum() == masks.sum()).all()


def test_blocks_find_what_exchanges_cannot() -> None:
    gained = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        inputs = rng.normal(size=(60, 30)) @ rng.normal(size=(30, 30))
        h, w = inputs.T @ inputs, rng.normal(size=(1, 30))
        start = np.arange(30)[None, :] % 2 == 0
        local = improve_by_swaps(h, w, start)
        found = improve_by_blocks(h, w, local.mask, seed=seed)
        assert found.finished
        assert found.after[0] <= local.after[0]
        gained += int(found.after[0] < local.after[0] * 0.999)
    assert gained >= 3


@given(seeds, st.integers(1, 8), st.booleans())
@settings(max_examples=40)
def test_selection_is_no_worse_than_both_greedy_starts(seed: int, size: int, hurried: bool) -> None:
    rng = np.random.default_rng(seed)
    h, w = moments(rng, size), rng.normal(size=(3, size))
    counts = rng.integers(0, size + 1, size=3)
    found = select_in_rows(h, w, counts, ridge=RIDGE, seconds=0.0 if hurried else np.inf, blocks=3)
    assert ((~found.mask).sum(axis=1) == counts).all()
    assert (found.after <= found.before).all()
    assert found.after == pytest.approx(refit_cost(h, w, found.mask, ridge=RIDGE))
    for row in range(3):
        best = min(cost(h, w[row], mask) for mask in subsets(size, int(counts[row])))
        assert found.after[row] >= best * (1 - 1e-5) - 1e-9
