"""The order of units and the pace of the walk: neither changes what is counted."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.regions import RegionNetwork, Walker, count_exactly, pace, probe_regions
from onnxprune.regions.order import leaning_first, leaning_last
from onnxprune.regions.upper import Remaining
from tests.regions import nets


def skewed(seed: int) -> RegionNetwork:
    """A network whose units lean to one side in different measure, with outputs."""
    rng = np.random.default_rng(seed)
    layers = nets.random_layers(rng, 3, [6, 5, 4], bias=1.0)
    return RegionNetwork.of_layers(
        layers, -np.ones(3), np.ones(3), readout=(rng.normal(size=(2, 4)), rng.normal(size=2))
    )


@pytest.mark.parametrize("seed", range(4))
def test_order_within_a_layer_changes_nothing_but_the_work(seed: int) -> None:
    network, points = skewed(seed), np.random.default_rng(seed).uniform(-1, 1, (50, 3))
    first, last = leaning_first(network), leaning_last(network)
    assert first.sizes == last.sizes == network.sizes
    whole = {Walker(n).count()[0] for n in (network, first, last)}
    assert len(whole) == 1
    assert Remaining(network).bound(()) == Remaining(first).bound(()) == Remaining(last).bound(())
    for other in (first, last):
        at = 0
        for before, after in zip(network.layers, other.layers, strict=True):
            order = np.array([before.unstable.tolist().index(u) for u in after.unstable.tolist()], dtype=np.int64)
            here = slice(at, at + before.size)
            np.testing.assert_allclose(
                other.preactivations(points)[:, here], network.preactivations(points)[:, here][:, order], atol=1e-12
            )
            at += before.size
        _, outputs = other.affine_maps(other.pattern_at(points[0]))
        _, expected = network.affine_maps(network.pattern_at(points[0]))
        assert outputs is not None
        assert expected is not None
        np.testing.assert_allclose(outputs(points[0]), expected(points[0]), atol=1e-12)


def test_leaning_units_first_is_less_work_and_last_less_scatter() -> None:
    work, scatter = [], []
    for seed in range(6):
        network = skewed(seed)
        walks = [Walker(order(network)) for order in (leaning_first, leaning_last)]
        for walk in walks:
            walk.count()
        work.append(walks[1].programmes / walks[0].programmes)
        found = probe_regions(network, probes=300, seed=seed)
        scatter.append(found.standard_error / found.mean)
    assert np.mean(work) > 1.0
    assert np.mean(scatter) < 0.1


def test_the_clock_is_looked_at_often_whatever_a_programme_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        """A walker whose programmes take a second each."""

        def __init__(self) -> None:
            self.programmes = 0
            self.asked: list[int] = []

        def count(self, programmes: int) -> tuple[int, bool]:
            self.asked.append(programmes)
            self.programmes += programmes
            return 0, False

    walker, steady = Slow(), pace.Pace()
    monkeypatch.setattr("onnxprune.regions.pace.time.perf_counter", lambda: float(walker.programmes))
    for _ in range(5):
        steady.count(walker)  # type: ignore[arg-type]
    assert walker.asked == [1] * 5
    monkeypatch.setattr("onnxprune.regions.pace.time.perf_counter", lambda: 1e-5 * walker.programmes)
    for _ in range(30):
        steady.count(walker)  # type: ignore[arg-type]
    assert 0.4 * pace.MOMENT < 1e-5 * walker.asked[-1] < 2.1 * pace.MOMENT


def test_small_budgets_are_kept() -> None:
    count_exactly(nets.fold(0.0))  # compiled before the clock runs
    network = nets.random_network(np.random.default_rng(0), 30, [40, 40])
    found = count_exactly(network, budget=0.3)
    assert not found.exact
    assert found.seconds < 3.0
