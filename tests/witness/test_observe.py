"""What runs of the real network show about units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune import parse_domain
from onnxprune.domain import InputSpec
from onnxprune.samples import input_specs
from onnxprune.witness import corner_feeds, observe
from tests.passes.support import net

BODY = "h = Gemm <transB = 1> (x, w, b) r = Relu (h) y = Gemm <transB = 1> (r, v)"
TABLES: dict[str, Any] = {"w": [[1, 0], [0, 1], [1, 1]], "b": [0, 5, -5], "v": [[1, 1, 1]]}


def test_smallest_and_largest_value_per_unit() -> None:
    feeds = [{"x": np.array([[1, 2]], np.float32)}, {"x": np.array([[-3, 4], [0, 0]], np.float32)}]
    seen = observe(net(BODY, **TABLES), [("h", 1)], feeds, provider="CPUExecutionProvider", custom_ops=())["h", 1]
    assert seen.low.tolist() == [-3, 5, -5]
    assert seen.high.tolist() == [1, 9, -2]


@pytest.mark.parametrize("low", [0.1, -0.1, 0.7])
def test_corners_never_leave_the_box(low: float) -> None:
    spec = InputSpec("x", np.dtype(np.float32), ("batch", 3))
    box = parse_domain([f"{low!r}:{low + 0.2!r}"], [spec])
    corners = np.random.default_rng(0).choice([low, low + 0.2], size=(700, 3))
    feeds = list(corner_feeds(corners, spec, box, (2, 3)))
    assert [len(f["x"]) for f in feeds] == [512, 188]
    assert all(box.contains(f) for f in feeds)


def test_every_unit_of_a_small_net_is_decided() -> None:
    model = net(BODY, **TABLES)
    report = onnxprune.inspect(model, parse_domain(["-1:1"], input_specs(model)))
    (hidden, _) = report["layers"]
    assert [hidden[state] for state in ("unstable", "active", "inactive", "undecided")] == [1, 1, 1, 0]
