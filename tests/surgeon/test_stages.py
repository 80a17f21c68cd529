import itertools

import numpy as np
import onnx
import pytest

from onnxprune.bounds.static import StaticGraph
from onnxprune.errors import InputError
from onnxprune.graph.cost import macs
from onnxprune.surgeon.descent import MOVED, Descent, cosine, first_rate
from onnxprune.surgeon.kronecker import Curves
from onnxprune.surgeon.matching import Values
from onnxprune.surgeon.stages import Effort, Masks, operate, share_of, stages_for
from onnxprune.surgeon.units import Channels, UnitChoice
from onnxprune.surgeon.weights import Budgets, PatternChoice, WeightChoice
from onnxprune.surgeon.writing import with_values
from tests.surgeon.nets import convolutions, linear, mlp, objective_of, samples

RNG = np.random.default_rng


def effort(**changes: object) -> Effort:
    settings: dict[str, object] = {
        "stages": 7,
        "steps": 60,
        "seconds": 60.0,
        "batch": 16,
        "stopped": lambda: False,
        "progress": lambda text: None,
        "seed": 0,
    }
    return Effort(**{**settings, **changes})  # type: ignore[arg-type] # the fields above


def test_descent_finds_least_squares_and_leaves_zeros_alone() -> None:
    data = samples((6,), count=64)
    _, _, objective = objective_of(linear(), data)
    mask = RNG(2).random((3, 6)) < 0.6
    descent = Descent(objective, dict(objective.dense), {}, 0.1, 16, RNG(0))
    descent.mask({"w": mask})
    for step in range(400):
        descent.step(cosine(step, 400))
    inputs = data.inputs["x"].astype(np.float64)
    best = np.zeros((3, 6))
    for unit, kept in enumerate(mask):
        wanted = inputs @ objective.dense["w"][unit].astype(np.float64)
        best[unit, kept] = np.linalg.lstsq(inputs[:, kept], wanted)[0]
    assert not descent.values["w"][~mask].any()
    least = objective.loss({"w": best.astype(np.float32)}, data)
    assert objective.loss(descent.values, data) == pytest.approx(least, rel=0.02)


def test_every_sample_is_seen_before_one_is_seen_again() -> None:
    data = samples((6,), count=40)
    _, _, objective = objective_of(linear(), data)
    descent = Descent(objective, dict(objective.dense), {}, 0.1, 16, RNG(0))
    seen = np.concatenate([descent._next() for _ in range(5)])
    assert sorted(seen[:40]) == list(range(40))


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.9])
def test_sparsity_is_met_exactly(sparsity: float) -> None:
    data = samples((6,))
    graph, found, objective = objective_of(mlp(), data)
    curves = Curves(objective, StaticGraph(graph), found.targets, None, RNG(0))
    done = operate(objective, WeightChoice(curves, Budgets(1 - sparsity), 60), effort())
    zeros = sum(int((done.values[t.name] == 0).sum()) for t in found.targets)
    assert zeros == found.total - int(np.floor((1 - sparsity) * found.total + 1e-9))
    assert done.share == 1
    assert len(done.history) == 7


@pytest.mark.parametrize(("left", "stages"), [(0.9, 6), (0.5, 6), (0.2, 9), (0.1, 12), (0.01, 12)])
def test_more_stages_where_less_is_left(left: float, stages: int) -> None:
    assert stages_for(left) == stages


def test_masks_only_shrink() -> None:
    data = samples((3, 6, 6))
    graph, found, objective = objective_of(convolutions(), data)
    choice = WeightChoice(Curves(objective, StaticGraph(graph), found.targets, None, RNG(0)), Budgets(0.2), 0)
    before: Masks = {}
    for stage in (1, 4, 8, 12):
        masks = choice(share_of(stage, 12), objective.dense, before).masks
        assert all(not (masks[n] & ~before[n]).any() for n in before)
        before = masks


def test_budgets_of_several_kinds_hold_together() -> None:
    data = samples((3, 6, 6))
    graph, found, objective = objective_of(convolutions(), data)
    curves = Curves(objective, StaticGraph(graph), found.targets, None, RNG(0))
    total = found.total + 24
    masks = WeightChoice(curves, Budgets(None, 0.4, 0.6), total)(1.0, objective.dense, {}).masks
    dense = sum(t.size * t.uses for t in found.targets)
    kept = {t.name: int(masks[t.name].sum()) for t in found.targets}
    assert sum(kept[t.name] * t.uses for t in found.targets) <= 0.4 * dense
    assert sum(kept.values()) + 24 <= 0.6 * total


def test_pattern_holds_at_the_end() -> None:
    data = samples((3, 6, 6))
    graph, found, objective = objective_of(convolutions(), data)
    targets = tuple(t for t in found.targets if t.shape[1] % 4 == 0)
    curves = Curves(objective, StaticGraph(graph), targets, (2, 4), RNG(0))
    done = operate(objective, PatternChoice(curves), effort(steps=24))
    for target in targets:
        groups = np.moveaxis(done.values[target.name], 1, -1).reshape(-1, 4)
        assert ((groups != 0).sum(axis=1) <= 2).all()
    assert (done.values["w0"] != 0).all()


def test_a_stop_hands_back_the_last_finished_stage() -> None:
    data = samples((6,))
    graph, found, objective = objective_of(mlp(), data)
    curves = Curves(objective, StaticGraph(graph), found.targets, None, RNG(0))
    asked = itertools.count()
    done = operate(objective, WeightChoice(curves, Budgets(0.1), 60), effort(stopped=lambda: next(asked) > 20))
    assert 0 < done.share < 1
    zeros = sum(int((done.values[t.name] == 0).sum()) for t in found.targets)
    assert zeros == sum(int((~done.masks[t.name]).sum()) for t in found.targets) > 0


def test_little_time_means_few_steps() -> None:
    data = samples((6,))
    graph, found, objective = objective_of(mlp(), data)
    curves = Curves(objective, StaticGraph(graph), found.targets, None, RNG(0))
    done = operate(objective, WeightChoice(curves, Budgets(0.5), 60), effort(steps=100_000, seconds=0.05))
    assert done.share == 1
    assert done.steps < 5000


@pytest.mark.parametrize("multiple", [1, 4])
def test_units_meet_the_budget_as_it_is_counted_after_removal(multiple: int) -> None:
    model, data = convolutions(), samples((3, 6, 6))
    graph, found, objective = objective_of(model, data)
    channels = Channels(graph, found)
    assert sorted(len(family) for family in channels.families) == [8, 8]
    choice = UnitChoice(objective, StaticGraph(graph), channels, 0.5, True, multiple, RNG(0))
    masks = choice(1.0, objective.dense, {}).masks
    alive = choice.alive(masks)
    shapes = {"x": (1, 3, 6, 6)}
    whole = macs(model, shapes)
    assert channels.macs(np.ones_like(alive)) == whole
    assert channels.macs(alive) <= 0.5 * whole
    assert all(int(alive[family].sum()) % multiple == 0 for family in channels.families)
    values: Values = {n: np.where(masks[n], v, 0) if n in masks else v for n, v in objective.dense.items()}
    pruned = with_values(model, values)
    assert int((onnx_values(pruned, "w1") == 0).sum()) == int((~masks["w1"]).sum())


def test_units_cannot_go_below_one_block() -> None:
    data = samples((3, 6, 6))
    graph, found, objective = objective_of(convolutions(), data)
    choice = UnitChoice(objective, StaticGraph(graph), Channels(graph, found), 0.01, True, 8, RNG(0))
    with pytest.raises(InputError, match="cannot go below 100%"):
        choice(1.0, objective.dense, {})


def onnx_values(model: object, name: str) -> np.ndarray:
    import onnx  # noqa: PLC0415

    tensors = {t.name: t for t in model.graph.initializer}  # type: ignore[attr-defined] # a ModelProto
    return np.asarray(onnx.numpy_helper.to_array(tensors[name]))


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_first_rate_does_not_depend_on_the_size_of_weights(scale: float) -> None:
    model, data = mlp(), samples((6,), count=64)
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    scaled = with_values(model, {"w2": np.float32(scale) * values["w2"]})
    assert first_rate(objective_of(scaled, data)[2], 0) == pytest.approx(
        first_rate(objective_of(model, data)[2], 0), rel=1e-4
    )


def test_a_first_step_of_random_sign_moves_the_objective_by_what_is_allowed() -> None:
    _, _, objective = objective_of(convolutions(), samples((3, 6, 6), count=128))
    rate, rng, losses = first_rate(objective, 0), RNG(7), []
    for _ in range(200):
        values = {
            name: (dense + rate * np.sqrt((dense**2).mean()) * rng.choice([-1, 1], dense.shape)).astype(np.float32)
            for name, dense in objective.dense.items()
        }
        losses.append(objective.loss(values, objective.data))
    assert 0.3 < np.mean(losses) / MOVED < 3
