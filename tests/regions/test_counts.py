"""Known answers, and every counter against the others."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import InputError
from onnxprune.regions import RegionNetwork, Walker, count_exactly, empirical, iter_regions, montufar, narrow, serra
from onnxprune.regions.compiled import COMPILED
from onnxprune.regions.exact import Count
from tests.regions import nets

KNOWN: list[tuple[Callable[[], RegionNetwork], int, int]] = [
    (lambda: nets.general_position(7, 3), 64, 64),
    (lambda: nets.general_position(10, 2), 56, 56),
    (lambda: nets.general_position(6, 2), 22, 22),
    (lambda: nets.general_position(8, 3), 93, 93),
    (lambda: nets.zigzag(3, 1), 4, 4),
    (lambda: nets.zigzag(3, 2), 16, 16),
    (lambda: nets.zigzag(3, 3), 64, 64),
    (lambda: nets.zigzag(4, 3), 125, 125),
    (lambda: nets.zigzag(5, 4), 1296, 1296),
    (lambda: nets.folded(2, (6, 4)), 176, 176),
    (lambda: nets.folded(2, (6, 6, 4)), 2816, 2816),
    (nets.grid, 64, 64),
    (nets.two_planes_per_axis, 27, 27),
    (nets.three_lines, 6, 6),
    (lambda: nets.braid(5), 120, 120),
    (lambda: nets.resonance(4), 370, 370),
    (nets.stable_and_not, 4, 4),
    (nets.touching, 1, 1),
    (nets.repeated, 4, 6),
    (lambda: nets.fold(-0.25), 4, 5),
    (lambda: nets.fold(0.0), 2, 3),
    (nets.mirrored, 2, 3),
]
"""Networks, their cells, and their patterns (by hand for the last four: a shared line is a pattern of its own)."""


@pytest.mark.parametrize(("make", "cells", "patterns"), KNOWN)
def test_known_answers(make: Callable[[], RegionNetwork], cells: int, patterns: int) -> None:
    network = make()
    found = count_exactly(network)
    assert (found.lower, found.upper, found.tolerance_sensitive) == (cells, cells, False)
    if COMPILED or cells < 200:
        assert count_exactly(network, "patterns").upper == patterns


@pytest.mark.slow
@pytest.mark.parametrize(("make", "cells"), [(lambda: nets.zigzag(7, 5), 32768), (lambda: nets.resonance(5), 11292)])
def test_large_known_answers(make: Callable[[], RegionNetwork], cells: int) -> None:
    assert count_exactly(make()).lower == cells


def test_cells_with_the_same_map_are_merged_across_facets_only() -> None:
    cuts = ([[1.0], [1.0]], [-0.25, -0.75])
    hidden = RegionNetwork.of_layers([cuts], [0.0], [1.0], readout=([[1.0, 0.0]], [0.0]))
    assert (count_exactly(hidden).lower, count_exactly(hidden, "affine").lower) == (3, 2)
    bump = ([[1.0], [1.0], [1.0]], [-0.25, -0.5, -0.75])  # 0 to the left of it and to the right: not connected
    apart = RegionNetwork.of_layers([bump], [0.0], [1.0], readout=([[1.0, -2.0, 1.0]], [0.0]))
    assert count_exactly(apart, "affine").lower == 4
    mirror = ([[1.0, 0.0], [-1.0, 0.0]], [0.0, 0.0])
    both = RegionNetwork.of_layers([mirror], [-1, -1], [1, 1], readout=([[1, -1]], [0]))
    assert count_exactly(both, "affine").lower == 1  # max(x, 0) - max(-x, 0) = x
    with pytest.raises(InputError, match="affine map"):
        count_exactly(nets.grid(), "affine")


def _brute_force(network: RegionNetwork, points: int = 200_000) -> set[bytes]:
    rng = np.random.default_rng(0)
    chosen = rng.uniform(network.low, network.high, size=(points, len(network.low)))
    return {row.tobytes() for row in np.unique(network.preactivations(chosen) > 0, axis=0)}


@pytest.mark.parametrize("seed", range(6))
def test_counters_agree_and_bounds_are_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, widths = int(rng.integers(1, 4)), [int(n) for n in rng.integers(2, 6, size=int(rng.integers(1, 4)))]
    network = nets.random_network(rng, inputs, widths)
    count = count_exactly(network).lower
    regions = list(iter_regions(network, centred=True))
    sampled = _brute_force(network)
    assert sampled <= {np.array(region.pattern, dtype=bool).tobytes() for region in regions}
    assert len({region.pattern for region in regions}) == len(regions) == count
    assert all(network.pattern_at(region.witness) == region.pattern for region in regions)
    assert len(sampled) >= count - 1  # a sliver may escape 200,000 points
    last = list(narrow(network))[-1]
    assert (last.lower, last.upper) == (count, count)
    assert count <= empirical(network) <= serra(inputs, widths) <= montufar(inputs, widths)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.lists(st.integers(2, 5), min_size=1, max_size=3))
def test_count_is_invariant(seed: int, inputs: int, widths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    layers = nets.random_layers(rng, inputs, widths)
    low, high = -np.ones(inputs), np.ones(inputs)
    before = count_exactly(RegionNetwork.of_layers(layers, low, high))
    permuted, scaled, mixing, stretch = [], [], np.eye(inputs), np.eye(inputs)
    for weights, bias in layers:
        order, scale = rng.permutation(len(bias)), 10.0 ** rng.uniform(-2, 2, size=len(bias))
        permuted.append((weights[order] @ mixing, bias[order]))
        mixing = np.eye(len(bias))[order].T
        scaled.append((scale[:, None] * weights @ stretch, scale * bias))
        stretch = np.diag(1 / scale)
    factor, shift = 10.0 ** rng.uniform(-2, 2, size=inputs), rng.normal(size=inputs)
    (weights, bias), *rest = layers
    moved = [(weights / factor, bias - weights / factor @ shift), *rest]
    moved_box = (shift - factor, shift + factor)
    for changed, ends in ((permuted, (low, high)), (scaled, (low, high)), (moved, moved_box)):
        after = count_exactly(RegionNetwork.of_layers(changed, *ends))
        assert after.lower == before.lower or before.tolerance_sensitive or after.tolerance_sensitive


def test_interval_narrows_and_holds_the_count() -> None:
    network = nets.random_network(np.random.default_rng(5), 3, [6, 6, 5])
    count = count_exactly(network).lower
    states = list(narrow(network))
    for before, after in itertools.pairwise(states):
        assert before.lower <= after.lower <= count <= after.upper <= before.upper
    assert states[-1].exact
    cut_off = list(narrow(network, budget=0.0))
    assert len(cut_off) == 1
    assert cut_off[0].lower <= count <= cut_off[0].upper
    part = count_exactly(network, budget=-1.0)
    assert part.lower <= count <= part.upper


def test_walk_is_continued_where_it_paused() -> None:
    network = nets.general_position(8, 3)
    walker = Walker(network)
    total, done = 0, False
    while not done:
        found, done = walker.count(programmes=7)
        total += found
        assert done or walker.open_nodes()
    assert total == 93


def test_linear_constraints_cut_the_domain() -> None:
    square = nets.planes(np.eye(2), np.array([-0.5, -0.5]), 0, 1)
    cut = RegionNetwork(
        square.low, square.high, np.array([[1.0, 1.0]]), np.array([0.9]), square.layers, square.readout, square.blocks
    )
    assert count_exactly(cut).lower == 3
    empty = RegionNetwork(
        square.low, square.high, np.array([[1.0, 1.0]]), np.array([-0.1]), square.layers, None, square.blocks
    )
    with pytest.raises(InputError, match="empty"):
        count_exactly(empty)


def test_signs_of_outputs_and_fixed_inputs() -> None:
    layers, readout = [(np.eye(2), np.full(2, -0.5))], (np.array([[1.0, -1.0]]), np.zeros(1))
    assert count_exactly(RegionNetwork.of_layers(layers, [0, 0], [1, 1], readout=readout)).lower == 4
    signed = RegionNetwork.of_layers(layers, [0, 0], [1, 1], readout=readout, include_output=True)
    assert count_exactly(signed).lower == 5  # only where both units are on the sign is open
    assert count_exactly(RegionNetwork.of_layers(layers, [0, 0.7], [1, 0.7])).lower == 2


def test_thin_cell_is_reported() -> None:
    thin = nets.planes(np.array([[1.0], [1.0]]), np.array([-0.5, -0.5 - 2e-10]), 0, 1)
    found = count_exactly(thin)
    assert (found.lower, found.tolerance_sensitive) == (2, True)
    finer = count_exactly(thin, tolerance=1e-11)
    assert (finer.lower, finer.tolerance_sensitive) == (3, False)


def test_finished_subtrees_are_not_counted_again(tmp_path: Path) -> None:
    network, store = nets.random_network(np.random.default_rng(2), 3, [6, 6]), tmp_path / "count.jsonl"
    whole = count_exactly(network)
    first = count_exactly(network, store=store)
    assert first.lower == whole.lower
    lines = store.read_text().splitlines(keepends=True)
    store.write_text("".join(lines[:5]) + '{"prefix": "01')  # killed while it wrote
    resumed = count_exactly(network, store=store)
    assert (resumed.lower, resumed.upper) == (whole.lower, whole.upper)
    assert sorted(store.read_text().splitlines()) == sorted("".join(lines).splitlines())
    assert count_exactly(network, store=store).programmes < first.programmes
    with pytest.raises(InputError, match="another count"):
        count_exactly(network, "patterns", store=store)


def _count_into(store: str) -> None:
    count_exactly(nets.zigzag(5, 4), store=store, progress=lambda done, _: time.sleep(0.5 if done >= 3 else 0))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
def test_count_survives_a_kill(tmp_path: Path) -> None:
    store = tmp_path / "count.jsonl"
    process = multiprocessing.get_context("spawn").Process(target=_count_into, args=(str(store),))
    process.start()
    deadline = time.time() + 120
    while time.time() < deadline and not (store.exists() and store.read_text().count("\n") >= 4):
        time.sleep(0.05)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert 4 <= store.read_text().count("\n") < 20
    assert count_exactly(nets.zigzag(5, 4), store=store).lower == 1296


def test_processes_share_the_work() -> None:
    network = nets.random_network(np.random.default_rng(2), 3, [6, 6])
    together: Count = count_exactly(network, jobs=2)
    assert together.lower == together.upper == count_exactly(network).lower
