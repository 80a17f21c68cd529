"""``onnxprune zoo``: exit codes, messages, nothing written where nothing can be done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onnxprune.cli.zoo import memory
from onnxprune.zoo import guard
from tests.helpers import command
from tests.zoo.conftest import STUB


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(guard, "COMMAND", STUB)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "a.onnx").write_text("a")
    return folder


def test_one_failure_makes_the_exit_code(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = command(capsys, "zoo", "zoo", "out")
    assert (done.code, done.err) == (0, "")
    assert "1 models in" in done.out
    (zoo / "complain.onnx").write_text("complain")
    done = command(capsys, "zoo", "zoo", "out", "--jobs", "2")
    assert (done.code, done.err) == (1, "")
    assert "failed: complain.onnx: its process ended with exit code 1: no such luck" in done.out
    assert "1 finished before" in done.out
    assert command(capsys, "zoo", "zoo", "out", "-q") == type(done)(1, "", "")
    told = command(capsys, "zoo", "zoo", "out", "--exclude", "comp*", "-v")
    assert told.code == 0
    assert "1/1 optimized: a.onnx" in told.err


def test_limits_reach_the_models(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (zoo / "hang.onnx").write_text("hang")
    (zoo / "hungry.onnx").write_text("hungry")
    done = command(capsys, "zoo", "zoo", "out", "--jobs", "3", "--limit-seconds", "5", "--limit-memory", "200MB")
    assert done.code == 1
    assert "timed out: hang.onnx: took more than 5 s" in done.out
    assert "out of memory: hungry.onnx: used more than 0.2 GB" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing", "out"), "No such folder: missing"),
        (("empty", "out"), "There is no model in empty."),
        (("zoo", "out", "--include", "*.pb"), "There is no model in zoo."),
        (("zoo", "zoo"), "The output folder zoo holds zoo."),
        (("zoo", "file/out"), "Cannot write"),
        (("zoo", "out", "--domains", "missing.json"), "Cannot read missing.json"),
        (("zoo", "out", "--limit-memory", "4"), "is not an amount of memory"),
        (("zoo", "out", "--jobs", "0"), "is not a whole number"),
    ],
)
def test_mistakes(zoo: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    Path("empty").mkdir()
    Path("file").touch()
    failed = command(capsys, "zoo", *arguments)
    assert failed.code == 2
    assert message in failed.err
    assert len(failed.err.splitlines()) <= 3
    assert not Path("out", "results.jsonl").exists()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written(zoo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir(mode=0o555)
    failed = command(capsys, "zoo", "zoo", "out")
    assert failed.code == 2
    assert "Cannot write" in failed.err


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_interrupted_the_rest_is_left(zoo: Path, tmp_path: Path) -> None:
    (zoo / "patient.onnx").write_text("patient")
    (zoo / "z.onnx").write_text("z")
    script = f"from onnxprune.zoo import guard; guard.COMMAND = {STUB!r}; from onnxprune.cli.main import main; "
    script += "raise SystemExit(main(['zoo', 'zoo', 'out']))"
    process = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "a.onnx").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "finishing with what is proved" in said
    assert "2 models are left" in said
    assert (tmp_path / "out" / "patient.onnx").exists()
    assert not (tmp_path / "out" / "z.onnx").exists()


@pytest.mark.parametrize(
    ("text", "expected"), [("4GB", 4 * 10**9), ("1.5 gb", 15 * 10**8), ("512MiB", 2**29), ("0", 0)]
)
def test_amounts_of_memory(text: str, expected: int) -> None:
    assert memory(text) == expected
