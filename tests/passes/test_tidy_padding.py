"""Padding nodes in front of convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.helpers import assert_equal_models
from tests.passes.support import ints, net, run_pass, taps

IMAGE: dict[str, Any] = {"inputs": "float[N,2,H,W] x", "outputs": "float[N,1,H2,W2] y"}
KERNEL = taps([[1, 2]], 3)


def test_zeros_around_the_image_become_the_padding_of_the_convolution() -> None:
    body = "p = Pad (x, q) y = Conv <pads = [0, 1, 2, 0]> (p, w)"
    model = net(body, **IMAGE, q=ints(0, 0, 1, 0, 0, 0, 0, 2), w=KERNEL)
    outcome = run_pass("tidy", model)
    assert outcome.report.changes["Pad nodes folded"] == 1
    (conv,) = outcome.model.graph.node
    pads = {a.name: helper.get_attribute_value(a) for a in conv.attribute}["pads"]
    assert list(pads) == [1, 1, 2, 2]
    assert_equal_models(model, outcome.model)


def test_padding_by_nothing_goes() -> None:
    model = net("p = Pad (x, q) y = Conv (p, w)", **IMAGE, q=ints(*[0] * 8), w=KERNEL)
    assert run_pass("tidy", model).report.changes["idle Pad nodes"] == 1


@pytest.mark.parametrize(
    ("body", "pads"),
    [
        ("p = Pad (x, q, one) y = Conv (p, w)", ints(0, 0, 1, 1, 0, 0, 1, 1)),
        ('p = Pad <mode = "edge"> (x, q) y = Conv (p, w)', ints(0, 0, 1, 1, 0, 0, 1, 1)),
        ("p = Pad (x, q) y = Conv (p, w)", ints(1, 0, 1, 1, 0, 0, 1, 1)),
        ('p = Pad (x, q) y = Conv <auto_pad = "SAME_UPPER"> (p, w)', ints(0, 0, 1, 1, 0, 0, 1, 1)),
        (
            "p = Pad (x, q) c = Conv (p, w) m = ReduceMax <keepdims = 1> (p) y = Mul (c, m)",
            ints(0, 0, 1, 1, 0, 0, 1, 1),
        ),
        ("p = Pad (x, q) y = MaxPool <kernel_shape = [2, 2]> (p)", ints(0, 0, 1, 1, 0, 0, 1, 1)),
    ],
    ids=["ones", "edges", "the batch", "padding of its own making", "two readers", "no convolution"],
)
def test_other_padding_stays(body: str, pads: np.ndarray) -> None:
    outputs = "float[N,C,H2,W2] y"
    model = net(body, inputs=IMAGE["inputs"], outputs=outputs, q=pads, w=KERNEL)
    assert not any("Pad" in kind for kind in run_pass("tidy", model).report.changes)
