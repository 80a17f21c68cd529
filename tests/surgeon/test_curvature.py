import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from onnxprune.bounds.static import StaticGraph
from onnxprune.errors import InputError
from onnxprune.surgeon.calibration import Calibration
from onnxprune.surgeon.curvature import group_costs
from onnxprune.surgeon.gauss_newton import polish, product
from onnxprune.surgeon.kronecker import RIDGE, Curves, refitted
from onnxprune.surgeon.matching import Values, corrected, matching
from onnxprune.surgeon.moments import input_moments
from tests.helpers import parse
from tests.surgeon.nets import convolutions, linear, mlp, objective_of, samples


def test_objective_is_zero_at_the_dense_network_and_one_half_at_its_means() -> None:
    data = samples((6,))
    _, _, objective = objective_of(linear(), data)
    assert objective.loss(objective.dense, data) == 0
    nothing = {"w": np.zeros_like(objective.dense["w"])}
    outputs = data.inputs["x"].astype(np.float64) @ objective.dense["w"].T.astype(np.float64)
    expected = 0.5 * (outputs**2).mean() / ((outputs - outputs.mean(axis=0)) ** 2).mean()
    assert objective.loss(nothing, data) == pytest.approx(expected, rel=1e-5)


def test_batches_average_to_the_whole() -> None:
    data = samples((6,))
    _, _, objective = objective_of(mlp(), data)
    moved = {name: 0.9 * values for name, values in objective.dense.items()}
    whole, gradient = objective.gradient(moved, np.arange(40))
    halves = [objective.gradient(moved, part) for part in (np.arange(20), np.arange(20, 40))]
    assert whole == pytest.approx(np.mean([loss for loss, _ in halves]), rel=1e-5)
    assert objective.loss(moved, data) == pytest.approx(whole, rel=1e-5)
    for name, values in gradient.items():
        np.testing.assert_allclose(values, (halves[0][1][name] + halves[1][1][name]) / 2, rtol=1e-3, atol=1e-6)


def test_probes_measure_what_removing_a_group_costs() -> None:
    """In a linear network the Gauss-Newton cost is the objective itself."""
    data = samples((6,), count=64)
    _, _, objective = objective_of(linear(), data)
    groups = np.tile([0, 0, 1, 1, -1, 2], (3, 1))
    costs = group_costs(objective, objective.dense, {"w": groups}, 3, 800, np.random.default_rng(0))
    for group, cost in enumerate(costs):
        without = {"w": np.where(groups == group, 0, objective.dense["w"]).astype(np.float32)}
        assert cost == pytest.approx(objective.loss(without, data), rel=0.25)


def test_moments_give_the_squares_of_the_outputs() -> None:
    """w' E[x x'] w is the mean square of a convolution's output, whatever its stride, padding and groups."""
    weights = np.random.default_rng(3).normal(size=(4, 2, 3, 2)).astype(np.float32)
    body = "y = Conv<group = 2, strides = [2, 1], pads = [1, 0, 0, 1], dilations = [1, 2]>(x, w)"
    model = parse(body, "float[N,4,7,6] x", "float[N,4,3,5] y", weights={"w": weights})
    data = samples((4, 7, 6), count=20)
    graph, found, objective = objective_of(model, data)
    moments = input_moments(objective, StaticGraph(graph), objective.dense, found.targets, np.random.default_rng(0))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(None, data.inputs)[0].astype(np.float64)
    rows = weights.reshape(4, -1).astype(np.float64)
    for unit in range(4):
        expected = (outputs[:, unit] ** 2).mean()
        assert rows[unit] @ moments["w"][unit // 2] @ rows[unit] == pytest.approx(expected, rel=1e-4)


def test_curves_of_a_linear_network_are_exact() -> None:
    """Removing weights and refitting the rest by least squares costs what the curve says."""
    data = samples((6,), count=64)
    graph, found, objective = objective_of(linear(), data)
    rng = np.random.default_rng(0)
    curves = Curves(objective, StaticGraph(graph), found.targets, None, rng).at(objective.dense, {}, 1.0).curves
    inputs = data.inputs["x"].astype(np.float64)
    scale = objective.scales["y"]
    assert [curve.unit for curve in curves] == [0, 1, 2]
    for curve in curves:
        wanted = inputs @ objective.dense["w"][curve.unit].astype(np.float64)
        for more in (1, 3, 5):
            part = inputs[:, curve.kept(more)]
            rest = wanted - part @ np.linalg.lstsq(part, wanted)[0]
            assert curve.costs[more] == pytest.approx(0.5 * scale * (rest**2).mean(), rel=20 * RIDGE)


def test_patterns_run_along_the_channels_of_one_tap() -> None:
    data = samples((3, 6, 6))
    graph, found, objective = objective_of(convolutions(), data)
    targets = [t for t in found.targets if t.name == "w1"]
    curves = Curves(objective, StaticGraph(graph), targets, (2, 4), np.random.default_rng(0))
    for curve in curves.at(objective.dense, {}, 1.0).curves:
        kept = np.zeros(72, dtype=bool)
        kept[curve.columns] = curve.kept(len(curve.costs) - 1)
        assert (kept.reshape(2, 4, 9).sum(axis=1) == 2).all()


def test_gauss_newton_product_is_the_jacobian_twice() -> None:
    data = samples((6,), count=10)
    _, _, objective = objective_of(mlp(), data, dtype=np.float64)
    rng = np.random.default_rng(5)
    change = {name: rng.normal(size=values.shape) for name, values in objective.dense.items()}
    found = product(objective, objective.dense, change, np.arange(10))
    step = 1e-6
    ends = [
        objective.derivatives.forward(data.inputs, {n: v + s * change[n] for n, v in objective.dense.items()})
        for s in (-step, step)
    ]
    curved = sum(
        scale / 10 * float((((ends[1][t] - ends[0][t]) / (2 * step)) ** 2).sum())
        for t, scale in objective.scales.items()
    )
    assert sum(float((found[n] * change[n]).sum()) for n in change) == pytest.approx(curved, rel=1e-4)


def _least_squares(inputs: NDArray[np.float64], wanted: NDArray[np.float64], mask: NDArray[np.bool_]) -> Values:
    rows = np.zeros(mask.shape)
    for unit, kept in enumerate(mask):
        rows[unit, kept] = np.linalg.lstsq(inputs[:, kept], wanted[:, unit])[0]
    return {"w": rows}


def test_polish_reaches_least_squares() -> None:
    data = samples((6,), count=64)
    _, _, objective = objective_of(linear(), data)
    mask = np.random.default_rng(2).random((3, 6)) < 0.6
    start = {"w": np.where(mask, objective.dense["w"], 0).astype(np.float32)}
    values, loss = polish(objective, start, {"w": mask}, data, lambda: False)
    inputs = data.inputs["x"].astype(np.float64)
    best = _least_squares(inputs, inputs @ objective.dense["w"].T.astype(np.float64), mask)
    assert loss == pytest.approx(objective.loss({"w": best["w"].astype(np.float32)}, data), rel=1e-2)
    assert not values["w"][~mask].any()


def test_labels_move_the_scores_towards_the_right_class() -> None:
    scores = np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]], np.float32)
    moved = corrected(scores, np.array([1, 2]), 1.5)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    wanted = scores + 1.5 * (np.eye(3)[[1, 2]] - shares)
    np.testing.assert_allclose(moved, wanted, rtol=1e-6)


def test_labels_have_to_be_classes() -> None:
    data = samples((6,))
    _, found, objective = objective_of(mlp(), data)
    labelled = Calibration(data.inputs, np.full(40, 3))
    with pytest.raises(InputError, match="are no classes"):
        matching(objective.derivatives, found, labelled, objective.dense, 0.5, labels=True)
    with pytest.raises(InputError, match="no labels"):
        matching(objective.derivatives, found, data, objective.dense, 0.5, labels=True)
    right = Calibration(data.inputs, np.full(40, 2))
    batch = matching(objective.derivatives, found, right, objective.dense, 0.5, labels=True).batch(np.arange(4))[1]
    assert (batch["y"][:, 2] > objective.batch(np.arange(4))[1]["y"][:, 2]).all()
    np.testing.assert_array_equal(batch["r"], objective.batch(np.arange(4))[1]["r"])


def test_layers_that_are_averaged_over_positions_get_the_weight_they_have() -> None:
    """Behind a global mean all positions pull together: the weights' true curvature is that of the mean input."""
    weights = np.random.default_rng(0).normal(size=(3, 2, 1, 1)).astype(np.float32)
    model = parse(
        "c = Conv(x, w)  y = GlobalAveragePool(c)", "float[N,2,4,4] x", "float[N,3,1,1] y", weights={"w": weights}
    )
    data = samples((2, 4, 4), count=64)
    shifted = Calibration({"x": data.inputs["x"] + np.float32(1)}, None)
    graph, found, objective = objective_of(model, shifted)
    static = StaticGraph(graph)
    rng = np.random.default_rng(0)
    moments = input_moments(objective, static, objective.dense, found.targets, rng)
    curves = Curves(objective, static, found.targets, None, rng)
    scale = np.mean([curves._unit_weights(objective.dense, moments)["w"] for _ in range(6)], axis=0)
    squares = weights.reshape(3, 2).astype(np.float64) ** 2
    means = (shifted.inputs["x"].astype(np.float64).mean(axis=(2, 3)) ** 2).mean(axis=0)
    exact = objective.scales["y"] * float((squares * means).sum())
    assert float((scale[:, None] * squares * np.diag(moments["w"][0])).sum()) == pytest.approx(exact, rel=0.4)


def test_what_stays_is_refitted() -> None:
    data = samples((6,), count=64)
    graph, found, objective = objective_of(linear(), data)
    mask = np.random.default_rng(2).random((3, 6)) < 0.6
    moments = input_moments(objective, StaticGraph(graph), objective.dense, found.targets, np.random.default_rng(0))
    values = refitted(moments, found.targets, objective.dense, {"w": mask})
    inputs = data.inputs["x"].astype(np.float64)
    best = _least_squares(inputs, inputs @ objective.dense["w"].T.astype(np.float64), mask)
    assert not values["w"][~mask].any()
    least = objective.loss({"w": best["w"].astype(np.float32)}, data)
    assert objective.loss(values, data) == pytest.approx(least, rel=20 * RIDGE)
