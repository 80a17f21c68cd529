"""Runs one job in a process of its own, within its limits, and moves what it made into place."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from onnxprune.worker_process import THREADS
from onnxprune.zoo.job import FILES, FINISH, OVER, RESULT, Job, is_data_name
from onnxprune.zoo.rows import Row, Status

COMMAND = (sys.executable, "-m", "onnxprune.zoo.child")

_POLL_SECONDS = 0.05
_LOOK_SECONDS = 0.5
"""How often children are counted anew and the folder of the run is looked at, which costs milliseconds."""
_TAIL = 2000


def run_guarded(job: Job) -> Row | None:
    """Do a job; never raises for what the model or its process does.

    The process, with all its children, is killed when it passes a limit, and when the folder of the run vanishes
    or holds `OVER`: that is how a run is given up, on whatever machine its jobs are. What was not moved into place
    is deleted.

    Returns:
        The row; None when the run is not wanted any more.

    Raises:
        OSError: The output folder cannot be written, or no process can be started.
    """
    run = Path(job.run)
    if not _wanted(run) or (run / FINISH).exists():
        return None
    try:
        return _run(job, run)
    except FileNotFoundError:
        if _wanted(run):
            raise
        return None


def _wanted(run: Path) -> bool:
    return run.is_dir() and not (run / OVER).exists()


def _run(job: Job, run: Path) -> Row | None:
    with tempfile.TemporaryDirectory(dir=run, prefix=f"{job.key[:12]}.", ignore_cleanup_errors=True) as staging:
        watched = _Watched(job, Path(staging))
        try:
            content = watched.outcome()
        finally:
            watched.end()
        if content is None or not _wanted(run):
            return None
        known = {"path": job.path, "key": job.key, "domain": job.domain, "worker": platform.node()}
        used = {"seconds": round(watched.seconds, 3), "peak": watched.peak}
        row = Row.from_json(known | content | used)
        return replace(row, files=_publish(job, Path(staging, FILES))) if row.status.good else row


class _Watched:
    """The process of a job."""

    def __init__(self, job: Job, staging: Path) -> None:
        self._job = job
        self._staging = staging
        self._log = staging / "log"
        self._started = time.monotonic()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                COMMAND,
                cwd=staging,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=os.environ | {f"{name}_THREADS": "1" for name in THREADS},
                start_new_session=True,  # Ctrl-C is for the parent to interpret
            )
        self._family: list[psutil.Process] = []
        self._looked = 0.0
        self._finishing = False
        self.peak = 0

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self._started

    def outcome(self) -> dict[str, Any] | None:
        """What a row says of the work; None when it was given up."""
        self._say(self._job.to_json())
        while self._process.poll() is None:
            if time.monotonic() - self._looked >= _LOOK_SECONDS:
                if not _wanted(Path(self._job.run)):
                    return None
                self._look()
            if broken := self._broken():
                return broken
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_POLL_SECONDS)
        with contextlib.suppress(OSError, ValueError):
            content: dict[str, Any] = json.loads((self._staging / RESULT).read_text(encoding="utf-8"))
            return content
        return {"status": Status.FAILED.value, "reason": self._death()}

    def end(self) -> None:
        """Kill what is left of it, children included."""
        self._look_at_family()
        for process in self._family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is dead already: its exit code says more
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def _look(self) -> None:
        self._looked = time.monotonic()
        self._look_at_family()
        if not self._finishing and Path(self._job.run, FINISH).exists():
            self._finishing = True
            self._say(FINISH)

    def _look_at_family(self) -> None:
        with contextlib.suppress(psutil.Error):
            head = psutil.Process(self._process.pid)
            self._family = [*head.children(recursive=True), head]

    def _broken(self) -> dict[str, Any] | None:
        """What to say of a process that is beyond a limit."""
        limits, used = self._job.limits, 0
        for process in self._family:
            with contextlib.suppress(psutil.Error):
                used += process.memory_info().rss
        self.peak = max(self.peak, used)
        if limits.memory is not None and used > limits.memory:
            return {"status": Status.OUT_OF_MEMORY.value, "reason": f"used more than {limits.memory / 1e9:.3g} GB"}
        if limits.seconds is not None and self.seconds > limits.seconds:
            return {"status": Status.TIMED_OUT.value, "reason": f"took more than {limits.seconds:g} s"}
        return None

    def _death(self) -> str:
        """How it ended without a result: its signal or exit code, and the last line it wrote."""
        code = self._process.returncode
        cause = f"its process ended with exit code {code}"
        if code < 0:
            with contextlib.suppress(ValueError):
                cause = f"its process was killed by {signal.Signals(-code).name}"
        if code == -9:
            cause += ", perhaps because the machine ran out of memory"
        lines = self._log.read_bytes()[-_TAIL:].decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f"{cause}: {said[-1]}" if said else cause


def _publish(job: Job, made: Path) -> dict[str, int]:
    """Move the files of a job into place, the model last, so that it never lacks its data.

    Returns:
        Size of each, by path relative to the output folder.
    """
    output = Path(job.output)
    place = (output / job.path).parent
    model = made / Path(job.path).name
    files = sorted((file for file in made.rglob("*") if file.is_file()), key=lambda file: (file == model, file))
    sizes = {}
    for file in files:
        target = place / file.relative_to(made)
        target.parent.mkdir(parents=True, exist_ok=True)
        sizes[target.relative_to(output).as_posix()] = file.stat().st_size
        file.replace(target)
    for left in place.glob(f"{glob.escape(model.name)}.*.data"):
        if is_data_name(left.name, model.name) and left.relative_to(output).as_posix() not in sizes:
            left.unlink()  # weights of an earlier result
    return sizes
