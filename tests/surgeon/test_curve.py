"""Curves: their points, what is kept of them, and that nothing is done twice."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxprune.errors import InputError, Interrupted
from onnxprune.graph.files import Source, load
from onnxprune.surgeon import curve
from onnxprune.surgeon.curve import levels, prepared, sweep
from onnxprune.surgeon.options import PruneOptions
from onnxprune.surgeon.prune import prune_source
from tests.surgeon.small import data, dense_model

POINTS = (0.5, 0.9)


@pytest.mark.parametrize(
    ("text", "structure", "wanted"),
    [
        ("0.5:0.98", "weights", (0.5, 0.7373, 0.862, 0.9275, 0.9619, 0.98)),
        ("0.98:0.5:2", "weights", (0.5, 0.98)),
        ("0.8:0.2:3", "units", (0.8, 0.4, 0.2)),
    ],
)
def test_points_are_in_equal_ratios_of_what_is_left(text: str, structure: str, wanted: tuple[float, ...]) -> None:
    assert levels(text, structure) == wanted


@pytest.mark.parametrize("text", ["0.5", "0.5:", "0.5:1.5", "0.5:0.5", "0.5:0.9:1", "0.5:0.9:x", "a:b", "0:0.5:3:4"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--sweep cannot be"):
        levels(text, "weights")


def test_a_pattern_has_nothing_to_sweep() -> None:
    with pytest.raises(InputError, match="nothing to sweep"):
        levels("0.5:0.9", "2:4")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        prepared(tmp_path / "file")
    with pytest.raises(InputError, match="Cannot make"):
        prepared(tmp_path / "missing" / "folder")
    assert prepared(tmp_path / "new").is_dir()


def source() -> Source:
    return load(dense_model())


def options(**changes: Any) -> PruneOptions:
    return PruneOptions(**{"sparsity": 0.5, "method": "magnitude", "threads": 1, "classify": True, **changes})


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was pruned to; no picture is drawn, which takes longer than the rest."""
    monkeypatch.setattr(curve, "picture", lambda name, rows: b"")
    asked: list[float] = []
    inner = prune_source

    def counting(source: Source, data: Any, options: PruneOptions) -> Any:
        asked.append(options.sparsity or options.macs or 0.0)
        return inner(source, data, options)

    monkeypatch.setattr(curve, "prune_source", counting)
    return asked


def test_every_point_is_written_and_not_repeated(tmp_path: Path, count: list[float]) -> None:
    samples = data(labelled=True)
    first = sweep(source(), samples, options(), POINTS[:1], tmp_path)
    second = sweep(source(), samples, options(), POINTS, tmp_path)
    assert count == [0.5, 0.9]
    assert (first.resumed, second.resumed) == (0, 1)
    rows = list(csv.DictReader((tmp_path / "curve.csv").read_text().splitlines()))
    assert [float(row["asked"]) for row in rows] == list(POINTS)
    for level, row, report in zip(POINTS, rows, second.reports, strict=True):
        model = onnx.load(tmp_path / f"sparsity_{level:.4f}.onnx")
        assert int(row["bytes"]) == model.ByteSize() == report["after"]["bytes"]
        assert json.loads((tmp_path / f"sparsity_{level:.4f}.json").read_text()) == report
        assert float(row["sparsity"]) == pytest.approx(level, abs=2e-3)
        assert float(row["dense_accuracy"]) == 100.0
    assert second.picture == tmp_path / "curve.png"


def test_other_options_or_samples_are_another_curve(tmp_path: Path, count: list[float]) -> None:
    runs: list[tuple[Any, PruneOptions]] = [
        (data(), options()),
        (data(), options(seed=1)),
        (data(40), options(seed=1)),
        (data(40), options(seed=1)),
    ]
    for samples, chosen in runs:
        sweep(source(), samples, chosen, POINTS[:1], tmp_path)
    assert len(count) == 3


def test_a_damaged_point_is_done_again(tmp_path: Path, count: list[float]) -> None:
    sweep(source(), data(), options(), POINTS[:1], tmp_path)
    (tmp_path / "sparsity_0.5000.json").write_text("{")
    sweep(source(), data(), options(), POINTS[:1], tmp_path)
    (tmp_path / "sparsity_0.5000.onnx").unlink()
    sweep(source(), data(), options(), POINTS[:1], tmp_path)
    assert len(count) == 3


def test_units_sweep_the_multiply_adds(tmp_path: Path) -> None:
    chosen = PruneOptions(structure="units", macs=0.5, align=1, steps=20, threads=1)
    found = sweep(source(), data(), chosen, (0.75, 0.5), tmp_path)
    spent = [row["macs"] / found.reports[0]["before"]["macs"] for row in found.rows()]
    assert spent[0] <= 0.75
    assert spent[1] <= 0.5
    assert (tmp_path / "macs_0.7500.onnx").is_file()
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_point_is_no_point(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        sweep(source(), data(), options(stopped=lambda: True), POINTS, tmp_path)
    assert not list(tmp_path.iterdir())
    stop = False

    def note(text: str) -> None:
        nonlocal stop
        stop = stop or text.startswith("point 2")

    found = sweep(source(), data(), options(progress=note, stopped=lambda: stop), POINTS, tmp_path)
    assert found.levels == (0.5,)
    assert not (tmp_path / "sparsity_0.9000.onnx").exists()


def test_without_matplotlib_there_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    found = sweep(source(), data(), options(), POINTS[:1], tmp_path)
    assert found.picture is None
    assert not (tmp_path / "curve.png").exists()
    assert (tmp_path / "curve.csv").is_file()
