"""The benchmark of pruning: images, cases, rows, tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.benchmarks.surgeon.cases import GROUPS, METHODS, SEEDS, Case, cases
from tests.benchmarks.surgeon.images import drawn, prepared, unseen
from tests.benchmarks.surgeon.measurement import cosine, shortcuts
from tests.benchmarks.surgeon.pruning_table import append, markdown, means, read
from tests.benchmarks.surgeon.references import MLPNET, best_paper, reference
from tests.benchmarks.surgeon.run import main
from tests.helpers import parse

SIDE, PER_CLASS = 28, 10


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """A network under the name of MLPNet, and pictures of two classes under the name of MNIST."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(SIDE * SIDE, 4)).astype(np.float32),
        "v": rng.normal(size=(4, 2)).astype(np.float32),
    }
    body = "f = Flatten(image)  g = Gemm(f, w)  h = Relu(g)  y = Gemm(h, v)"
    model = parse(body, f"float[N,1,{SIDE},{SIDE}] image", "float[N,2] y", weights)
    onnx.save(model, tmp_path / "mlpnet_mnist.onnx")
    told = {"preprocessing": {"mean": [0.5], "std": [0.25]}}
    (tmp_path / "mlpnet_mnist.json").write_text(json.dumps(told), encoding="utf-8")
    arrays: dict[str, Any] = {}
    for part in ("train", "test"):
        arrays[f"x_{part}"] = rng.integers(0, 256, (2 * PER_CLASS, SIDE, SIDE)).astype(np.uint8)
        arrays[f"y_{part}"] = np.arange(2 * PER_CLASS, dtype=np.uint8) % 2
    np.savez(tmp_path / "mnist.npz", **arrays)
    return tmp_path / "mlpnet_mnist.onnx", tmp_path / "mnist.npz"


def test_images_are_normalised_and_drawn_by_seed(places: tuple[Path, Path]) -> None:
    model, data = places
    pixels = np.full((1, SIDE, SIDE), 255, dtype=np.uint8)
    assert prepared(pixels, model) == pytest.approx((1 - 0.5) / 0.25)
    assert prepared(pixels, model).shape == (1, 1, SIDE, SIDE)
    first, again, other = (drawn(model, data, 8, seed).values for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(first.reshape(8, -1), axis=0)) == 8
    assert len(unseen(model, data).labels) == 2 * PER_CLASS
    model.with_suffix(".json").unlink()
    assert prepared(pixels, model) == pytest.approx(1.0)


def test_finished_results_are_not_repeated(places: tuple[Path, Path], tmp_path: Path) -> None:
    folder, out = str(places[0].parent), tmp_path / "out"
    command = [folder, folder, "--out", str(out), "mlpnet", "--methods", "magnitude", "--seeds"]
    assert main([*command, "0", "--limit-seconds", "0"]) == 0
    few = read(out / "rows.jsonl")
    assert len(few) < len(cases(["mlpnet"], ["magnitude"], [0]))
    assert main([*command, "0"]) == 0
    rows = read(out / "rows.jsonl")
    assert rows[: len(few)] == few
    assert len(rows) == 7
    before = (out / "rows.jsonl").read_bytes()
    assert main([*command, "0"]) == 0
    assert (out / "rows.jsonl").read_bytes() == before
    for row in rows:
        append(out / "rows.jsonl", {**row, "seed": 1, "accuracy": row["accuracy"] + 2})
    assert main([*command, "0", "1"]) == 0
    found = means(read(out / "rows.jsonl"))
    assert [row["seeds"] for row in found] == [2] * 7
    half = found[0]
    assert half["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert half["weights"] == SIDE * SIDE * 4 + 8
    assert (half["least"], half["greatest"]) == (rows[0]["accuracy"], rows[0]["accuracy"] + 2)
    assert half["accuracy"] == pytest.approx(rows[0]["accuracy"] + 1)
    assert half["published"] == 93.93
    text = (out / "table.md").read_text(encoding="utf-8")
    assert "MLPNet, MNIST (mlpnet): 1,000 calibration images" in text
    assert text.count("| magnitude |") == 7
    assert len((out / "table.csv").read_text(encoding="utf-8").splitlines()) == 8
    with pytest.raises(SystemExit):
        main([folder, folder, "--out", str(out), "mlpnets"])


def test_keys_tell_cases_apart_and_options_say_what_is_asked() -> None:
    found = cases(list(GROUPS), METHODS, SEEDS)
    assert len({case.key for case in found}) == len(found)
    assert [(case.images, case.seed) for case in found] == sorted((case.images, case.seed) for case in found)
    half = Case("units", "resnet", "surgeon", "macs 0.5", 1000, 2, labels=False).options()
    assert (half["structure"], half["macs"], half["seed"]) == ("units", 0.5, 2)
    assert "sparsity" not in half
    assert Case("pattern", "mlpnet", "surgeon", "2:4", 1000, 0, labels=False).options()["structure"] == "2:4"


def test_figures_to_compare_with() -> None:
    assert (
        reference("mlpnet", "cbs", "sparsity 0.9", 1000) == MLPNET["cbs"][0.9] == best_paper("mlpnet", "sparsity 0.9")
    )
    assert reference("mlpnet", "surgeon", "sparsity 0.98", 10_000) == 90.66
    assert reference("mlpnet", "cbs", "sparsity 0.98", 10_000) is None
    assert reference("resnet", "surgeon", "2:4", 1000) is None
    assert best_paper("transformer", "sparsity 0.5") is None
    assert markdown([]) == ""


def test_shortcuts_are_found_by_their_weights(tmp_path: Path) -> None:
    weights = {"layer.downsample.0.weight": np.ones((2, 2, 1, 1), np.float32), "w": np.ones((2, 2, 1, 1), np.float32)}
    model = parse("c = Conv(x, w)  y = Conv(c, s)", "float[N,2,3,3] x", "float[N,2,3,3] y")
    for tensor, node, name in zip(weights.items(), model.graph.node, ("first", "second"), strict=True):
        node.name, node.input[1] = name, tensor[0]
        model.graph.initializer.append(onnx.numpy_helper.from_array(tensor[1], tensor[0]))
    onnx.save(model, tmp_path / "m.onnx")
    assert shortcuts(tmp_path / "m.onnx") == ["first"]


def test_cosine_of_scores() -> None:
    scores = np.array([[1.0, 0.0], [3.0, 4.0]], np.float32)
    assert cosine(scores, 2 * scores) == pytest.approx(1)
    assert cosine(scores, np.array([[0.0, 1.0], [3.0, 4.0]], np.float32)) == pytest.approx(0.5)
    assert cosine(scores, 0 * scores) == 0
