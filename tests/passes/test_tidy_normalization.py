"""``tidy``: BatchNormalization goes into the layer in front of it, or stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.passes.support import left_alone, taps, tidy

BN = {"gain": [2, 4], "shift": [1, 2], "mean": [1, 0.5], "spread": [3, 15]}
"""With epsilon 1 the scales are 1 and 1, the shifts 0 and 1.5."""
NORM = "BatchNormalization <epsilon = 1.0> ({}, gain, shift, mean, spread)"
IMAGE: dict[str, Any] = {"inputs": "float[N,1,H,W] x", "outputs": "float[N,2,a,b] y"}


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 15, 17, 21])
def test_batch_normalization_goes_into_a_convolution(opset: int) -> None:
    tables = {**BN, "gain": [4, 12], "k": taps([[1], [2]], 3), "b": [5, 6], "opset": opset}
    done = tidy(f"c = Conv (x, k, b) y = {NORM.format('c')}", **IMAGE, **tables)
    assert done.ops == ["Conv"]
    assert done.layer("y") == [[[2], [6]], [5 * 2 + 1 - 2, 6 * 3 + 2 - 1.5]]
    assert done.report.changes["BatchNormalization folded"] == 1
    assert done.report.rounding == 0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("c = Gemm (x, w, b) y = {}", [[[2, 6], [6, 12]], [9, 18.5]]),
        ("c = Gemm (x, w) y = {}", [[[2, 6], [6, 12]], [-1, 0.5]]),
        ("c = Gemm <transB = 1> (x, w, b) y = {}", [[[2, 4], [9, 12]], [9, 18.5]]),
        ("c = Gemm <alpha = 2.0, beta = 3.0> (x, w, b) y = {}", [[[2, 6], [6, 12]], [29, 54.5]]),
    ],
)
def test_batch_normalization_goes_into_a_gemm(body: str, expected: Any) -> None:
    done = tidy(body.format(NORM.format("c")), **{**BN, "gain": [4, 12]}, w=[[1, 2], [3, 4]], b=[5, 6])
    assert done.ops == ["Gemm"]
    assert done.layer("y") == expected


@pytest.mark.parametrize("groups", [1, 2])
def test_batch_normalization_goes_into_a_transposed_convolution(groups: int) -> None:
    table = [[1, 2], [3, 4]] if groups == 1 else [[1], [3]]
    done = tidy(
        f"c = ConvTranspose <group = {groups}, strides = [2, 2]> (x, k, b) y = {NORM.format('c')}",
        **{**BN, "gain": [4, 12]}, inputs="float[N,2,H,W] x", outputs=IMAGE["outputs"],
        k=taps(table, 2), b=[5, 6],
    )  # fmt: skip
    assert done.ops == ["ConvTranspose"]
    assert done.layer("y") == [[[2, 6], [6, 12]] if groups == 1 else [[2], [9]], [9, 18.5]]


def test_a_transposed_convolution_with_two_channels_per_group() -> None:
    tables = {"gain": [2, 4, 6, 8], "shift": [0] * 4, "mean": [0] * 4, "spread": [3] * 4}
    done = tidy(
        f"c = ConvTranspose <group = 2> (x, k) y = {NORM.format('c')}", **tables,
        inputs="float[N,4,H,W] x", outputs="float[N,4,a,b] y", k=taps([[1, 1], [2, 2], [3, 3], [4, 4]]),
    )  # fmt: skip
    assert done.layer("y")[0] == [[1, 2], [2, 4], [9, 12], [12, 16]]


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("c = Conv (x, k) d = {} y = Add (c, d)", "float[N,2,a,b] y"),
        ("c = Conv (x, k) y = {}", "float[N,2,a,b] y, float[N,2,a,b] c"),
        ("c = Concat <axis = 1> (x, x) y = {}", "float[N,2,a,b] y"),
        ("r = Conv (x, k) c = Relu (r) y = {}", "float[N,2,a,b] y"),
    ],
)
def test_batch_normalization_stays(body: str, outputs: str) -> None:
    left_alone(body.format(NORM.format("c")), inputs=IMAGE["inputs"], outputs=outputs, **BN, k=taps([[1], [2]]))


def test_a_shared_kernel_is_scaled_for_one_reader_only() -> None:
    body = f"c = Conv (x, k) d = {NORM.format('c')} e = Conv (x, k) y = Add (d, e)"
    done = tidy(body, **IMAGE, **{**BN, "gain": [4, 12]}, k=taps([[1], [2]]))
    assert done.layer("c") == [[[2], [6]], [-1, 0.5]]
    assert done.layer("e") == [[[1], [2]]]


def test_the_rounding_of_a_folded_scale_is_stated() -> None:
    tables = {"gain": [1, 1], "shift": [0, 0], "mean": [0, 0], "spread": [2, 2], "k": taps([[1], [2]])}
    report = tidy(f"c = Conv (x, k) y = {NORM.format('c')}", **IMAGE, **tables).report
    exact = 2 / np.sqrt(3)
    assert report.rounding == pytest.approx(abs(float(np.float32(exact)) - exact))
