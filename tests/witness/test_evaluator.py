"""Runs in float64, against rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from onnxprune.bounds.static import StaticGraph
from onnxprune.graph.graph import Graph
from onnxprune.witness.evaluator import Evaluator
from tests.bounds.exact import any_net, in_range, run_exact, sample_shape, some_points
from tests.passes.support import net


def check_seed(seed: int) -> int:
    """Compares all entries at a few points; how many there were."""
    model, rng = any_net(seed), np.random.default_rng(seed)
    points = some_points(rng, sample_shape(model), -1.0, float(10.0 ** rng.integers(-3, 3)))
    found = Evaluator(StaticGraph(Graph(model))).run({"x": np.concatenate([p.reshape(1, -1) for p in points])})
    count = 0
    for row, x in enumerate(points):
        values = run_exact(model, x)
        if not in_range(values):
            assert np.isnan(found["x"].value[row]).all()
            continue
        for name, known in found.items():
            for v, e, exact in zip(known.value[row], known.error[0], values[name].reshape(-1), strict=True):
                if not np.isnan(v):  # a value next to the end of the type's range may lie beyond it
                    assert abs(Fraction(float(v)) - exact) <= Fraction(float(e)), (name, v, e, float(exact))
                    count += 1
    return count


def test_errors_are_no_larger_than_stated() -> None:
    assert sum(check_seed(seed) for seed in range(50)) > 5000


@pytest.mark.slow
def test_errors_of_many_nets() -> None:
    for seed in range(50, 2000):
        check_seed(seed)


def test_what_only_moves_has_no_error() -> None:
    body = "t = Transpose <perm=[0,2,1]> (x) f = Flatten (t) r = Relu (f) y = MaxPool <kernel_shape=[2]> (x)"
    found = Evaluator(StaticGraph(Graph(net(body, "float[N,2,3] x", "float[N,2,2] y")))).run(
        {"x": np.full((1, 6), 0.1)}
    )
    assert [found[name].error.max() for name in ("t", "f", "r", "y")] == [0, 0, 0, 0]


def test_values_beyond_the_type_are_no_witness() -> None:
    """float16 ends at 65504; the other point of the batch counts."""
    body = "h = Gemm <transB=1> (x, w) y = Relu (h)"
    model = net(body, "float16[N,1] x", "float16[N,1] y", w=np.array([[300.0]], np.float16))
    found = Evaluator(StaticGraph(Graph(model))).run({"x": np.array([[1000.0], [2.0]])})
    assert np.isnan(found["y"].value[0]).all()
    assert found["y"].value[1].item() == 600


def test_infinite_values_are_no_witness() -> None:
    """Without a warning, too."""
    body = "a = Gemm <transB=1> (x, w) b = Relu (a) c = Gemm <transB=1> (b, w) y = Relu (c)"
    model = net(body, "double[N,1] x", "double[N,1] y", w=np.array([[1e200]]))
    found = Evaluator(StaticGraph(Graph(model))).run({"x": np.array([[1.0]])})
    assert np.isnan(found["y"].value).all()
