"""Magnitude, CBS and CHITA on small networks, against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnxprune.errors import InputError
from onnxprune.graph.graph import Graph
from onnxprune.surgeon import fisher_samples
from onnxprune.surgeon.calibration import Calibration
from onnxprune.surgeon.differentiation import Derivatives
from onnxprune.surgeon.fisher_samples import Flattened, Losses, mean_square
from onnxprune.surgeon.methods import Operated, operated
from onnxprune.surgeon.options import PruneOptions
from onnxprune.surgeon.paper_methods import SELECTING, THRESHOLDING, UPDATING
from onnxprune.surgeon.sample_loss import CrossEntropy, SampleLoss, SquaredError
from onnxprune.surgeon.selection import removal_count
from onnxprune.surgeon.targets import working_model
from tests.surgeon.nets import convolutions, mlp, samples

Values = dict[str, NDArray[Any]]
METHODS = ("magnitude", "cbs", "chita")


def labelled(count: int = 40, classes: int = 3, seed: int = 0) -> Calibration:
    data = samples((6,), count=count)
    return Calibration(data.inputs, np.random.default_rng(seed).integers(0, classes, count))


def run(model: onnx.ModelProto, data: Calibration, held: int = 10, **changes: Any) -> Operated:
    options = PruneOptions(**{"sparsity": 0.5, "threads": 1, **changes})
    return operated(model, data.take(slice(held, None)), data.take(slice(held)), options, "CPUExecutionProvider")


def stored(model: onnx.ModelProto) -> Values:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def losses_of(model: onnx.ModelProto, data: Calibration, names: list[str], loss: SampleLoss) -> Losses:
    derivatives = Derivatives(Graph(working_model(model, data)), names, ["y"], threads=1)
    return Losses(derivatives, loss, {name: stored(model)[name] for name in names})


def by_hand(values: Values, x: NDArray[Any], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cross entropy of each sample for the network of :func:`mlp`."""
    scores = np.maximum(x @ values["w1"].T + values["b1"], 0) @ values["w2"].T
    return np.asarray(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(x)), classes])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_the_asked_number_goes_and_the_rest_of_the_network_stays(method: str, sparsity: float) -> None:
    model, data = mlp(), labelled()
    told = run(model, data, method=method, sparsity=sparsity)
    assert set(told.values) == set(told.masks) == {"w1", "w2"}
    assert sum(int((~mask).sum()) for mask in told.masks.values()) == removal_count(45, sparsity)
    for name, mask in told.masks.items():
        assert not told.values[name][~mask].any()
        assert told.values[name].dtype == np.float32
        assert told.values[name].shape == mask.shape == stored(model)[name].shape
    assert told.share == 1.0
    assert 0 < told.mismatch < 5


def test_magnitude_keeps_the_largest_as_they_were() -> None:
    model = mlp()
    told = run(model, samples((6,)), method="magnitude")
    dense = {name: stored(model)[name] for name in told.values}
    sizes = np.sort(np.concatenate([np.abs(w).reshape(-1) for w in dense.values()]))
    least = sizes[removal_count(45, 0.5)]
    for name, values in dense.items():
        assert np.array_equal(told.values[name], np.where(np.abs(values) >= least, values, 0))
    assert told.notes == []


def test_gradients_are_slopes_of_each_samples_cross_entropy() -> None:
    model, data = mlp(), labelled(count=70)
    losses = losses_of(model, data, ["w1", "w2"], CrossEntropy("y"))
    values = {name: v.astype(np.float64) for name, v in stored(model).items()}
    x, classes = data.inputs["x"].astype(np.float64), data.labels
    assert classes is not None
    flattened = Flattened({"w1": (5, 6), "w2": (3, 5)})
    found = losses.gradients(data, flattened)
    assert found.shape == (70, 45)
    for column in range(45):
        change = flattened.apart(np.eye(45)[column] * 1e-6)
        up, down = ({**values, **{n: values[n] + s * change[n] for n in change}} for s in (1, -1))
        slope = (by_hand(up, x, classes) - by_hand(down, x, classes)) / 2e-6
        assert found[:, column] == pytest.approx(slope, abs=1e-4)
    mean = losses.mean(data, losses.dense, losses.wanted(data))
    assert mean == pytest.approx(float(by_hand(values, x, classes).mean()), rel=1e-5)
    assert mean_square(found) == pytest.approx(float((found.astype(np.float64) ** 2).mean()), rel=1e-5)


def test_the_most_likely_class_stands_in_for_a_label() -> None:
    data = Calibration({}, None)
    scores = {"y": np.array([[1.0, 3.0, 2.0], [5.0, 0.0, 0.0]])}
    loss = CrossEntropy("y")
    wanted = loss.wanted(scores, data)
    assert wanted["y"].tolist() == [1, 0]
    slopes = loss.slopes(scores, wanted)["y"]
    assert slopes.sum(axis=1) == pytest.approx([0, 0])
    assert (slopes.argmin(axis=1) == wanted["y"]).all()


def test_slopes_of_the_squared_error_have_the_gauss_newton_matrix_as_second_moment() -> None:
    rng = np.random.default_rng(0)
    outputs = {"a": rng.normal(size=(4000, 2)), "b": 3 * rng.normal(size=(4000, 1))}
    loss = SquaredError.of(outputs, seed=1)
    wanted = loss.wanted(outputs, Calibration({}, None))
    assert loss.mean(outputs, wanted) == 0
    still = {name: np.broadcast_to(values.mean(axis=0), values.shape) for name, values in outputs.items()}
    assert loss.mean(still, wanted) == pytest.approx(0.5)
    both = np.concatenate(list(loss.slopes(outputs, wanted).values()), axis=1)
    expected = np.diag([loss.scales["a"], loss.scales["a"], loss.scales["b"]])
    assert both.T @ both / len(both) == pytest.approx(expected, abs=0.02)
    assert loss.scales["b"] == pytest.approx(1 / 18, rel=0.1)


@pytest.mark.parametrize("method", ["cbs", "chita"])
def test_the_update_is_the_least_squares_solution_for_some_ridge(method: str) -> None:
    model, data = mlp(), labelled()
    told = run(model, data, method=method)
    flattened = Flattened({name: mask.shape for name, mask in told.masks.items()})
    losses = losses_of(model, data, list(told.masks), CrossEntropy("y"))
    gradients = losses.gradients(data.take(slice(10, None)), flattened).astype(np.float64)
    weights, found = (flattened.joined(part) for part in (losses.dense, told.values))
    kept = np.concatenate([mask.reshape(-1) for mask in told.masks.values()])
    gaps = []
    for ridge in UPDATING if method == "cbs" else THRESHOLDING:
        fisher = gradients.T @ gradients / 30 + ridge * mean_square(gradients.astype(np.float32)) * np.eye(45)
        change = np.linalg.solve(fisher[np.ix_(kept, kept)], fisher[np.ix_(kept, ~kept)] @ weights[~kept])
        gaps.append(float(np.abs(found[kept] - weights[kept] - change).max()))
    assert min(gaps) < 1e-4


@pytest.mark.parametrize("method", ["cbs", "chita"])
def test_outputs_stay_closer_than_with_magnitude(method: str) -> None:
    model, data = convolutions(), samples((3, 6, 6), count=60)
    assert run(model, data, method=method).mismatch < 0.8 * run(model, data, method="magnitude").mismatch


def test_what_the_loss_was_is_said() -> None:
    assert "labels were used" in run(mlp(), labelled(), method="chita").notes[0]
    assert "most likely" in run(mlp(), samples((6,)), method="chita", classify=True).notes[0]
    assert "squared error" in run(mlp(), samples((6,)), method="chita").notes[0]


def test_results_are_reproducible_and_seeds_count() -> None:
    model, data = mlp(), samples((6,))
    first, again, other = (run(model, data, method="cbs", seed=seed).values for seed in (0, 0, 1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


def test_samples_are_dropped_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fisher_samples, "MOST_BYTES", 25 * 45 * 4)
    lines: list[str] = []
    told = run(mlp(), labelled(), method="chita", progress=lines.append)
    assert any("25 samples, 45 weights" in line for line in lines)
    assert any("25 samples are used" in note for note in told.notes)


def test_stopped_before_anything_was_found_nothing_changes() -> None:
    model = mlp()
    told = run(model, labelled(), method="cbs", stopped=lambda: True)
    assert told.share == 0
    assert told.masks == {}
    assert all(np.array_equal(values, stored(model)[name]) for name, values in told.values.items())


def test_stopped_later_the_best_so_far_is_the_result() -> None:
    lines: list[str] = []
    told = run(mlp(), labelled(), method="cbs", progress=lines.append, stopped=lambda: len(lines) > 1)
    assert sum(line.startswith("CBS") for line in lines) == 1 < len(SELECTING)
    assert told.share == 1.0


def test_blocks_of_a_selection_are_proved_where_asked() -> None:
    told = run(mlp(), labelled(), method="cbs", blocks=3)
    assert len(told.blocks) == 3
    for block in told.blocks:
        assert block.result.bound <= block.result.value <= block.chosen + 1e-9
        assert block.result.gap == pytest.approx(0, abs=1e-5 * max(abs(block.chosen), 1e-3))
    assert not run(mlp(), labelled(), method="chita").blocks


def test_labels_must_fit_the_outputs() -> None:
    with pytest.raises(InputError, match=r"labels go up to 8, output 'y' has 3 entries"):
        run(mlp(), Calibration(samples((6,)).inputs, np.full(40, 8)), method="cbs")
    scalar = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 1])
    model = mlp()
    model.graph.output[0].CopyFrom(scalar)
    model.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(np.ones((1, 5), dtype=np.float32), "w2"))
    with pytest.raises(InputError, match="one entry per sample"):
        run(model, labelled(), method="cbs")
