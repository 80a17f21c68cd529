"""Reads certificates: JSON, with long arrays in an .npz file beside it."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import InputError
from onnxprune.verify.cases import Cuts
from onnxprune.verify.certificate import Certificate, Claims, Witnesses
from onnxprune.verify.reasons import Rejected
from onnxprune.verify.sides import Anchor
from onnxprune.verify.steps import Constraint, Leaf, Multipliers, Step

FORMAT = "onnxprune-certificate"
VERSION = 1
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def seal(content: Mapping[str, Any]) -> str:
    """SHA-256 over everything a certificate says but its seal."""
    plain = {key: value for key, value in content.items() if key != "seal"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read(path: Path) -> tuple[Certificate, str]:
    """A certificate and its seal.

    Raises:
        InputError: The file cannot be read, or is no certificate of this version.
        Rejected: It was changed after it was made, or contradicts itself.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"No such file: {path}", hint="Check the path of the certificate.") from None
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.", hint="Check the file's permissions.") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not JSON.", hint="A certificate is what --certificate writes.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is not a certificate.", hint="A certificate is what --certificate writes.")
    if content.get("version") != VERSION:
        raise InputError(
            f"{path} has version {content.get('version')}; this checker reads version {VERSION}.",
            hint="Use the version of onnxprune that wrote it.",
        )
    if content.get("seal") != seal(content):
        raise Rejected("the certificate was changed after it was made: its seal does not fit")
    return parsed(content, _arrays(path, content.get("arrays"))), str(content["seal"])


def parsed(content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Certificate:
    """A certificate from its content.

    Raises:
        Rejected: A field is missing or has a form it cannot have.
    """
    try:
        return _Reader(arrays).certificate(content)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise Rejected(f"the certificate is not well formed ({type(error).__name__}: {error})") from None


def _arrays(path: Path, where: Any) -> dict[str, NDArray[Any]]:
    if where is None:
        return {}
    if (
        not isinstance(where, dict)
        or not isinstance(where.get("file"), str)
        or Path(where["file"]).name != where["file"]
    ):
        raise Rejected("the certificate names no file for its arrays")
    beside = path.with_name(where["file"])
    try:
        data = beside.read_bytes()
    except (OSError, ValueError):
        raise InputError(f"Cannot read {beside}.", hint="Keep it beside the certificate.") from None
    if hashlib.sha256(data).hexdigest() != where.get("sha256"):
        raise Rejected(f"{beside.name} is not the file that belongs to the certificate")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return {name.removesuffix(".npy"): _array(file.read(name)) for name in file.namelist()}
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        raise Rejected(f"{beside.name} is damaged") from None


def _array(data: bytes) -> NDArray[Any]:
    return np.asarray(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False))


class _Reader:
    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.arrays = arrays

    def certificate(self, content: Mapping[str, Any]) -> Certificate:
        cuts = [self._cuts(item) for item in content["cuts"]]
        steps = {which: tuple(self._step(item, cuts) for item in content["bounds"][which]) for which in _MODELS}
        domain, relation, promise = content["domain"], content["relation"], content["promise"]
        return Certificate(
            original=_text(content["original"]["sha256"]),
            optimized=_text(content["optimized"]["sha256"]),
            boxes={_text(n): (self._floats(b["lower"]), self._floats(b["upper"])) for n, b in domain["inputs"].items()},
            constraints=tuple(
                Constraint(
                    tuple((_text(n), _whole(i), _number(c)) for n, i, c in item["terms"]), _number(item["bound"])
                )
                for item in domain["constraints"]
            ),
            steps=steps["original"],
            steps_optimized=steps["optimized"],
            anchors=self._unique(relation["tensors"], lambda item: _text(item["original"]), self._anchor),
            open_rows={_text(name): self._whole(rows) for name, rows in relation["handed_on"].items()},
            claims=tuple(self._claims(item) for item in content["claims"]),
            deviation={_text(name): _promised(item["deviation"]) for name, item in promise.items()},
            rounding={_text(name): _promised(item["rounding"]) for name, item in promise.items()},
            witnesses=self._witnesses(content["witnesses"]),
        )

    def _unique(self, items: list[Any], key: Callable[[Any], str], value: Callable[[Any], Anchor]) -> dict[str, Anchor]:
        found: dict[str, Anchor] = {}
        for item in items:
            if key(item) in found:
                raise ValueError(f"{key(item)} is related twice")
            found[key(item)] = value(item)
        return found

    def _anchor(self, item: Mapping[str, Any]) -> Anchor:
        rows = None if item.get("rows") is None else self._whole(item["rows"])
        factors = None if item.get("factors") is None else self._floats(item["factors"])
        if factors is not None and (rows is None or len(factors) != len(rows)):
            raise ValueError("factors without rows")
        if rows is not None and (rows < -1).any():
            raise ValueError("a row below -1")
        return Anchor(_text(item["optimized"]), rows, factors)

    def _step(self, item: Mapping[str, Any], cuts: list[Cuts]) -> Step:
        if item["side"] not in ("upper", "lower") or item["trust"] not in ("certified", "solver"):
            raise ValueError("a bound with an unknown side or trust")
        if "cases" in item and "cuts" in item:
            raise ValueError("a bound with both cases and cuts")
        leaves = tuple(self._leaf(leaf) for leaf in item["cases"]) if "cases" in item else (Leaf(),)
        number = _whole(item["cuts"]) if "cuts" in item else None
        if number is not None and not 0 <= number < len(cuts):
            raise ValueError(f"there are no cuts {number}")
        tree = None if number is None else cuts[number]
        return Step(
            tensor=_text(item["tensor"]),
            upper=item["side"] == "upper",
            entries=self._whole(item["entries"]),
            bounds=self._floats(item["bounds"]),
            trust=_text(item["trust"]),
            rule=_text(item["rule"]),
            leaves=leaves,
            cuts=tree,
        )

    def _leaf(self, item: Mapping[str, Any]) -> Leaf:
        given = item["multipliers"]
        return Leaf(
            tuple((_text(name), _whole(entry), _flag(active)) for name, entry, active in item["phases"]),
            Multipliers(
                {_text(name): self._whole(part["units"]) for name, part in given.items()},
                {_text(name): self._floats(part["values"]) for name, part in given.items()},
                self._floats(item["constraints"]) if item.get("constraints") is not None else None,
            ),
        )

    def _cuts(self, item: Mapping[str, Any]) -> Cuts:
        axes, places = self._whole(item["axes"]), self._floats(item["places"])
        if axes.shape != places.shape or (axes < -1).any() or places[axes < 0].any():
            raise ValueError("a tree of cuts has not one axis and place per node")
        return Cuts(_text(item["input"]), axes, places)

    def _claims(self, item: Mapping[str, Any]) -> Claims:
        return Claims(
            tensor=_text(item["tensor"]),
            result=_text(item["result"]),
            state=_text(item["state"]),
            units=self._whole(item["units"]),
            bounds=self._floats(item["bounds"]),
            margins=self._floats(item["margins"]),
            method=_text(item["method"]),
            trust=_text(item["trust"]),
        )

    def _witnesses(self, item: Mapping[str, Any]) -> Witnesses:
        points = {}
        for name, part in item["points"].items():
            size, packed = _whole(part["size"]), self._any(part["bits"])
            if packed.ndim != 2 or packed.dtype.kind not in "iu" or ((packed < 0) | (packed > 255)).any():
                raise ValueError("points that are no bytes")
            bits = np.unpackbits(packed.astype(np.uint8), axis=-1)
            if packed.shape[1] != -(-size // 8) or bits[:, size:].any():
                raise ValueError(f"points that have not {size} entries")
            points[_text(name)] = bits[:, :size].astype(bool)
        return Witnesses(points, {_text(name): self._whole(rows) for name, rows in item["seen"].items()})

    def _any(self, value: Any) -> NDArray[Any]:
        if isinstance(value, dict):
            return self.arrays[value["array"]]
        return np.asarray(value)

    def _floats(self, value: Any) -> Floats:
        found = self._any(value)
        if found.size and found.dtype.kind not in "fiu":
            raise ValueError("an array of numbers was expected")
        return found.astype(np.float64)

    def _whole(self, value: Any) -> Indices:
        found = self._any(value)
        if found.size and found.dtype.kind not in "iu":
            raise ValueError("an array of whole numbers was expected")
        if found.ndim != 1:
            raise ValueError("a list of whole numbers was expected")
        return found.astype(np.int64)


_MODELS = ("original", "optimized")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _promised(value: Any) -> float:
    """A bound that may be missing: then nothing is promised."""
    number = np.inf if value is None else _number(value)
    if not number >= 0:
        raise ValueError(f"{value!r} is no bound")
    return float(number)
