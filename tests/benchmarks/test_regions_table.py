"""The benchmark of linear regions: its training loop and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.regions import RegionNetwork
from tests.benchmarks.regions import anytime, peers, slices, speed
from tests.benchmarks.regions.pictures import plot, plot_networks
from tests.benchmarks.regions.table import Row, markdown, read_csv, row_of, verdicts, write_csv
from tests.benchmarks.regions.training import gradients, to_model, train
from tests.benchmarks.regions.versus import FIELDS, compared, runs_needed


def test_gradients_are_slopes() -> None:
    rng = np.random.default_rng(0)
    parameters = [rng.normal(size=s) for s in ((3, 4), (3,), (2, 3), (2,))]
    images, labels = rng.normal(size=(5, 4)), np.array([0, 1, 1, 0, 1])

    def loss() -> float:
        hidden = np.maximum(images @ parameters[0].T + parameters[1], 0)
        scores = hidden @ parameters[2].T + parameters[3]
        return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(5), labels]))

    for values, slopes in zip(parameters, gradients(parameters, images, labels), strict=True):
        index = (0,) * values.ndim
        before, step = loss(), 1e-6
        values[index] += step
        assert (loss() - before) / step == pytest.approx(slopes[index], abs=1e-4)
        values[index] -= step


def test_a_trained_network_becomes_a_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.random((400, 3))
    labels = (images[:, 0] > images[:, 1]).astype(np.int64)
    layers = train(images, labels, [4, 3], epochs=150)
    hidden = images
    for weights, bias in layers[:-1]:
        hidden = np.maximum(hidden @ weights.T + bias, 0)
    assert ((hidden @ layers[-1][0].T + layers[-1][1]).argmax(axis=1) == labels).mean() > 0.9
    row = row_of("4-3", 0, "exact", onnxprune.count_regions(to_model(layers), "0:1", method="exact"))
    assert row.count is not None
    assert row.serra is not None
    assert row.empirical is not None
    assert row.count <= row.empirical
    rows = [row, Row("4-3", "relucent", count=row.count, found=row.count), Row("4-3", "mip", "time", found=2.0)]
    write_csv(rows, tmp_path / "r.csv")
    assert [str(r) for r in read_csv(tmp_path / "r.csv")] == [str(r) for r in map(_floats, rows)]
    assert read_csv(tmp_path / "none.csv") == []
    text = markdown(rows)
    assert "counts agree" in text
    assert text.count("| 4-3 |") == 4  # once over all seeds, once for each counter
    pytest.importorskip("matplotlib")
    plot(rows, tmp_path / "r.png")
    plot_networks([row, Row("4-3", "probe", estimate=row.count, lower95=1.0)], tmp_path / "n.png")
    for name in ("r.png", "n.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def _floats(row: Row) -> Row:
    values: dict[str, Any] = {
        name: float(v) if isinstance(v, int) and name != "seed" else v for name, v in vars(row).items()
    }
    return Row(**values)


def test_contradictions_are_named() -> None:
    rows = [Row("2-2", "exact", count=5), Row("2-2", "mip", count=4), Row("2-2", "probe", lower95=9.0)]
    told = "\n".join(verdicts(rows))
    assert "COUNTS DIFFER (exact 5, mip 4)" in told
    assert "bound of probe is wrong" in told
    assert "0 of 1 bounds with 95 % hold" in told


def test_the_exact_tail_needs_fewer_runs_than_the_chernoff_form() -> None:
    assert runs_needed(1, 0.995) == (8, 28)
    assert runs_needed(1, 0.95) == (5, 16)
    assert runs_needed(0.5, 0.95) == (9, 56)


def test_lower_bounds_against_one_another() -> None:
    network = RegionNetwork.of_layers([(np.eye(3), np.full(3, -0.5))], np.zeros(3), np.ones(3))
    row = compared(network, 1, 10.0)
    assert float(row["parity"]) <= 8
    assert float(row["probe"]) <= 8
    assert list(row) == FIELDS[1:]


def test_counters_against_one_another(tmp_path: Path) -> None:
    network = RegionNetwork.of_layers([(np.eye(2), np.full(2, -0.5))], np.zeros(2), np.ones(2))
    rows = peers.with_onnxprune("2-2", network, 10.0)
    assert [(row.method, row.status, row.count) for row in rows] == [("exact", "ok", 4), ("mip", "ok", 4)]
    assert speed.counted(network)[0] == 4
    assert "of 4 parts 25.0%" in speed.two_processes(network)


def test_images_with_fewer_pixels() -> None:
    images = np.random.default_rng(0).random((2, 784))
    assert peers.averaged(images, 784).tolist() == images.tolist()
    assert peers.averaged(images, 16)[1, 4] == pytest.approx(images[1].reshape(28, 28)[7:14, :7].mean())
    assert peers.averaged(images, 64)[0, 0] == pytest.approx(images[0].reshape(28, 28)[2:5, 2:5].mean())


def test_intervals_and_slices_of_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = [(np.array([[1.0, 0.0], [0.0, 1.0]]), np.full(2, -0.5)), (np.ones((2, 2)), np.zeros(2))]
    model, path = to_model(layers), tmp_path / "grid.onnx"
    path.write_bytes(model.SerializeToString())
    assert anytime.main([str(path), f"{path}@-inf:inf", "--budget", "5"]) == 0
    found, refused = capsys.readouterr().out.splitlines()[2:]
    assert found.startswith("| grid.onnx | 2 | 2.0 | 4 | 2.0 | 0.0 |")
    assert found.endswith("| yes |")
    assert "finite box" in refused
    pytest.importorskip("matplotlib")
    slices.drawn(model, [np.array(p) for p in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))], 0.0, tmp_path / "grid")
    assert capsys.readouterr().out.startswith("grid: 4 regions")
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["grid_cell.png", "grid_class.png"]
