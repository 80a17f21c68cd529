"""``onnxprune regions`` and its sub-commands: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from tests.helpers import command, dense, parse
from tests.regions.test_count import THREE_LINES, random_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with models and three points."""
    (tmp_path / "lines.onnx").write_bytes(THREE_LINES.SerializeToString())
    (tmp_path / "net.onnx").write_bytes(random_model(1).SerializeToString())
    (tmp_path / "tanh.onnx").write_bytes(parse("y = Tanh (x)", outputs="float[N,4] y").SerializeToString())
    for name, point in {"a": (-1, -1), "b": (1, -1), "c": (-1, 1), "wide": (1, 2, 3)}.items():
        np.save(tmp_path / f"{name}.npy", np.array(point, np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_counts_and_reports(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, "regions", "lines.onnx", "--domain", "-1:1", "--report", "r.json")
    assert (ran.code, ran.err) == (0, "")
    assert "6 cells (exact)" in ran.out
    assert "95 %" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 100
    report = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    assert (report["exact"], report["definition"], report["method"], report["seed"]) == (6, "cells", "auto", 0)
    assert set(report["bounds"]) == {"trivial", "montufar", "serra", "empirical"}
    assert set(report["estimate"]) == {"value", "stderr", "lower95"}
    ran = command(capsys, "regions", "lines.onnx", "--domain", "-1:1", "--report", "-", "--method", "bounds", "-q")
    assert (json.loads(ran.out)["exact"], ran.err) == (None, "")


def test_a_count_goes_on_from_what_a_stopped_one_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "large.onnx").write_bytes(random_model(1, 3, (8, 8)).SerializeToString())
    whole = onnxprune.count_regions("large.onnx", "-1:1", method="exact")["exact"]
    kept = folder / "parts.jsonl"

    def after_some_parts() -> bool:
        return kept.exists() and kept.read_text(encoding="utf-8").count("\n") > 3

    stopped = onnxprune.count_regions("large.onnx", "-1:1", method="exact", store=kept, stopped=after_some_parts)
    parts = kept.read_text(encoding="utf-8").splitlines()
    assert 3 < len(parts) < 20
    assert stopped["lower"] < whole < stopped["upper"]
    ran = command(capsys, *"regions large.onnx --domain -1:1 --method exact --store parts.jsonl".split())
    assert ran.code == 0
    assert f"{whole} cells (exact)" in ran.out
    assert kept.read_text(encoding="utf-8").splitlines()[: len(parts)] == parts


@pytest.mark.parametrize("text", [b"notes", b"notes\n", b"\xff\xfe\n"])
def test_a_file_that_holds_something_else_is_left_alone(
    text: bytes, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "notes").write_bytes(text)
    ran = command(capsys, *"regions net.onnx --domain -1:1 --store notes".split())
    assert ran.code == 2
    assert "holds another count" in ran.err
    assert (folder / "notes").read_bytes() == text


def test_compares(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, "regions", "diff", "net.onnx", "net.onnx", "--domain", "-1:1", "--report", "d.json")
    assert (ran.code, ran.err) == (0, "")
    assert "correspond one to one (exact); 0 of" in ran.out
    assert json.loads((folder / "d.json").read_text(encoding="utf-8"))["same"] is True


@pytest.mark.parametrize("target", ["s.svg", "s.html"])
def test_draws(target: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(
        capsys, "regions", "slice", "lines.onnx", "--through", "a.npy", "b.npy", "c.npy", "-o", target, "--margin", "0"
    )
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("6 linear regions on the slice")
    assert "<svg" in (folder / target).read_text(encoding="utf-8")


@pytest.mark.parametrize("part", ["", "diff", "slice"])
def test_help(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, *f"regions {part} --help".split())
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.out.splitlines()) <= 50
    assert f"example:\n  onnxprune regions {part}" in ran.out


THROUGH = "--through a.npy b.npy c.npy"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("regions nowhere.onnx --domain 0:1", "No such file"),
        ("regions lines.onnx", "finite box"),
        ("regions lines.onnx --domain 2:1", "domain"),
        ("regions tanh.onnx --domain 0:1", "piecewise linear"),
        ("regions lines.onnx --domain -1:1 --method mip --definition affine", "affine"),
        ("regions lines.onnx --domain -1:1 --report lines.onnx", "overwrite"),
        ("regions lines.onnx --domain -1:1 --store lines.onnx", "overwrite"),
        ("regions lines.onnx --domain -1:1 --store missing/parts", "missing"),
        ("regions lines.onnx --domain -1:1 --store parts --method probe", "no parts"),
        ("regions diff net.onnx tanh.onnx --domain -1:1", "piecewise linear"),
        (f"regions slice lines.onnx {THROUGH} -o s.jpg", ".svg"),
        (f"regions slice lines.onnx {THROUGH} -o missing/s.svg", "missing"),
        ("regions slice lines.onnx --through a.npy a.npy c.npy -o s.svg", "one line"),
        ("regions slice lines.onnx --through a.npy b.npy wide.npy -o s.svg", "wide.npy: shape 3"),
        ("regions slice lines.onnx --through a.npy b.npy no.npy -o s.svg", "no.npy"),
        (f"regions slice lines.onnx {THROUGH} -o s.svg --domain 5:6", "misses the domain"),
    ],
)
def test_bad_input_is_one_or_two_lines(
    line: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in folder.iterdir())
    ran = command(capsys, *line.split())
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert len(ran.err.splitlines()) <= 2
    assert sorted(path.name for path in folder.iterdir()) == before


def test_models_with_dead_units(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "dead.onnx").write_bytes(dense().SerializeToString())
    ran = command(capsys, "regions", "dead.onnx", "--domain", "0:1")
    assert ran.code == 0
    assert "5 always off" in ran.out
