"""Writes certificates: JSON, with long arrays in an .npz file beside it."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.graph.files import atomic
from onnxprune.verify.cases import Cuts
from onnxprune.verify.certificate import Certificate, Claims
from onnxprune.verify.reading import FORMAT, VERSION, seal
from onnxprune.verify.steps import Leaf, Step

INLINE = 64
"""Entries up to which an array stands in the JSON itself."""


def content(certificate: Certificate, arrays: str) -> tuple[dict[str, Any], bytes | None]:
    """A certificate as JSON content, sealed, and the bytes of its arrays (None where there are none).

    Args:
        certificate: The certificate.
        arrays: Name of the file that the arrays will have.
    """
    writer = _Writer()
    cuts = list({id(step.cuts): step.cuts for step in certificate.steps + certificate.steps_optimized
                 if step.cuts is not None}.values())  # fmt: skip
    found: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "original": {"sha256": certificate.original},
        "optimized": {"sha256": certificate.optimized},
        "domain": {
            "inputs": {
                name: {"lower": writer.numbers(low), "upper": writer.numbers(high)}
                for name, (low, high) in certificate.boxes.items()
            },
            "constraints": [
                {"terms": [list(term) for term in item.terms], "bound": item.bound} for item in certificate.constraints
            ],
        },
        "cuts": [writer.cuts(item) for item in cuts],
        "bounds": {
            "original": [writer.step(step, cuts) for step in certificate.steps],
            "optimized": [writer.step(step, cuts) for step in certificate.steps_optimized],
        },
        "relation": {
            "tensors": [
                {
                    "original": name,
                    "optimized": anchor.tensor,
                    **({} if anchor.rows is None else {"rows": writer.numbers(anchor.rows)}),
                    **({} if anchor.factors is None else {"factors": writer.numbers(anchor.factors)}),
                }
                for name, anchor in certificate.anchors.items()
            ],
            "handed_on": {name: writer.numbers(rows) for name, rows in certificate.open_rows.items()},
        },
        "claims": [writer.claims(item) for item in certificate.claims],
        "promise": {
            name: {"deviation": _finite(value), "rounding": _finite(certificate.rounding[name])}
            for name, value in certificate.deviation.items()
        },
        "witnesses": {
            "points": {
                name: {"size": int(rows.shape[1]), "bits": writer.numbers(np.packbits(rows, axis=-1))}
                for name, rows in certificate.witnesses.points.items()
            },
            "seen": {name: writer.numbers(rows) for name, rows in certificate.witnesses.seen.items()},
        },
    }
    data = writer.packed()
    found["arrays"] = None if data is None else {"file": arrays, "sha256": hashlib.sha256(data).hexdigest()}
    found["seal"] = seal(found)
    return found, data


def write(found: Mapping[str, Any], data: bytes | None, path: Path) -> None:
    """Write what :func:`content` returned; the arrays are complete before the file that names them appears."""
    if data is not None:
        with atomic(path.with_name(found["arrays"]["file"])) as temporary:
            temporary.write_bytes(data)
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def arrays_name(path: Path) -> str:
    """Name of the file of arrays beside a certificate."""
    return f"{path.name.removesuffix('.json')}.npz"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) and value < 1e30 else None


class _Writer:
    def __init__(self) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}

    def numbers(self, values: NDArray[Any]) -> Any:
        array = np.asarray(values)
        if array.size <= INLINE:
            return array.tolist()
        name = f"a{len(self.arrays)}"
        self.arrays[name] = _short(array)
        return {"array": name}

    def packed(self) -> bytes | None:
        if not self.arrays:
            return None
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self.arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    def cuts(self, item: Cuts) -> dict[str, Any]:
        return {"input": item.source, "axes": self.numbers(item.axes), "places": self.numbers(item.places)}

    def step(self, item: Step, cuts: list[Cuts]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "tensor": item.tensor,
            "side": "upper" if item.upper else "lower",
            "entries": self.numbers(item.entries),
            "bounds": self.numbers(item.bounds),
            "trust": item.trust,
            "rule": item.rule,
        }
        if item.cuts is not None:
            found["cuts"] = next(n for n, other in enumerate(cuts) if other is item.cuts)
        elif not all(leaf.plain for leaf in item.leaves):
            found["cases"] = [self._leaf(leaf) for leaf in item.leaves]
        return found

    def _leaf(self, leaf: Leaf) -> dict[str, Any]:
        given = leaf.multipliers
        prices = {} if given.constraints is None else {"constraints": self.numbers(given.constraints)}
        return {
            "phases": [list(phase) for phase in leaf.phases],
            "multipliers": {
                name: {"units": self.numbers(units), "values": self.numbers(given.values[name])}
                for name, units in given.units.items()
            },
            **prices,
        }

    def claims(self, item: Claims) -> dict[str, Any]:
        return {
            "tensor": item.tensor,
            "result": item.result,
            "state": item.state,
            "units": self.numbers(item.units),
            "bounds": self.numbers(item.bounds),
            "margins": self.numbers(item.margins),
            "method": item.method,
            "trust": item.trust,
        }


def _short(values: NDArray[Any]) -> NDArray[Any]:
    """The same values in the shortest type that holds them exactly."""
    if values.dtype.kind in "iu":
        least, most = int(values.min()), int(values.max())
        for kind in (np.int8, np.int16, np.int32):
            if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max:
                return values.astype(kind) if values.dtype != np.uint8 else values
        return values
    short = values.astype(np.float32)
    return short if (short.astype(np.float64) == values).all() else values
