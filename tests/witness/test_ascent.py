"""Ascent towards the other side of a unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxprune.bounds.static import StaticGraph
from onnxprune.graph.graph import Graph
from onnxprune.witness.ascent import Goal, ascend, gradient
from onnxprune.witness.evaluator import Evaluator, Values
from tests.bounds.exact import any_net, sample_shape
from tests.passes.support import ints, net


def differences(net_of: StaticGraph, goal: Goal, x: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Central differences, and NaN where the slopes on both sides differ."""
    moves = np.concatenate([x, x + step * np.eye(x.size), x - step * np.eye(x.size)])
    values = goal.sign * Evaluator(net_of).run({"x": moves})[goal.tensor].value[:, goal.entry]
    ahead, behind = values[1 : x.size + 1] - values[0], values[0] - values[x.size + 1 :]
    return np.where(np.abs(ahead - behind) <= 1e-6 * (1 + np.abs(values[0])), (ahead + behind) / (2 * step), np.nan)


def check_gradient(net_of: StaticGraph, goal: Goal, x: NDArray[np.float64]) -> bool:
    step = 1e-6
    wanted = differences(net_of, goal, x, step)
    values = Evaluator(net_of).run({"x": x})
    found = gradient(net_of, [goal], values)["x"][0]
    size = max(1.0, float(np.abs(found).max()), *(1e-4 * float(v.value.max()) for v in values.values()))
    if np.isnan(wanted).any() or np.isnan(values["x"].value).any() or size > 1e4:
        return False
    np.testing.assert_allclose(found, wanted, atol=1e-4 * size)
    return True


def test_gradients_are_differences() -> None:
    checked = 0
    for seed in range(60):
        model, rng = any_net(seed), np.random.default_rng(seed)
        net_of = StaticGraph(Graph(model))
        name = model.graph.output[0].name
        for sign in (1, -1):
            checked += check_gradient(
                net_of, Goal(name, 1, sign), rng.normal(size=(1, int(np.prod(sample_shape(model)))))
            )
    assert checked > 20


@pytest.mark.parametrize("x", [[0.3, -0.2, 0.9], [2.0, -3.0, 0.1]])
def test_gradient_through_maxima_and_clips(x: list[float]) -> None:
    body = """
        p = MaxPool <kernel_shape=[2], pads=[0, 1]> (x) c = Clip (p, zero, one)
        f = Reshape (c, s) y = Gemm <transB=1> (f, w)
    """
    model = net(body, "float[N,1,3] x", "float[N,1] y", s=ints(0, 3), w=[[1, 2, 4]])
    assert check_gradient(StaticGraph(Graph(model)), Goal("y", 0, 1), np.array([x]))


def climb(model: object, goals: Sequence[Goal], start: NDArray[np.float64]) -> list[float]:
    """The best values on the way."""
    net_of = StaticGraph(Graph(model))  # type: ignore[arg-type]
    best = dict.fromkeys(goals, -np.inf)

    def note(values: Mapping[str, Values], asked: Sequence[Goal]) -> NDArray[np.bool_]:
        for row, goal in enumerate(asked):
            best[goal] = max(best[goal], goal.sign * float(values[goal.tensor].value[row, goal.entry]))
        return np.ones(len(asked), dtype=bool)

    size = start.shape[1]
    ascend(net_of, goals, {"x": start}, {"x": (np.full(size, -1.0), np.full(size, 1.0))}, note)
    return list(best.values())


def test_a_monotone_net_is_climbed_to_its_corner() -> None:
    rng = np.random.default_rng(0)
    signs = np.where(rng.random(6) < 0.5, -1.0, 1.0)
    w, v = np.abs(rng.normal(size=(5, 6))) * signs, np.abs(rng.normal(size=(2, 5)))
    body = "h = Gemm <transB=1> (x, w) r = LeakyRelu (h) g = Gemm <transB=1> (r, v) y = Relu (g)"
    model = net(body, "float[N,6] x", "float[N,2] y", w=w.astype(np.float32), v=v.astype(np.float32))
    goals = [Goal("g", entry, sign) for entry in (0, 1) for sign in (1, -1)]
    found = climb(model, goals, np.zeros((4, 6)))
    corners = Evaluator(StaticGraph(Graph(model))).run({"x": np.array([signs, -signs])})["g"].value
    np.testing.assert_allclose(found, [corners[0, 0], -corners[1, 0], corners[0, 1], -corners[1, 1]], rtol=1e-12)
