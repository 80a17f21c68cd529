from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import psutil
import pytest

from onnxprune.zoo import guard
from onnxprune.zoo.job import Job, Limits

STUB = (sys.executable, str(Path(__file__).with_name("stub.py")))


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is really worked on: `tests.zoo.stub` stands in."""
    monkeypatch.setattr(guard, "COMMAND", STUB)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """An empty folder for models."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    return folder


def left() -> list[psutil.Process]:
    """Processes of jobs, or their children, that still live; other tests may have left helpers of other kinds."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("stub.py" in word or "bytearray" in word for word in process.cmdline()):
                found.append(process)
    return found


def job(tmp_path: Path, name: str, limits: Limits | None = None) -> Job:
    """A job for a model of this name, in a run that is wanted."""
    run = tmp_path / "out" / "run"
    run.mkdir(parents=True, exist_ok=True)
    model = tmp_path / name
    model.write_text(name)
    return Job(str(model), name, str(tmp_path / "out"), str(run), "0" * 64, limits=limits or Limits(30), home="/")
