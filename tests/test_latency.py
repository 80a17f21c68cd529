"""Comparing models round by round."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.latency import Timing


def timing(ratio: float, *, noise: float = 0.0, seed: int = 0) -> Timing:
    rng = np.random.default_rng(seed)
    machine = 1.0 + 3.0 * (rng.random(200) < 0.3)  # now and then somebody else takes the machine
    jitter = 1.0 + noise * rng.normal(size=(2, 200))
    return Timing({"a": ratio * machine * jitter[0], "b": machine * jitter[1]})


@pytest.mark.parametrize(("ratio", "expected"), [(0.5, False), (1.0, False), (1.03, False), (1.2, True), (3.0, True)])
def test_slower_beyond_noise(ratio: float, expected: bool) -> None:
    assert timing(ratio, noise=0.02).slower("a", "b") is expected


@pytest.mark.parametrize("seed", range(20))
def test_equal_models_are_never_called_slower(seed: int) -> None:
    assert not timing(1.0, noise=0.1, seed=seed).slower("a", "b")


def test_typical_time_ignores_disturbances() -> None:
    assert timing(1.0).typical("a") == 1.0
