"""Which files of a folder are models of the zoo, and over which domain each is optimized."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from onnxprune.errors import InputError

EVERY_MODEL = ("*.onnx", "*.ONNX")
_FILES = (".npz", ".vnnlib")


def matches(path: str, pattern: str) -> bool:
    """Whether a glob fits a relative path or its last part; ``*`` stands for any text, slashes included."""
    return fnmatchcase(path, pattern) or fnmatchcase(path.rpartition("/")[2], pattern)


def find_models(
    folder: Path, output: Path, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """All models below a folder, sorted, and sentences about folders that could not be read.

    Args:
        folder: Where to look, recursively; links to folders are not followed.
        output: Where results go; nothing in it is a model of the zoo.
        include: Globs of which one must fit; every ``.onnx`` file by default.
        exclude: Globs of which none may fit.

    Raises:
        InputError: The folder is missing, or lies in the output folder.
    """
    if not folder.is_dir():
        raise InputError(f"No such folder: {folder}", hint="onnxprune zoo takes a folder; for one model: optimize.")
    inside, outside = folder.resolve(), output.resolve()
    if inside == outside or outside in inside.parents:
        raise InputError(f"The output folder {output} holds {folder}.", hint="Choose a folder of its own.")
    found: list[str] = []
    notes: list[str] = []

    def unreadable(error: OSError) -> None:
        notes.append(f"{error.filename} was left out: {error.strerror}.")

    for place, folders, files in os.walk(folder, onerror=unreadable):
        here = Path(place)
        folders[:] = sorted(name for name in folders if (here / name).resolve() != outside)
        for name in sorted(files):
            path = (here / name).relative_to(folder).as_posix()
            wanted = any(matches(path, pattern) for pattern in include or EVERY_MODEL)
            if wanted and not any(matches(path, pattern) for pattern in exclude):
                found.append(path)
    return found, notes


@dataclass(frozen=True)
class DomainRules:
    """Domains by glob: the first one that fits a model's path holds, else the common domain.

    Attributes:
        common: Texts of the domain of all other models; none: every finite input.
        rules: Pairs of a glob and domain texts.
    """

    common: tuple[str, ...] = ()
    rules: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @staticmethod
    def read(path: str | Path, common: Sequence[str] = ()) -> DomainRules:
        """Rules from a JSON file: ``{"faces/*.onnx": "0:1", "acas*.onnx": ["box.npz"], "*": null}``.

        Names of files in it are relative to its own folder; null stands for every finite input.

        Raises:
            InputError: It is missing or holds something else.
        """
        hint = 'It maps globs to domains: {"faces/*.onnx": "0:1", "acas*.onnx": ["spec.vnnlib"]}.'
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"Cannot read {path}: {error.strerror}.", hint=hint) from None
        except ValueError as error:
            raise InputError(f"{path} is not a JSON file ({error}).", hint=hint) from None
        if not isinstance(content, dict):
            raise InputError(f"{path} holds no JSON object.", hint=hint)
        base = Path(path).resolve().parent
        rules = [(glob, _absolute(_texts(value, f"{path}: '{glob}'", hint), base)) for glob, value in content.items()]
        return DomainRules(tuple(common), tuple(rules))

    @staticmethod
    def from_mapping(rules: Mapping[str, str | Sequence[str] | None], common: Sequence[str] = ()) -> DomainRules:
        """Rules from globs and texts, as a JSON file would hold them."""
        hint = "A domain is a text, several texts, or None."
        return DomainRules(tuple(common), tuple((glob, _texts(v, f"'{glob}'", hint)) for glob, v in rules.items()))

    def texts(self, path: str) -> tuple[str, ...]:
        """Domain texts for a model; names of files are absolute."""
        chosen = next((texts for glob, texts in self.rules if matches(path, glob)), self.common)
        return _absolute(chosen, Path.cwd())


def _texts(value: Any, where: str, hint: str) -> tuple[str, ...]:
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{where} has no domain but {value!r}.", hint=hint)
    return tuple(texts)


def _absolute(texts: Sequence[str], base: Path) -> tuple[str, ...]:
    return tuple(os.path.abspath(base / text) if is_file(text) else text for text in texts)


def is_file(text: str) -> bool:
    """Whether a domain's text names a file."""
    return text.lower().endswith(_FILES)
