"""``fold_constant``: constants that enter a padded convolution ride on one carrier channel."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import ModelProto

import onnxprune
from tests.passes.support import Done, net, run_pass, taps, unchanged

NAME = "fold_constant"
CONV = "c = Conv (x, k1, b1) r = Relu (c)"
SINGLE: dict[str, Any] = {"k1": taps([[1], [0], [0], [0]]), "b1": [1, 2, 4, 1], "k2": taps([[1, 2, 3, 4]], 3)}
"""Channels 1, 2 and 3 are 2, 4 and 1."""


def padded(last: str = "y = Conv <pads = [1, 1, 1, 1]> (r, k2, b2)", **tables: Any) -> ModelProto:
    merged = {**SINGLE, "b2": [5], **tables}
    return net(f"{CONV} {last}", "float[N,1,H,W] x", "float[N,1,a,b] y", **merged)


def carried(done: Done) -> None:
    assert done.layer("c") == [[[1], [0]], [1, 4]]
    assert done.layer("y")[0] == [[1, 5]]  # 3 + 2 * 2/4 + 4 * 1/4
    assert done.report.removed == {"c": [1, 3]}


def test_a_carrier_takes_the_columns_of_all_constants() -> None:
    done = run_pass(NAME, padded())
    carried(done)
    assert done.layer("y")[1] == [5]
    assert (done.deviation, done.report.rounding, done.report.needed_domain) == (0, 0, False)
    assert not run_pass(NAME, done.model).report.modified


@pytest.mark.parametrize(
    ("last", "k2"),
    [
        ('y = Conv <auto_pad = "SAME_UPPER"> (r, k2)', taps([[1, 2, 3, 4]], 3)),
        ('y = Conv <auto_pad = "SAME_LOWER"> (r, k2)', taps([[1, 2, 3, 4]], 2)),
        ("y = Conv <pads = [1, 1, 1, 1]> (r, k2)", taps([[1, 2, 3, 4]])),
        ("y = Conv <pads = [0, 0, 0, 1], strides = [2, 2]> (r, k2)", taps([[1, 2, 3, 4]], 2)),
        ("m = MaxPool <kernel_shape = [2, 2]> (r) y = Conv <pads = [1, 1, 1, 1]> (m, k2)", taps([[1, 2, 3, 4]], 3)),
    ],
)
def test_every_kind_of_padding_needs_a_carrier(last: str, k2: Any) -> None:
    carried(run_pass(NAME, padded(last, k2=k2)))


@pytest.mark.parametrize(
    "attributes", ["", "<pads = [1, 1, 1, 1]>", "<strides = [2, 2]>", "<output_padding = [1, 1], strides = [2, 2]>"]
)
def test_a_transposed_convolution_needs_a_carrier(attributes: str) -> None:
    done = run_pass(NAME, padded(f"y = ConvTranspose {attributes} (r, k2)", k2=taps([[1], [2], [3], [4]], 3)))
    assert done.layer("y") == [[[1], [5]]]


def test_one_constant_alone_stays_and_the_report_says_why() -> None:
    model = padded(k1=taps([[1], [2], [0], [3]]))
    unchanged(NAME, model)
    report = onnxprune.optimize(model, goal="size", passes=NAME).report
    assert report["layers"][0]["kept_because"]["constant that enters a padded convolution"] == 1


def test_without_padding_the_bias_takes_it_all() -> None:
    done = run_pass(NAME, padded("y = Conv (r, k2, b2)"))
    assert done.layer("y") == [[[1]], [5 + 9 * (2 * 2 + 3 * 4 + 4 * 1)]]


@pytest.mark.parametrize(("biases", "carrier"), [([1, -1, 4, 2], 4), ([1, 2, 0, 8], 8), ([1, 0.5, 0.25, -3], 0.5)])
def test_a_zero_never_carries(biases: list[float], carrier: float) -> None:
    done = run_pass(NAME, padded(b1=biases))
    assert carrier in done.layer("c")[1]
    assert sum(b > 0 for b in done.layer("c")[1][1:]) == 1


def test_two_readers_share_one_carrier() -> None:
    done = run_pass(NAME, padded(
        "p = Conv <pads = [1, 1, 1, 1]> (r, k2) q = Conv <pads = [1, 1, 1, 1]> (r, k3) y = Sub (p, q)",
        k3=taps([[5, 6, 7, 8]], 3),
    ))  # fmt: skip
    assert done.layer("p") == [[[1, 5]]]
    assert done.layer("q") == [[[5, 12]]]  # 7 + 6 * 2/4 + 8 * 1/4


def test_one_padded_and_one_unpadded_reader() -> None:
    done = run_pass(NAME, padded(
        "p = Conv <pads = [1, 1, 1, 1]> (r, k2) q = Conv (r, k3) y = Sub (p, q)", k3=taps([[5, 6, 7, 8]])
    ))  # fmt: skip
    assert done.layer("p") == [[[1, 5]]]
    assert done.layer("q") == [[[5, 7]], [6 * 2 + 8 * 1]]


def test_a_carrier_through_a_nonlinear_path_carries_the_values_read() -> None:
    last = "g = LeakyRelu <alpha = 0.5> (n) y = Conv <pads = [1, 1, 1, 1]> (g, k2)"
    done = run_pass(NAME, padded(f"n = Neg (r) {last}"))
    carried(done)


def test_a_carrier_that_is_constant_but_for_tiny_weights() -> None:
    model = padded(k1=taps([[1], [1e-31], [1e-31], [0]]))
    done = run_pass(NAME, model, "0:1", tolerance=1e-4)
    assert done.layer("y")[0] == [[1, 5]]
    assert done.report.needed_domain
    # the removed channel moves y by 9 * 2 * r, the carrier by 9 * 3 * r times what was 2/4 of its own
    assert 9 * 2 * 1e-31 < done.deviation < 1e-13


@pytest.mark.parametrize("bias", [1e-34, 1e-20])
def test_a_constant_too_small_to_be_felt_needs_no_carrier(bias: float) -> None:
    done = run_pass(NAME, padded(b1=[1, bias, -1, -1]))
    assert done.report.removed == {"c": [1]}
    assert done.layer("y") == [[[1, 3, 4]], [5]]
    assert 9 * 2 * bias * 0.99 < done.deviation < 9 * 2 * bias * 1.01
    assert not done.report.needed_domain
