"""Every pass on random networks: equal outputs, no slack, nothing left to do the second time."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnxprune
from tests.nets import random_convnet, random_mlp, run

SEEDS = st.integers(0, 2**31)
BUDGET = 0.2
"""Seconds of search: what units are proved by makes no difference to the passes."""


def optimize(
    model: onnx.ModelProto, domain: str | None, *, budget: float = BUDGET, **options: Any
) -> onnxprune.Result[onnx.ModelProto]:
    return onnxprune.optimize(model, domain, goal="size", budget=budget, **options)


def equal(model: onnx.ModelProto, result: onnx.ModelProto, shape: tuple[int, ...], seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    for kind in range(6):
        x = rng.uniform(-scale, scale, size=shape).astype(np.float32)
        if kind == 0:
            x = np.sign(x) * np.float32(scale)
        expected, actual = run(model, x), run(result, x)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * max(1.0, float(np.abs(expected).max())))


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, domain=st.sampled_from([None, "-1:1"]))
def test_conv_nets_keep_their_outputs(seed: int, domain: str | None) -> None:
    model = random_convnet(seed)
    before = model.SerializeToString()
    result = optimize(model, domain, align=1)
    assert model.SerializeToString() == before, "the caller's model was changed"
    if np.abs(run(model, np.ones((1, 3, 8, 8), np.float32))).max() > 1e-20:  # else a deviation of 1e-31 is felt
        assert not [p["rolled_back"] for p in result.report["passes"] if p["rolled_back"]]
    equal(model, result.model, (1, 3, 8, 8), seed, 1.0 if domain else 30.0)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_dynamic_conv_nets_keep_their_outputs_at_every_size(seed: int) -> None:
    model = random_convnet(seed, dynamic=True)
    result = optimize(model, "-1:1", align=1, shapes={"x": (1, 3, 8, 8)})
    for shape in ((1, 3, 4, 4), (2, 3, 9, 5), (1, 3, 1, 1), (1, 3, 16, 3)):
        equal(model, result.model, shape, seed, 1.0)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, domain=st.sampled_from([None, "0:1"]))
def test_dense_nets_keep_their_outputs(seed: int, domain: str | None) -> None:
    model = random_mlp(seed)
    width = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    result = optimize(model, domain, align=1)
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, size=(64, width)).astype(np.float32)
    expected = run(model, x)
    np.testing.assert_allclose(
        run(result.model, x), expected, rtol=0, atol=2e-5 * max(1.0, float(np.abs(expected).max()))
    )


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, align=st.sampled_from([1, 4, 8]))
def test_a_second_run_changes_nothing(seed: int, align: int) -> None:
    first = optimize(random_convnet(seed), "-1:1", align=align, budget=0.0)  # a clock may prove more the second time
    second = optimize(first.model, "-1:1", align=align, budget=0.0)
    assert not second.modified
    assert second.model.SerializeToString() == first.model.SerializeToString()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, align=st.sampled_from([4, 8]))
def test_aligned_results_keep_their_outputs(seed: int, align: int) -> None:
    model = random_convnet(seed)
    result = optimize(model, "-1:1", align=align)
    equal(model, result.model, (1, 3, 8, 8), seed, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_something_is_removed(seed: int) -> None:
    result = optimize(random_convnet(seed), "-1:1", align=1)
    assert result.report["units"]["removed"] > 0
    assert result.report["after"]["params"] < result.report["tidied"]["params"]
