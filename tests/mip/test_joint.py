"""The joint programme: ends, strikes what is confirmed, proves the rest, leaves what touches zero."""

from __future__ import annotations

import time

import numpy as np
import pytest

from onnxprune.errors import InputError
from onnxprune.mip import Pair, prove_jointly
from onnxprune.operators.interval import Array
from tests.mip.support import network, random_network, refuted


def pairs_of(blocks: object) -> set[Pair]:
    """All open pairs."""
    return {
        (index, unit, sign)
        for index, block in enumerate(blocks.blocks)  # type: ignore[attr-defined]
        for unit in block.open.tolist()
        for sign in (1, -1)
    }


HATS = network(
    [([[1.0], [-1.0]], [0, 0]), ([[1, 1], [1, 1], [1, 1], [-1, -1]], [-1.5, -1, -0.5, 1.25])],
    [-1],
    [1],
)
"""|x| - 1.5 < 0, |x| - 1 touches 0 from below, |x| - 1/2 has both signs, 5/4 - |x| > 0."""


@pytest.mark.parametrize("solver", ["highs", "cbc"])
def test_by_hand(solver: str) -> None:
    result = prove_jointly(HATS, pairs_of(HATS), lambda x: refuted(HATS, x), solver=solver, seconds=60)
    assert result.proved == {(1, 0, 1), (1, 3, -1)}
    assert result.undecided == {(1, 1, 1)}
    assert result.struck == pairs_of(HATS) - result.proved - result.undecided
    assert result.solves >= 2


def test_only_the_pairs_asked_for_are_answered() -> None:
    asked = {(1, 0, 1), (1, 2, 1)}
    result = prove_jointly(HATS, asked, lambda x: refuted(HATS, x), seconds=60)
    assert (result.proved, result.struck, result.undecided) == ({(1, 0, 1)}, {(1, 2, 1)}, set())
    nothing = prove_jointly(HATS, set(), lambda x: refuted(HATS, x), seconds=60)
    assert nothing.solves == 0


def test_a_denied_point_ends_in_undecided() -> None:
    """A network that confirms nothing: the loop ends, and no pair with a solution is proved."""
    calls: list[Array] = []

    def deny(x: Array) -> set[Pair]:
        calls.append(x)
        return set()

    result = prove_jointly(HATS, pairs_of(HATS), deny, seconds=60)
    assert result.proved == {(1, 0, 1), (1, 3, -1)}
    assert result.struck == set()
    assert calls
    assert all((HATS.low <= x).all() and (x <= HATS.high).all() for x in calls)


def test_windows_claim_less() -> None:
    result = prove_jointly(HATS, pairs_of(HATS), lambda x: refuted(HATS, x), window=0, seconds=60)
    assert result.proved <= {(1, 0, 1), (1, 3, -1)}
    layer = {pair for pair in pairs_of(HATS) if pair[0] == 1}
    alone = prove_jointly(HATS, layer, lambda x: refuted(HATS, x), window=0, seconds=60)
    assert alone.proved == set()
    assert alone.undecided == layer


def test_an_empty_domain_proves_nothing() -> None:
    blocks = network([([[1.0]], [-0.5])], [0], [1], rows=[[-1.0]], limits=[-2.0])
    result = prove_jointly(blocks, {(0, 0, 1)}, lambda x: refuted(blocks, x), seconds=10)
    assert result.proved == set()
    assert result.undecided == {(0, 0, 1)}


def test_time_is_kept_and_nothing_is_lost() -> None:
    rng = np.random.default_rng(0)
    sizes = [(50, 40), (50, 50), (50, 50), (5, 50)]
    layers = [(rng.normal(size=s) / np.sqrt(s[1]), np.zeros(s[0])) for s in sizes]
    blocks = network(layers, -np.ones(40), np.ones(40))
    asked = {pair for pair in pairs_of(blocks) if pair[0] == 3}
    for seconds in (0.0, 2.0):
        began = time.perf_counter()
        result = prove_jointly(blocks, asked, lambda _: set(), seconds=seconds)
        assert time.perf_counter() - began < seconds + 4.0
        assert result.proved | result.struck | result.undecided == asked


def test_it_can_be_stopped() -> None:
    blocks = random_network(np.random.default_rng(1), skips=True)
    asked = pairs_of(blocks)
    result = prove_jointly(blocks, asked, lambda x: refuted(blocks, x), seconds=60, stopped=lambda: True)
    assert result.undecided == asked
    assert result.solves == 0


def test_wrong_names() -> None:
    with pytest.raises(InputError, match='no solver "higs"'):
        prove_jointly(HATS, pairs_of(HATS), lambda _: set(), solver="higs", seconds=1)
