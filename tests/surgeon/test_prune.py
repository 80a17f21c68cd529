"""Pruning from end to end: counts, patterns, budgets, figures and reports, each counted again from the result."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import InputError, Interrupted
from onnxprune.graph.cost import macs
from onnxprune.surgeon import latency_budget as budgets
from onnxprune.surgeon.calibration import Calibration
from onnxprune.surgeon.prune import PruneResult
from tests.helpers import parse, run
from tests.surgeon.nets import convolutions
from tests.surgeon.small import CLASSES, HIDDEN, WEIGHTS, data, dense_model, pruned, stored


@pytest.fixture(scope="module")
def ninety() -> PruneResult:
    """The small model with labels at 90 % sparsity."""
    return pruned(samples=data(labelled=True), sparsity=0.9, classify=True, metric=lambda y, t: float(y[0].std()))


def nonzero(model: onnx.ModelProto) -> int:
    return sum(int(np.count_nonzero(values)) for values in stored(model).values())


def test_the_number_of_zeros_is_what_was_asked_for(ninety: PruneResult) -> None:
    report = ninety.report
    assert report["weights"] == {
        "total": WEIGHTS,
        "zeros": WEIGHTS - int(0.1 * WEIGHTS),
        "sparsity": pytest.approx(0.9, abs=2e-3),
    }
    assert sum(layer["zeros"] for layer in report["layers"]) == report["weights"]["zeros"]
    assert [layer["name"] for layer in report["layers"]] == ["h", "y"]


def test_what_is_left_is_what_the_report_says(ninety: PruneResult) -> None:
    after = ninety.report["after"]
    assert after["nonzero"] == nonzero(ninety.model)
    assert after["params"] == sum(values.size for values in stored(ninety.model).values())
    assert after["bytes"] == ninety.model.ByteSize()
    assert after["macs"] == macs(ninety.model, {"x": (1, 16)})
    units = stored(ninety.model)["w1"].shape[0]
    assert HIDDEN - units == ninety.report["removed_units"] > 0
    onnx.checker.check_model(ninety.model, full_check=True)


def test_quality_is_that_of_the_held_out_samples(ninety: PruneResult) -> None:
    samples = data(labelled=True)
    _, held = Calibration({"x": samples["x"]}, samples["labels"]).split(0)
    dense, found = (run(m, held.inputs)[0].astype(np.float64) for m in (dense_model(), ninety.model))
    quality = ninety.report["quality"]
    assert quality["samples"] == len(held) == ninety.report["calibration"]["held_out"]
    error = np.linalg.norm(found - dense) / np.linalg.norm(dense - dense.mean(axis=0))
    assert quality["relative_error"] == pytest.approx(error, rel=1e-4)
    assert quality["accuracy"] == pytest.approx(100 * (found.argmax(axis=1) == held.labels).mean())
    assert quality["dense_accuracy"] == 100.0
    assert quality["agreement"] == pytest.approx(quality["accuracy"] / 100)
    assert (quality["metric"], quality["dense_metric"]) == pytest.approx((found.std(), dense.std()), rel=1e-4)


def test_the_report_is_plain_and_says_that_the_function_changes(ninety: PruneResult) -> None:
    content = json.loads(ninety.report.to_json())
    assert content["exactness"] == "APPROXIMATE"
    assert (content["method"], content["structure"], content["asked"]) == ("surgeon", "weights", {"sparsity": 0.9})
    assert content["share_of_the_way"] == 1.0
    assert content["calibration"] == {
        "fitted": 54,
        "held_out": 6,
        "sample_bytes": 60 * 16 * 4,
        "feature_bytes": 54 * 4 * (HIDDEN + CLASSES),
        "recomputed": False,
        "labelled": True,
        "labels_used": False,
        "seed": 0,
    }
    assert content["speed"].startswith("Units that became empty are gone")
    assert "no faster" in content["speed"]
    assert content["notes"] == []


def test_published_methods_look_at_weights_as_they_were_trained() -> None:
    rng = np.random.default_rng(0)
    kernels = rng.permutation(np.arange(1, 5))[:, None, None, None] * np.ones((4, 2, 1, 1))
    statistics = {"b": np.zeros(4), "m": np.zeros(4), "v": np.ones(4)}
    scale = 100.0 ** -kernels[:, 0, 0, 0]  # folded into the kernels it would turn their order round
    values = {"w": kernels, "s": scale, **statistics}
    body = "c = Conv(x, w)  y = BatchNormalization(c, s, b, m, v)"
    model = parse(
        body, "float[N,2,3,3] x", "float[N,4,3,3] y", weights={k: v.astype(np.float32) for k, v in values.items()}
    )
    inputs = {"x": rng.normal(size=(40, 2, 3, 3)).astype(np.float32)}
    found = pruned(model, inputs, sparsity=0.5, method="magnitude")
    answers = run(found.model, inputs)[0]
    assert [bool(answers[:, channel].any()) for channel in range(4)] == (kernels[:, 0, 0, 0] > 2).tolist()


def test_the_seed_decides_and_the_original_stays() -> None:
    model = dense_model()
    before = model.SerializeToString()
    first, second, other = (pruned(model, sparsity=0.7, seed=seed) for seed in (1, 1, 2))
    assert model.SerializeToString() == before
    assert first.model.SerializeToString() == second.model.SerializeToString()
    assert first.model.SerializeToString() != other.model.SerializeToString()


def test_a_pattern_holds_in_every_group() -> None:
    found = pruned(structure="2:4")
    for name in ("w1", "w2"):
        groups = (stored(found.model)[name] != 0).reshape(-1, 4)
        assert (groups.sum(axis=1) == 2).all()
    assert found.report["weights"]["sparsity"] == 0.5


def test_units_meet_their_budget_and_their_alignment() -> None:
    model = convolutions()
    samples = {"x": np.random.default_rng(0).normal(size=(20, 3, 6, 6)).astype(np.float32)}
    found = pruned(model, samples, structure="units", macs=0.7, align=4)
    shape = {"x": (1, 3, 6, 6)}
    assert macs(found.model, shape) <= 0.7 * macs(model, shape)
    assert found.report["after"]["macs"] == macs(found.model, shape)
    assert {values.shape[0] % 4 for name, values in stored(found.model).items() if name[0] in "wb"} == {0}
    assert "Whole units are gone" in found.report["speed"]
    assert run(found.model, samples)[0].shape == (20, 4)


def test_parameters_meet_their_budget() -> None:
    found = pruned(params=0.5)
    assert nonzero(found.model) <= 0.5 * found.report["before"]["params"]


def test_a_layer_that_is_kept_keeps_its_weights() -> None:
    found = pruned(sparsity=0.5, keep=["y"])
    assert found.report["kept"] == {"y": "asked to stay"}
    assert found.report["weights"]["total"] == 16 * HIDDEN
    assert np.count_nonzero(stored(found.model)["w2"]) == stored(found.model)["w2"].size


def test_sparse_storage_makes_the_file_smaller_and_is_read_again() -> None:
    options: dict[str, Any] = {"sparsity": 0.9, "method": "magnitude"}
    dense, sparse = pruned(**options), pruned(sparse=True, **options)
    assert sparse.report["sparse_tensors"]
    assert sparse.report["after"]["bytes"] == sparse.model.ByteSize() < dense.model.ByteSize()
    for key in ("params", "nonzero", "macs", "nodes"):
        assert sparse.report["after"][key] == dense.report["after"][key]
    assert "sparse" in sparse.report["speed"].lower()
    np.testing.assert_array_equal(run(sparse.model, data())[0], run(dense.model, data())[0])
    again = pruned(sparse.model, sparsity=0.9, method="magnitude")
    assert again.report["before"]["params"] == dense.report["after"]["params"]
    assert again.report["before"]["bytes"] == sparse.model.ByteSize()


def test_sparse_storage_that_does_not_pay_is_said() -> None:
    found = pruned(sparsity=0.1, method="magnitude", sparse=True)
    assert found.report["sparse_tensors"] == []
    assert any("No tensor is smaller" in note for note in found.report["notes"])


def after(calls: int) -> Callable[[], bool]:
    """A question that says True from some call on."""
    left = iter([False] * calls)
    return lambda: next(left, True)


def test_the_last_finished_stage_is_handed_out() -> None:
    found = pruned(sparsity=0.9, stopped=after(12))
    assert 0 < found.report["share_of_the_way"] < 1
    assert 0 < found.report["weights"]["sparsity"] < 0.9
    assert found.report["weights"]["sparsity"] == pytest.approx(0.9 * found.report["share_of_the_way"], abs=0.01)
    assert "of the way" in found.report["notes"][0]


def test_nothing_is_handed_out_before_the_first_stage() -> None:
    with pytest.raises(Interrupted, match="nothing was written") as caught:
        pruned(sparsity=0.9, stopped=lambda: True)
    assert caught.value.exit_code == 130


def test_what_it_will_keep_in_memory_is_said_before_it_starts() -> None:
    said: list[str] = []
    pruned(sparsity=0.5, method="magnitude", progress=said.append)
    line = f"60 samples, 4 kB; features kept: {round(54 * 4 * (HIDDEN + CLASSES) / 1000)} kB"
    assert line in said
    assert said.index(line) < said.index("removing what is empty")


def test_labels_that_are_not_used_are_mentioned() -> None:
    found = pruned(samples=data(labelled=True), sparsity=0.5, method="magnitude")
    assert any("--task classify" in note for note in found.report["notes"])


def fake_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latency in proportion to the multiply-adds, and no less than a fifth."""

    class Measured:
        def __init__(self, models: dict[str, onnx.ModelProto]) -> None:
            work = {name: macs(model, {"x": (1, 16)}) for name, model in models.items()}
            self.times = {name: np.full(7, 0.2 + 0.8 * n / work["original"]) for name, n in work.items()}

    monkeypatch.setattr(budgets, "measure", lambda models, feeds, **rest: Measured(models))


def test_a_latency_becomes_the_share_of_multiply_adds_that_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_latency(monkeypatch)
    found = pruned(structure="units", latency=0.7, align=1)
    spent = found.report["latency_budget"]
    assert spent["asked"] == 0.7
    # 0.2 + 0.8 m = 0.7; a unit is 1/32 of the multiply-adds
    assert 0.625 - 1 / HIDDEN <= spent["macs"] <= 0.625 + 1 / HIDDEN
    assert spent["expected"] <= 0.7
    assert macs(found.model, {"x": (1, 16)}) <= spent["macs"] * macs(dense_model(), {"x": (1, 16)})


def test_a_latency_out_of_reach_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_latency(monkeypatch)
    with pytest.raises(InputError, match="does not reach 10% of the latency; measured at best: 4"):
        pruned(structure="units", latency=0.1)


def test_a_real_latency_is_measured() -> None:
    found = pruned(structure="units", latency=0.99, align=1)
    assert 0 < found.report["latency_budget"]["expected"] <= 0.99
    assert found.report["after"]["latency_ms"] > 0


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "How much"),
    "percent": ({"sparsity": 90}, "sparsity cannot be 90"),
    "typo": ({"sparsty": 0.9}, "no option 'sparsty'"),
    "structure": ({"sparsity": 0.9, "structure": "unit"}, "structure cannot be 'unit'"),
    "pattern": ({"structure": "4:2"}, "structure cannot be '4:2'"),
    "pattern and sparsity": ({"structure": "2:4", "sparsity": 0.5}, "fixes what stays"),
    "units by sparsity": ({"structure": "units", "sparsity": 0.5}, "one budget"),
    "latency of weights": ({"latency": 0.5}, "do not make a model faster"),
    "method": ({"sparsity": 0.5, "method": "obs"}, "method cannot be 'obs'"),
    "method with macs": ({"macs": 0.5, "method": "cbs"}, "to a sparsity"),
    "keep": ({"sparsity": 0.5, "keep": ["layer9"]}, "no layer with weights: layer9"),
    "keep as text": ({"sparsity": 0.5, "keep": "y"}, "not a list"),
    "align": ({"structure": "units", "macs": 0.5, "align": 3}, "align cannot be 3"),
    "out of reach": ({"structure": "units", "macs": 0.01}, "cannot go below"),
    "everything kept": ({"sparsity": 0.5, "keep": ["h", "y"]}, "no weights that can be pruned"),
    "provider": ({"sparsity": 0.5, "provider": "abacus"}, "abacus"),
}


@pytest.mark.parametrize(("options", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        onnxprune.prune(dense_model(), data(), **options)
    assert message in caught.value.what
    assert caught.value.hint


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(InputError, match="no weights that can be pruned"):
        onnxprune.prune(parse("y = Relu (x)", "float[N,16] x", "float[N,16] y"), data(), sparsity=0.5)
