"""Upper and lower bounds from formulas, and estimates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from onnxprune.errors import InputError
from onnxprune.regions import (
    RegionNetwork,
    Remaining,
    Walker,
    architecture_lower_bound,
    count_exactly,
    empirical,
    maxout,
    montufar,
    one_input,
    probe_regions,
    serra,
    trivial,
    zaslavsky,
)
from onnxprune.regions.probe import lower_bound, markov_factor
from tests.regions import nets


@pytest.mark.parametrize(
    ("widths", "by_montufar", "by_serra"),
    [
        ((1, 21), 44, 23),
        ((4, 18), 64_768, 9_109),
        ((6, 16), 953_152, 110_056),
        ((11, 11, 10), 4_294_967_296, 1_690_286_436),
    ],
)
def test_architecture_bounds_for_digits(widths: tuple[int, ...], by_montufar: int, by_serra: int) -> None:
    assert (montufar(784, widths), serra(784, widths)) == (by_montufar, by_serra)


@pytest.mark.parametrize(
    ("inputs", "widths", "bound"), [(1, (3, 3, 3), 64), (2, (4, 3, 5), 902), (3, (5, 5), 576), (7, (4, 3, 2), 329)]
)
def test_serra_bound(inputs: int, widths: tuple[int, ...], bound: int) -> None:
    assert serra(inputs, widths) == bound


def test_simple_bounds() -> None:
    assert trivial(70) == 2**70
    assert [zaslavsky(3, 7), zaslavsky(2, 10), zaslavsky(9, 3)] == [64, 56, 8]
    assert one_input((3, 3, 3)) == serra(1, (3, 3, 3)) == architecture_lower_bound(1, (3, 3, 3))
    assert maxout(2, (3,), 2) == zaslavsky(2, 3)
    assert maxout(2, (3,), 3) == zaslavsky(2, 9)
    with pytest.raises(InputError):
        maxout(2, (3,), 0)


@pytest.mark.parametrize(("inputs", "widths", "regions"), [(1, (3, 4), 20), (2, (7, 5), 256), (2, (6, 6, 4), 2816)])
def test_folding_networks_attain_the_lower_bound(inputs: int, widths: tuple[int, ...], regions: int) -> None:
    assert architecture_lower_bound(inputs, widths) == regions
    assert count_exactly(nets.folded(inputs, widths)).lower == regions


def test_folding_needs_three_units_per_input() -> None:
    with pytest.raises(InputError, match="3 units per input"):
        architecture_lower_bound(2, (5, 4))


@pytest.mark.parametrize("seed", range(4))
def test_every_node_is_bounded(seed: int) -> None:
    network = nets.random_network(np.random.default_rng(seed), 2, [5, 4, 4])
    bounds, walker = Remaining(network), Walker(network)
    for floor in range(network.unstable + 1):
        walker.move(())
        nodes, _ = walker.collect(floor)
        other = Walker(network)
        for node in nodes[:: max(1, len(nodes) // 8)]:
            other.move(node.tolist())
            assert other.count()[0] <= bounds.bound(node.tolist())


def test_units_that_nothing_can_switch_leave_the_bound() -> None:
    rng = np.random.default_rng(0)
    first = (rng.normal(size=(4, 2)), 0.1 * rng.normal(size=4))
    second = (np.array([[1.0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]), np.array([-0.1, -0.2, -0.3]))
    network = RegionNetwork.of_layers([first, second], [-1, -1], [1, 1])
    count = count_exactly(network).lower
    assert count <= empirical(network) < serra(2, (4, 3))


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_estimate_is_near_the_count(seed: int, weighted: bool) -> None:
    network = nets.random_network(np.random.default_rng(seed), 3, [5, 5])
    count = count_exactly(network).lower
    found = probe_regions(network, probes=300, seed=seed, weighted=weighted)
    assert abs(found.mean - count) <= 4 * found.standard_error + 1e-9
    assert found.lower <= count
    partly = probe_regions(network, probes=100, seed=seed, weighted=weighted, exact_below=4)
    assert abs(partly.mean - count) <= 4 * partly.standard_error + 1e-9


def test_lower_bound_covers() -> None:
    network = nets.general_position(6, 2)
    values = probe_regions(network, probes=1000, weighted=False).values
    rng = np.random.default_rng(0)
    bounds = [lower_bound(rng.choice(values, size=60)) for _ in range(200)]
    assert sum(bound > 22 for bound in bounds) <= binom.ppf(0.999, 200, 0.05)
    fresh = [probe_regions(network, probes=8, seed=seed).lower for seed in range(200)]
    assert sum(bound > 22 for bound in fresh) <= binom.ppf(0.999, 200, 0.05)


def test_factor_is_the_exact_binomial_tail() -> None:
    share = markov_factor(600, 300, 0.05)
    assert binom.sf(300, 600, share) == pytest.approx(0.05)
    assert 2.1 < 1 / share < 2.15


def test_too_few_probes_prove_nothing() -> None:
    found = probe_regions(nets.grid(), probes=50, budget=0.0)
    assert (found.lower, found.confidence) == (1, 0.0)
    assert math.isnan(found.mean)
    assert math.isnan(found.standard_error)
    asked = iter([False] * 20)
    single = probe_regions(nets.general_position(6, 2), probes=50, stopped=lambda: next(asked, True))
    assert 1 <= len(single.values) < 50
    assert (single.lower, single.confidence) == (1, 0.0)
    with pytest.raises(InputError):
        probe_regions(nets.grid(), probes=0)
