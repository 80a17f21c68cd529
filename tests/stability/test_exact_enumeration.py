"""Every claim about tiny ReLU networks against the exact range of every pre-activation."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from onnxprune.bounds.blocks import Blocks
from onnxprune.stability import cascade
from onnxprune.stability.proofs import Proofs
from tests.mip.support import exact_ranges, network, pattern_ranges, random_network
from tests.stability.support import box_of, dense_model, prove_all

Ranges = list[list[tuple[Fraction, Fraction]]]
CLEAR = Fraction(1, 100)
"""Units that stay away from 0 by this much, or cross it by this much, must be decided."""


@pytest.fixture(autouse=True)
def _few_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units that touch 0 would be split to the end."""
    monkeypatch.setattr(cascade, "LEAVES", 32)


def quarters(seed: int, inputs: int = 2) -> Blocks:
    """A random network whose numbers are multiples of a quarter; some units are copies and differences of others."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        return random_network(rng, inputs=inputs, depth=int(rng.integers(2, 4)), skips=seed % 2 == 0)
    layers, before = [], inputs
    for _ in range(int(rng.integers(2, 4))):
        size = int(rng.integers(2, 5))
        weights = rng.integers(-6, 7, size=(size, before)) * (rng.random((size, before)) < 0.8) / 4
        bias = rng.integers(-6, 7, size=size) / 4
        if rng.random() < 0.3:
            weights[-1], bias[-1] = weights[0], bias[0]
        layers.append((weights, bias))
        before = size
    low = rng.integers(-4, 3, size=inputs) / 4
    return network(layers, low, low + rng.integers(0, 5, size=inputs) / 4)


def check(blocks: Blocks, ranges: Ranges, proofs: Proofs, slack: Fraction = Fraction(0)) -> None:
    """No bound of any stage is wrong, nothing is called unstable that is not, and all that is clear is decided."""
    for index, found in enumerate(ranges):
        name = f"g{index}"
        for stage in proofs.stages:
            low, high = (
                np.broadcast_to(e, (1, len(found)))[0] for e in (stage.bounds[name].lower, stage.bounds[name].upper)
            )
            for unit, (least, most) in enumerate(found):
                assert Fraction(float(low[unit])) <= least + slack, (stage.method, name, unit)
                assert Fraction(float(high[unit])) >= most - slack, (stage.method, name, unit)
        switching, final = proofs.switching[name, 1], proofs.bounds[name]
        for unit, (least, most) in enumerate(found):
            assert not switching[unit] or (least < slack and most > -slack), (name, unit)
            if most < -CLEAR:
                assert final.upper[0, unit] <= 0, (name, unit)
            elif least > CLEAR:
                assert final.lower[0, unit] >= 0, (name, unit)
            elif least < -CLEAR and most > CLEAR:
                assert switching[unit], (name, unit)


def check_seed(seed: int, method: str) -> None:
    blocks = quarters(seed)
    check(
        blocks, exact_ranges(blocks), prove_all(dense_model(blocks), box_of(blocks), method=method, runs=seed % 5 == 0)
    )


@pytest.mark.parametrize(("method", "seeds"), [("cascade", 24), ("leo", 30), ("single", 30)])
def test_two_inputs(method: str, seeds: int) -> None:
    for seed in range(seeds):
        check_seed(seed, method)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cascade", "leo", "single"])
def test_two_inputs_a_thousand_times(method: str) -> None:
    for seed in range(24, 1000):
        check_seed(seed, method)


@pytest.mark.parametrize("method", ["cascade", "leo", "single"])
def test_three_inputs(method: str) -> None:
    """Ranges in floating point, so that a unit at 0 is left open."""
    for seed in range(3):
        blocks = quarters(seed, 3)
        ranges = [[(Fraction(a), Fraction(b)) for a, b in layer] for layer in pattern_ranges(blocks)]
        check(blocks, ranges, prove_all(dense_model(blocks), box_of(blocks), method=method), Fraction(1, 10**6))
