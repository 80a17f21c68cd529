"""One model of a zoo as a task: what to do with it, and its key."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnxprune.errors import InputError
from onnxprune.zoo.finding import is_file

FORMAT = 1
"""Part of every key. Raise it when rows of earlier versions must not count any more."""

FINISH = "finish"
"""A file of this name in the folder of a run asks its jobs to end with what is proved."""
OVER = "over"
"""A file of this name asks them to end at once; so does removing the folder."""
RESULT = "result.json"
FILES = "files"
"""Where, in its own folder, the process of a job leaves what it has to say, and what it made."""

_CHUNK = 1 << 20
_MARK = b"location"
"""Stands in every model file that has external data: ONNX names its files under this word."""


@dataclass(frozen=True)
class Limits:
    """What the process of one model, with all its children, may use.

    Attributes:
        seconds: Wall time; None: no limit. The search for proofs gets at most half of it.
        memory: Bytes; None: no limit. It is watched, not reserved: the process may pass it for a moment.
    """

    seconds: float | None = 600.0
    memory: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InputError: A limit is not positive.
        """
        for name, value in (("seconds", self.seconds), ("memory", self.memory)):
            if value is not None and not value > 0:
                raise InputError(f"The limit of {name} cannot be {value!r}.", hint="It is above 0, or None.")


@dataclass(frozen=True)
class Job:
    """Everything a worker must know; plain data. All paths are absolute.

    Attributes:
        model: The model's file.
        path: Its path relative to the folder of the zoo, with forward slashes; its result's below ``output``.
        output: The output folder.
        run: Folder below it that exists as long as the run is wanted; see `onnxprune.zoo.guard`.
        key: See `job_key`.
        domain: Domain texts.
        mean: Per channel, where the domain is a box of pixels.
        std: As ``mean``.
        options: Fields of `onnxprune.options.Options`, as plain data.
        limits: Limits of its process.
        copy_of: Path of an identical model whose result, in the output folder, is to be copied; empty: none.
        home: Folder that relative paths in the options start from.
    """

    model: str
    path: str
    output: str
    run: str
    key: str
    domain: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()
    copy_of: str = ""
    home: str = ""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | bytes) -> Job:
        """Undo `to_json`."""
        content = json.loads(text)
        texts = {name: None if content[name] is None else tuple(content[name]) for name in ("domain", "mean", "std")}
        return Job(**{**content, **texts, "limits": Limits(**content["limits"])})


def report_path(path: str) -> str:
    """Where the report of a model lies: beside it."""
    return f"{path}.report.json"


def data_name(name: str, key: str) -> str:
    """Name of the file with the external data of a rewritten model; no other model's data have it."""
    return f"{name}.{key[:12]}.data"


def is_data_name(candidate: str, name: str) -> bool:
    """Whether `data_name` makes this name for the model, under whatever key."""
    return re.fullmatch(r"\.[0-9a-f]{12}\.data", candidate.removeprefix(name)) is not None


def job_key(
    model: Path,
    domain: Sequence[str],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    options: Mapping[str, Any],
) -> str:
    """Name of all that decides about a result: the model with its external data, domain, options, version.

    Returns:
        SHA-256, in hex. Files that the domain or ``custom_ops`` name count by content; limits do not count.

    Raises:
        OSError: The model or one of those files cannot be read.
    """
    parts = [
        FORMAT,
        version("onnxprune"),
        model_digest(model),
        [_shared_digest(text, os.stat(text).st_mtime_ns) if is_file(text) else text for text in domain],
        [_shared_digest(name, os.stat(name).st_mtime_ns) for name in options.get("custom_ops", ())],
        mean and list(mean),
        std and list(std),
        {name: value for name, value in options.items() if name != "custom_ops"},
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def model_digest(path: Path) -> str:
    """SHA-256 over a model file and its external data; missing data files count as such.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    external = _feed(digest, path)
    for name in _external_names(path) if external else ():
        digest.update(f"\0{name}\0".encode())
        try:
            _feed(digest, path.parent / name)
        except OSError as error:
            digest.update(type(error).__name__.encode())
    return digest.hexdigest()


@cache
def _shared_digest(path: str, changed: int) -> str:
    """SHA-256 of a file that many models share; ``changed`` is its time of change."""
    digest = hashlib.sha256()
    _feed(digest, Path(path))
    return digest.hexdigest()


def _feed(digest: Any, path: Path) -> bool:
    """Hash a file piece by piece; whether it may name external data."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, or no regular file")  # a pipe or a device might never end
    found, tail = False, b""
    with path.open("rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
            found = found or _MARK in tail + block
            tail = block[-len(_MARK) :]
    return found


def _external_names(path: Path) -> Iterable[str]:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 # few models have external data
    from onnx import ModelProto  # noqa: PLC0415

    from onnxprune.graph.files import external_files  # noqa: PLC0415

    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        return ()
    return sorted(external_files(model))
