"""One job in a process of its own: every way it can end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from onnxprune.zoo.guard import COMMAND, run_guarded
from onnxprune.zoo.job import FINISH, OVER, Limits
from onnxprune.zoo.rows import Row, Status
from tests.helpers import dense
from tests.zoo.conftest import job, left

pytestmark = pytest.mark.usefixtures("stubbed")
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")


def ran(tmp_path: Path, name: str, limits: Limits | None = None) -> Row:
    row = run_guarded(job(tmp_path, name, limits))
    assert row is not None
    assert not list((tmp_path / "out" / "run").iterdir()), "nothing is left of the process"
    assert not left(), "no process is left"
    return row


def test_a_result_is_moved_into_place(tmp_path: Path) -> None:
    row = ran(tmp_path, "good.onnx")
    assert row.status is Status.OPTIMIZED
    assert row.files == {"good.onnx": 9, "good.onnx.report.json": 2}
    assert row.change("params") == -0.5
    assert row.intact(tmp_path / "out")
    assert 0 < row.seconds < 30
    (tmp_path / "out" / "good.onnx").write_text("shorter")
    assert not row.intact(tmp_path / "out")


def test_weights_of_an_earlier_result_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    others = {"other.onnx.0123456789ab.data", "good.onnx.data", "good.onnx.0123456789.data"}
    for name in {"good.onnx.0123456789ab.data", *others}:
        (out / name).write_text("")
    ran(tmp_path, "good.onnx")
    assert {path.name for path in out.glob("*.data")} == others


@posix
def test_a_crash_is_a_row(tmp_path: Path) -> None:
    row = ran(tmp_path, "crash.onnx")
    assert (row.status, row.reason) == (Status.FAILED, "its process was killed by SIGSEGV")
    assert not (tmp_path / "out" / "crash.onnx").exists()


def test_last_words_are_the_reason(tmp_path: Path) -> None:
    assert ran(tmp_path, "complain.onnx").reason == "its process ended with exit code 1: no such luck"


def test_time_is_limited(tmp_path: Path) -> None:
    row = ran(tmp_path, "hang.onnx", Limits(0.3))
    assert (row.status, row.reason) == (Status.TIMED_OUT, "took more than 0.3 s")
    assert row.seconds < 10


@pytest.mark.parametrize("name", ["hungry.onnx", "parent.onnx"])
def test_memory_is_limited_children_included(tmp_path: Path, name: str) -> None:
    row = ran(tmp_path, name, Limits(30, memory=200_000_000))
    assert (row.status, row.reason) == (Status.OUT_OF_MEMORY, "used more than 0.2 GB")
    assert row.peak > 200_000_000


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"memory": -1}, {"seconds": float("nan")}])
def test_limits_that_cannot_be_meant(limits: dict[str, float]) -> None:
    with pytest.raises(Exception, match="cannot be"):
        Limits(**limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("sign", [FINISH, OVER, None])
def test_nothing_starts_in_a_run_that_is_over(tmp_path: Path, sign: str | None) -> None:
    task = job(tmp_path, "good.onnx")
    if sign is None:
        Path(task.run).rmdir()
    else:
        Path(task.run, sign).touch()
    assert run_guarded(task) is None
    assert not (tmp_path / "out" / "good.onnx").exists()


def test_asked_for_an_end_a_job_ends_with_what_it_has(tmp_path: Path) -> None:
    task = job(tmp_path, "patient.onnx")
    timer = threading.Timer(0.3, Path(task.run, FINISH).touch)
    timer.start()
    row = run_guarded(task)
    timer.join()
    assert row is not None
    assert row.early
    assert (tmp_path / "out" / "patient.onnx").exists()


def test_a_run_given_up_ends_its_jobs(tmp_path: Path) -> None:
    task = job(tmp_path, "hang.onnx")
    timer = threading.Timer(0.3, Path(task.run, OVER).touch)
    timer.start()
    assert run_guarded(task) is None
    timer.join()
    assert not left()


class TestRealProcess:
    """The process itself, without its guard."""

    def start(self, tmp_path: Path) -> subprocess.Popen[bytes]:
        task = job(tmp_path, "model.onnx")
        Path(task.model).write_bytes(dense().SerializeToString())
        staging = tmp_path / "staging"
        staging.mkdir()
        process = subprocess.Popen(COMMAND, cwd=staging, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdin is not None
        process.stdin.write(f"{task.to_json()}\n".encode())
        process.stdin.flush()
        return process

    def test_it_ends_with_its_parent(self, tmp_path: Path) -> None:
        process = self.start(tmp_path)
        time.sleep(0.1)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 1
        assert not (tmp_path / "staging" / "result.json").exists()

    def test_it_hears_that_it_is_to_end_early(self, tmp_path: Path) -> None:
        process = self.start(tmp_path)
        assert process.stdin is not None
        process.stdin.write(b"finish\n")
        process.stdin.flush()
        assert process.wait(60) == 0
        process.stdin.close()
        assert '"early": true' in (tmp_path / "staging" / "result.json").read_text()
