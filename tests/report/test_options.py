"""``--html`` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.helpers import command, dense, snapshot
from tests.report.support import Elements
from tests.surgeon.small import data, dense_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two models and samples."""
    onnx.save(dense(), tmp_path / "model.onnx")
    onnx.save(dense_model(), tmp_path / "wide.onnx")
    np.savez(tmp_path / "data.npz", **data())  # type: ignore[arg-type] # arrays by name
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMANDS = {
    "optimize": ("optimize", "model.onnx", "out.onnx", "--budget", "0"),
    "inspect": ("inspect", "model.onnx", "--budget", "0"),
    "prune": ("prune", "wide.onnx", "out.onnx", "--data", "data.npz", "--sparsity", "0.5", "--method", "magnitude"),
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_page_is_written_beside_the_report(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    ran = command(capsys, *arguments, "--html", "page.html", "--report", "r.json")
    assert ran.code == 0
    words = " ".join(Elements((folder / "page.html").read_text(encoding="utf-8")).texts)
    report = json.loads((folder / "r.json").read_text())
    assert report["model"]["sha256"] in words
    assert arguments[1] in words


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("html", "told"),
    [
        ("r.json", "the same file"),
        ("-", "takes the name of a file"),
        ("nowhere/page.html", "folder of the output does not exist"),
        ("data.npz/page.html", "folder"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], html: str, told: str
) -> None:
    before = snapshot(folder)
    ran = command(capsys, *arguments, "--html", html, "--report", "r.json")
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert snapshot(folder) == before


def test_a_page_does_not_replace_the_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for taken in ("model.onnx", "out.onnx"):
        ran = command(capsys, *COMMANDS["optimize"], "--html", taken)
        assert (ran.code, "--html" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--certificate", "c.json", "--report", "c.json"], "--certificate and --report name the same file"),
        (["--certificate", "c.json", "--html", "./c.json"], "--certificate and --html name the same file"),
        (["--certificate", "-"], "--certificate takes the name of a file"),
        (["--certificate", "model.onnx"], "--certificate model.onnx would overwrite a model"),
    ],
)
def test_files_do_not_replace_each_other(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    before = snapshot(folder)
    ran = command(capsys, *COMMANDS["optimize"], *options)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert snapshot(folder) == before
