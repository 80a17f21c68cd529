"""Claims on disk: one file per model and domain, only ever appended to, shared by all runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from onnxprune.certificate.claims import Claim, Record, from_line, to_line

if TYPE_CHECKING:
    from onnxprune.domain import Domain

FORMAT = 1
"""Version of the files. Raise it as well when claims of earlier versions must not be believed any more."""

UNUSED_DAYS = 90
VARIABLE = "ONNXPRUNE_CACHE"

_MAGIC = b"onnxprune-claims/"
_LINE = re.compile(rb"onnxprune-claims/(\d{1,9}) ([0-9a-f]{16}) (.*)")
_NAME = re.compile(r"[0-9a-f]+\.jsonl")
_SYNC_SECONDS = 1.0
_WRITE_BYTES = 1 << 20

_Slot = tuple[str, ...]


def default_folder() -> Path | None:
    """Where claims are kept: in the user's cache, or below the folder that ONNXPRUNE_CACHE names.

    Returns:
        None when that variable is set to an empty text, or when the user has no home.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        return Path(os.path.expanduser(chosen)).absolute() / "claims" if chosen else None
    from platformdirs import user_cache_path  # noqa: PLC0415 - only needed here

    folder = user_cache_path("onnxprune", appauthor=False) / "claims"
    return folder if folder.is_absolute() else None


def store_key(model_hash: str, domain: Domain) -> str:
    """Name of the claims about a model over a domain: SHA-256, in hex.

    Args:
        model_hash: Hash of the tidied canonical graph, weights included.
        domain: The domain; equal sets of inputs written the same way have the same key.
    """
    text = json.dumps([FORMAT, model_hash, domain.to_metadata()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class ClaimStore:
    """Claims and refutations about one model over one domain, kept in memory and in ``<folder>/<key>.jsonl``.

    Several processes may use the same file at once. Every append is written at once, in whole lines, and reaches
    the disk itself at most a second later than it could: a killed run loses nothing. Each line carries a checksum
    over its text and the key; a line that is torn, damaged or of another file is skipped. A store that cannot use
    its file never stops a run: it goes on in memory and says so in ``notes``.

    Whoever can write to the folder can add claims: keep it as private as the models.

    Attributes:
        path: The file; None when nothing is kept on disk.
        notes: Sentences for the user.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        if not re.fullmatch(r"[0-9a-f]+", key):
            raise ValueError(f"key cannot be {key!r}: it is a hex text")
        self.path = folder / f"{key}.jsonl" if folder is not None else None
        self.notes: list[str] = []
        self._key = key
        self._best: dict[_Slot, Record] = {}
        self._file: int | None = None
        self._synced = -math.inf
        self._unsynced = False
        if self.path is not None:
            _touch(self.path)
            _remove_unused(self.path.parent)
            self._read()

    def __enter__(self) -> ClaimStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def load(self) -> list[Record]:
        """All that is known by now, other processes' lines included.

        Of several records about the same side of a unit the strongest is returned; where the strongest claim
        rests on a solver's word, the strongest certified one as well.
        """
        self._read()
        return [record for record in self._best.values() if not self._is_implied(record)]

    def append(self, records: Iterable[Record]) -> None:
        """Keep records; those that say no more than is known already are left out.

        Raises:
            TypeError: Some evidence is not JSON-able; nothing was kept.
        """
        pairs = [(record, _line(self._key, to_line(record))) for record in records]
        lines = [line for record, line in pairs if self._learn(record)]
        if lines and self.path is not None:
            self._guarded(lambda path: self._write(path, lines))

    def close(self) -> None:
        """Bring everything to the disk; the store stays readable, and a later append opens it again."""
        if self.path is not None and self._unsynced:
            self._guarded(lambda _: self._sync())
        self._release()

    def _learn(self, record: Record) -> bool:
        """Remember a record; whether it says more than what is known."""
        known = self._best.get(_slot(record))
        if known is not None and record.strength <= known.strength:
            return False
        if self._is_implied(record):
            return False
        self._best[_slot(record)] = record
        return True

    def _is_implied(self, record: Record) -> bool:
        """Whether a certified claim makes this claim of a solver needless."""
        if not isinstance(record, Claim) or record.trust == "certified":
            return False
        certified = self._best.get(_slot(record, trust="certified"))
        return certified is not None and certified.strength >= record.strength

    def _read(self) -> None:
        if self.path is None:
            return
        try:
            if self.path.exists() and not self.path.is_file():
                self._turn_off(f"{self.path} is not a regular file")
                return
            with self.path.open("rb") as file:
                records, problem = _records(file, self._key)
        except FileNotFoundError:
            return
        except OSError as error:
            self._turn_off(f"cannot read {self.path} ({error.strerror or error})")
            return
        if problem:
            self._turn_off(f"{self.path} {problem} and is left alone")
        for record in records:
            self._learn(record)

    def _write(self, path: Path, lines: list[bytes]) -> None:
        if self._file is None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._file = os.open(path, flags, 0o600)
        self._unsynced = True
        for block in _blocks(lines):
            if os.write(self._file, block) != len(block):
                raise OSError("the disk is full")
        if time.monotonic() - self._synced >= _SYNC_SECONDS:
            self._sync()

    def _sync(self) -> None:
        if self._file is not None:
            os.fsync(self._file)
        self._unsynced = False
        self._synced = time.monotonic()

    def _guarded(self, action: Callable[[Path], None]) -> None:
        """Do something with the file; a failure turns the store off."""
        assert self.path is not None
        try:
            action(self.path)
        except OSError as error:
            self._turn_off(f"cannot write {self.path} ({error.strerror or error})")

    def _turn_off(self, why: str) -> None:
        self.notes.append(f"Proofs are not kept for later runs: {why}.")
        self.path = None
        self._release()

    def _release(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
        self._file = None
        self._unsynced = False


def _slot(record: Record, trust: str = "") -> _Slot:
    """Records with equal slots are about the same thing."""
    kind = (trust or record.trust) if isinstance(record, Claim) else "seen"
    return (kind, record.side, str(record.unit), record.layer)


def _checksum(key: str, version: int, text: bytes) -> str:
    return hashlib.blake2b(f"{key} {version} ".encode() + text, digest_size=8).hexdigest()


def _line(key: str, text: str) -> bytes:
    return b"%s%d %s %s\n" % (_MAGIC, FORMAT, _checksum(key, FORMAT, text.encode()).encode(), text.encode())


def _blocks(lines: list[bytes]) -> Iterable[bytes]:
    """Whole lines, to be written in one go each.

    Every block begins with an empty line, so that a torn line before it, another writer's perhaps, costs nothing.
    """
    block, size = [b"\n"], 1
    for line in lines:
        if len(block) > 1 and size + len(line) > _WRITE_BYTES:
            yield b"".join(block)
            block, size = [b"\n"], 1
        block.append(line)
        size += len(line)
    yield b"".join(block)


def _records(file: Iterable[bytes], key: str) -> tuple[list[Record], str]:
    """Records in a file's lines, and what is wrong with the file as a whole ("": nothing)."""
    found: list[Record] = []
    first, versions = b"", set()
    for line in file:
        text = line.strip(b"\0\r\n")
        first = first or text
        match = _LINE.fullmatch(text)
        if match is None or _checksum(key, int(match[1]), match[3]).encode() != match[2]:
            continue
        versions.add(int(match[1]))
        if int(match[1]) == FORMAT:
            with contextlib.suppress(ValueError):
                found.append(from_line(match[3].decode()))
    if versions and max(versions) > FORMAT:
        return [], "was written by a newer version"
    if not versions and not (first.startswith(_MAGIC) or _MAGIC.startswith(first)):
        return [], "holds something else"
    return found, ""


def _touch(path: Path) -> None:
    """Reading counts as use."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _remove_unused(folder: Path) -> None:
    """Delete claims that nobody asked for in a long time; nothing but our own files, and no error stops it."""
    oldest = time.time() - UNUSED_DAYS * 86400
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if _NAME.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                    _remove_if_ours(Path(entry.path))


def _remove_if_ours(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        return
    with path.open("rb") as file:
        ours = file.read(1 + len(_MAGIC)).strip().startswith(_MAGIC)
    if ours:
        path.unlink()
