"""Composing convolutions: kernels, strides, dilations, and what padding forbids."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.graph.cost import cost
from tests.passes.support import net, run_pass, taps, unchanged

NAME = "collapse_linear"
CONV = "h = Conv{p} (x, w, b) {r} y = Conv{q} (h, v, c)"


def convolutions(p: str, kernel: int, q: str, other: int, *, bias: float = 3.0, hidden: int = 12) -> onnx.ModelProto:
    rng = np.random.default_rng(kernel + 10 * other)
    first = rng.integers(-2, 3, (hidden, 2, kernel, kernel)).astype(np.float32)
    second = rng.integers(-2, 3, (2, hidden, other, other)).astype(np.float32)
    body = CONV.format(p=f" <{p}>" if p else "", q=f" <{q}>" if q else "", r="")
    bias_values = np.full(hidden, bias, np.float32)
    return net(body, "float[N,2,11,13] x", "float[N,2,K,L] y", w=first, b=bias_values, v=second, c=[1, 2])


@pytest.mark.parametrize(
    ("p", "kernel", "q", "other"),
    [
        ("", 1, "", 1),
        ("", 1, "", 3),
        ("strides = [2, 3]", 1, "strides = [1, 2], dilations = [2, 1]", 2),
        ("pads = [1, 0, 1, 2]", 1, "", 3),
        ("pads = [1, 1, 1, 1]", 3, "", 1),
        ("pads = [1, 1, 1, 1], strides = [2, 1], dilations = [1, 2]", 3, "strides = [1, 2]", 1),
        ('auto_pad = "VALID"', 3, 'auto_pad = "VALID"', 1),
        ("pads = [2, 1, 0, 1]", 2, "", 2),
        ("strides = [2, 1], dilations = [2, 1]", 2, "dilations = [1, 3]", 2),
    ],
)
def test_convolutions_compose(p: str, kernel: int, q: str, other: int) -> None:
    """Whole numbers: the result is equal at every position, border included."""
    model = convolutions(p, kernel, q, other, hidden=40)
    done = run_pass(NAME, model)
    assert done.ops == ["Conv"]
    assert (done.report.needed_domain, done.report.rounding) == (False, 0)
    assert not run_pass(NAME, done.model).report.modified


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_zero_padding_passes_through_a_layer_without_bias(stride: int) -> None:
    model = convolutions(f"strides = [{stride}, {stride}]", 1, "pads = [1, 0, 1, 1]", 3, bias=0)
    done = run_pass(NAME, model)
    assert done.attributes("y")["pads"] == [stride, 0, stride, stride]
    assert done.attributes("y")["dilations"] == [stride, stride]


@pytest.mark.parametrize(
    ("p", "kernel", "q", "other", "bias"),
    [
        ("", 1, "pads = [1, 1, 1, 1]", 3, 1),
        ("", 3, "pads = [1, 1, 1, 1]", 3, 0),
        ("pads = [1, 1, 1, 1]", 1, "pads = [1, 1, 1, 1]", 3, 0),
        ("", 1, "pads = [3, 3, 3, 3]", 1, 0),
        ("", 1, 'auto_pad = "SAME_UPPER"', 3, 0),
        ('auto_pad = "SAME_LOWER"', 3, "", 1, 1),
    ],
    ids=["bias", "kernel", "padded twice", "more positions than before", "automatic", "automatic before"],
)
def test_padding_that_breaks_the_composition(p: str, kernel: int, q: str, other: int, bias: float) -> None:
    unchanged(NAME, convolutions(p, kernel, q, other, bias=bias, hidden=40))


def test_a_larger_kernel_must_pay() -> None:
    """3x3 after 3x3 is 5x5: 2 * 2 * 25 weights against 9 * 4 per hidden channel."""
    assert not run_pass(NAME, convolutions("", 3, "", 3, hidden=2)).report.modified
    assert run_pass(NAME, convolutions("", 3, "", 3, hidden=3)).ops == ["Conv"]


def test_active_channels() -> None:
    tables: dict[str, Any] = {"w": taps([[1, 2], [3, 4]], 1), "b": [20, 20], "v": taps([[1, 1]], 3), "c": [1]}
    body = "h = Conv (x, w, b) r = Relu (h) y = Conv (r, v, c)"
    done = run_pass(NAME, net(body, "float[N,2,H,W] x", "float[N,1,K,L] y", **tables), "-1:1", tolerance=1e-3)
    assert done.layer("y") == [[[4, 6]], [1 + 9 * 40]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_random_convolutions(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def numbers(low: int, high: int) -> str:
        return ", ".join(str(int(v)) for v in rng.integers(low, high, 2))

    def attributes(*, pads: bool) -> str:
        around = f", pads = [{numbers(0, 2)}, {numbers(0, 2)}]" if pads else ""
        return f"strides = [{numbers(1, 4)}], dilations = [{numbers(1, 3)}]{around}"

    p, q = attributes(pads=rng.random() < 0.5), attributes(pads=rng.random() < 0.3)
    kernel, other = (int(k) for k in rng.choice([1, 1, 2, 3], 2))
    bias = float(rng.choice([0, 3]))
    model = convolutions(p, kernel, q, other, bias=bias, hidden=int(rng.integers(1, 30)))
    model.graph.input[0].type.CopyFrom(onnx.helper.make_tensor_type_proto(1, ["N", 2, 17, 19]))
    done = run_pass(NAME, model)
    before, after = (cost(m, {"x": (1, 2, 17, 19)}) for m in (model, done.model))
    assert after.params <= before.params - done.report.modified
    assert after.macs <= before.macs
