"""Comparing the regions of two networks: rewrites that keep them, and changes that do not."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from onnxprune.errors import InputError
from onnxprune.regions.diff import compare
from onnxprune.regions.network import RegionNetwork
from tests.helpers import DENSE, parse, weights
from tests.regions import nets


def network(seed: int, order: list[int] | None = None, *, scale: float = 1.0, drop: bool = False) -> RegionNetwork:
    """A random network, perhaps with its units in another order, rescaled, or one of them cut."""
    rng = np.random.default_rng(seed)
    (w1, b1), (w2, b2) = nets.random_layers(rng, 2, (5, 4))
    readout = rng.normal(size=(2, 4)), rng.normal(size=2)
    order = order or list(range(5))
    if drop:
        w2 = w2 * (np.arange(5) != 2)
        w1, b1 = w1 * (np.arange(5) != 2)[:, None], b1 - 100.0 * (np.arange(5) == 2)
    first = (scale * w1[order], scale * b1[order])
    return RegionNetwork.of_layers([first, (w2[:, order] / scale, b2)], -np.ones(2), np.ones(2), readout=readout)


@pytest.mark.parametrize("seed", range(3))
def test_permuted_and_rescaled_units_keep_every_region(seed: int) -> None:
    found = compare(network(seed), network(seed, [3, 1, 4, 0, 2], scale=4.0))
    assert found.count is not None
    assert found.count[0] == found.count[1] == found.matched > 5
    assert (found.lost, found.new, found.same) == (0, 0, True)
    assert found.deviation is not None
    assert found.deviation < 1e-12
    assert "correspond one to one (exact)" in found.line()


def test_a_unit_that_is_cut_costs_regions() -> None:
    found = compare(network(1), network(1, drop=True))
    assert found.same is False
    assert found.count is not None
    assert found.count[0] > found.count[1]
    assert found.lost > 0


def test_an_exact_rewrite_of_a_model_keeps_its_regions() -> None:
    model = parse(DENSE, weights=weights())
    result = onnxprune.optimize(model, "-1:1", goal="size", remember=False)
    assert result.modified
    pair = [RegionNetwork.of_model(m, "-1:1") for m in (model, result.model)]
    found = compare(*pair)
    assert found.same
    assert found.deviation is not None
    assert found.deviation < 1e-5


def test_too_many_cells_are_compared_by_pairs_of_points() -> None:
    kept = compare(network(0), network(0, [1, 0, 2, 3, 4]), most=3)
    assert (kept.count, kept.same) == (None, None)
    assert "Not decided" in kept.line()
    lost = compare(network(1), network(1, drop=True), most=3)
    assert lost.same is False
    assert "share a cell in one network only" in lost.line()
    assert compare(network(0), network(0), budget=0.0).count is None


def test_other_domains_do_not_compare() -> None:
    with pytest.raises(InputError, match="different inputs"):
        compare(nets.three_lines(), nets.grid())
