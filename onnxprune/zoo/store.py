"""Rows on disk: one line of JSON each, only ever appended, so that a killed run goes on where it stood."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.graph.files import check_writable
from onnxprune.zoo.rows import Row

NAME = "results.jsonl"
WORK = ".onnxprune-zoo"
"""Folder, in the output folder, of runs under way."""

_SYNC_SECONDS = 1.0


class ResultStore:
    """The latest row of each model, in memory and in ``results.jsonl`` of the output folder.

    Every append is one write of a whole line, beginning with a line feed: after a torn line the next one still
    stands for itself, and the torn one is skipped when the file is read.

    Raises:
        InputError: The file cannot be read or written.
    """

    def __init__(self, output: Path) -> None:
        self._path = output / NAME
        self._synced = 0.0
        self.by_path: dict[str, Row] = {}
        self._by_key: dict[str, Row] = {}
        check_writable(self._path)
        try:
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
            for line in lines:
                with contextlib.suppress(ValueError):
                    self._learn(Row.from_json(json.loads(line)))
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise InputError(f"Cannot use {self._path}: {error.strerror}.", hint="Choose another folder.") from None

    def append(self, row: Row) -> None:
        """Keep a row.

        Raises:
            EnvironmentFailure: The disk is full, say.
        """
        stored = replace(row, finished_before=False)
        text = f"\n{json.dumps(stored.to_json())}\n".encode()
        try:
            if os.write(self._file, text) != len(text):
                raise OSError("the disk is full")
            if time.monotonic() - self._synced >= _SYNC_SECONDS:
                os.fsync(self._file)
                self._synced = time.monotonic()
        except OSError as error:
            raise EnvironmentFailure(
                f"Cannot write {self._path}: {error.strerror or error}.",
                hint="Free some space and run the same command again: what is finished stays.",
            ) from None
        self._learn(stored)

    def result_of(self, key: str) -> Row | None:
        """A finished row with this key, of whatever path."""
        return self._by_key.get(key)

    def close(self) -> None:
        """Bring everything to the disk."""
        with contextlib.suppress(OSError):
            os.fsync(self._file)
        os.close(self._file)

    def _learn(self, row: Row) -> None:
        self.by_path[row.path] = row
        if row.status.good and not row.early and not (row.same_as and row.key in self._by_key):
            self._by_key[row.key] = row


@contextmanager
def run_folder(output: Path) -> Iterator[Path]:
    """A folder for one run over an output folder, which nobody else uses meanwhile.

    What earlier runs left behind is removed; jobs of theirs that still run somewhere end then.

    Raises:
        InputError: Another run is at work there, or the folder cannot be written.
    """
    work = output / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = os.open(work / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(f"Cannot write {output}: {error.strerror}.", hint="Choose another output folder.") from None
    try:
        if not _locked(lock):
            raise InputError(f"Another run is at work in {output}.", hint="Let it end, or choose another folder.")
        for left in work.iterdir():
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=work))
        folder.chmod(0o755)  # workers may belong to another user of the group
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _locked(file: int) -> bool:
    """Lock a file for this process as long as it is open; False when another process has done so."""
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415 - not elsewhere

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # noqa: PLC0415 - not on Windows

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return sys.platform != "win32"  # a file system without locks: nothing is known
    return True
