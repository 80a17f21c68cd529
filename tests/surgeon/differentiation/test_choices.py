from __future__ import annotations

import numpy as np
import pytest

from tests.surgeon.differentiation.support import Problem, check, model, samples

CASES = {
    "windows": "MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)",
    "overlapping windows": "MaxPool<kernel_shape=[3,2], pads=[1,1,1,1]>(a)",
    "windows with a rest": "MaxPool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(a)",
    "dilated windows": "MaxPool<kernel_shape=[2,2], dilations=[2,2]>(a)",
    "same": 'MaxPool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(a)',
    "all positions": "GlobalMaxPool(a)",
    "channels": "ReduceMax<keepdims=0>(a, axes)",
    "two axes": "ReduceMin(a, pair)",
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("batch", ["N", "1", "2"])
def test_choices(case: str, batch: str) -> None:
    rng = np.random.default_rng(40)
    constants = "int64[1] axes = {1}, int64[2] pair = {1, -1}"
    body = f"a = Mul(x, w)\n y = {CASES[case]}"
    found = model(body, f"float[{batch},3,5,6] x", {"w": rng.normal(size=(3, 5, 6))}, constants=constants)
    check(Problem(found, ["w"], ["y"], samples(found, rng), np.float32))


def test_equal_entries_share_nothing() -> None:
    found = model("a = Add(x, w)\n y = MaxPool<kernel_shape=[2]>(a)", "float[N,1,4] x", {"w": np.zeros(4)})
    flat = Problem(found, ["w"], ["y"], {"x": np.zeros((1, 1, 4), np.float32)}, np.float32)
    gradient = flat.derivatives.pull(flat.feeds, None, {"y": np.ones((1, 1, 3), np.float32)})["w"]
    np.testing.assert_array_equal(gradient, [1, 1, 1, 0])
