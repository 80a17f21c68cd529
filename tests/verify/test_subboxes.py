"""Bounds in sub-boxes, against runs in each of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval
from onnxprune.verify.subboxes import bending, bounded
from tests.helpers import parse

BODY = """
    a = Gemm <transB = 1> (x, w1, b1)
    r = Relu (a)
    h = Add (a, r)
    b = Gemm <transB = 1> (h, w2, b2)
    s = Relu (b)
    c = Mul (b, two)
    k = Add (c, s)
    d = Gemm <transB = 1> (k, w2, b2)
    t = Relu (d)
    y = Gemm <transB = 1> (t, w3, b3)
"""


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("exact", [False, True])
def test_no_run_leaves_the_bounds_of_its_box(seed: int, exact: bool) -> None:
    """Tensors that are read twice, so that coefficients meet again on the way back."""
    rng = np.random.default_rng(seed)
    shapes = {"w1": (5, 2), "b1": (5,), "w2": (5, 5), "b2": (5,), "w3": (1, 5), "b3": (1,)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["two"] = np.array(2, np.float32)
    model = parse(BODY, "float[1,2] x", "float[1,1] y", arrays)
    net = Network.of(model)
    whole = Interval.of(np.full((1, 2), -1.0), np.full((1, 2), 1.0), exact=exact)
    lows = np.array([[-1.0, -1], [-1, 0], [0, -1], [0, 0]])
    cut = {"x": Interval.of(lows, lows + 1, exact=exact)}
    names = bending(net)
    assert names == ["a", "b", "d"]
    found = bounded(net, {"x": whole}, cut, names, {}, exact)
    tables = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    for box, low in enumerate(lows):
        corners = [[0, 0], [0, 1], [1, 0], [1, 1]]
        points = low + np.vstack([rng.random((300, 2)), corners])
        a = points @ tables["w1"].T + tables["b1"]
        b = (a + np.maximum(a, 0)) @ tables["w2"].T + tables["b2"]
        d = (2 * b + np.maximum(b, 0)) @ tables["w2"].T + tables["b2"]
        for name, values in zip(names, (a, b, d), strict=True):
            least, most = (end[box] for end in found[name])
            assert (least <= values.min(axis=0) + 1e-9).all()
            assert (values.max(axis=0) <= most + 1e-9).all()
            assert (most - least <= 40 * (values.max(axis=0) - values.min(axis=0)) + 1).all()
