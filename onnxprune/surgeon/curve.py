"""Quality, size and latency against sparsity: several pruning runs, each kept as soon as it is finished."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import EnvironmentFailure, InputError, Interrupted
from onnxprune.graph.files import Source, atomic, check_writable, fingerprint, save, write_text
from onnxprune.samples import input_specs
from onnxprune.surgeon.calibration import LABELS, Calibration, CalibrationLike, calibration
from onnxprune.surgeon.curve_picture import picture
from onnxprune.surgeon.options import PruneOptions
from onnxprune.surgeon.prune import prune_source

POINTS = 6
COLUMNS = {
    "relative_error": "quality",
    "cosine": "quality",
    "agreement": "quality",
    "accuracy": "quality",
    "dense_accuracy": "quality",
    "nodes": "after",
    "params": "after",
    "nonzero": "after",
    "macs": "after",
    "bytes": "after",
    "compressed_bytes": "after",
    "latency_ms": "after",
}
"""Figures of a point, and the part of its report they stand in."""
TEMPORARY = ("progress", "stopped", "metric")
"""Options that change nothing about the models of a curve."""


@dataclass(frozen=True)
class Curve:
    """Several pruned models.

    Attributes:
        name: What is varied: ``sparsity`` or ``macs``.
        levels: Its values.
        reports: The report of each point that is finished.
        resumed: How many of them an earlier run had finished.
        picture: Where the curve is drawn; None without matplotlib.
    """

    name: str
    levels: tuple[float, ...]
    reports: tuple[dict[str, Any], ...]
    resumed: int
    picture: Path | None

    def rows(self) -> list[dict[str, Any]]:
        """A row of figures per finished point; those that were not measured are None."""
        found = []
        for level, report in zip(self.levels, self.reports, strict=False):
            row: dict[str, Any] = {"asked": level, "sparsity": report["weights"]["sparsity"]}
            row |= {column: report[part].get(column) for column, part in COLUMNS.items()}
            row |= {"original_latency_ms": report["before"]["latency_ms"], "seconds": report["seconds"]}
            found.append(row)
        return found


def varied(structure: str) -> str:
    """The budget that a curve varies: ``macs`` for units, ``sparsity`` for weights."""
    return "macs" if structure == "units" else "sparsity"


def levels(text: str, structure: str) -> tuple[float, ...]:
    """The points of ``A:B`` or ``A:B:N``, in steps of equal ratio of what is left.

    Args:
        text: What was asked for: sparsities, or shares of the multiply-adds that are left (units).
        structure: As in :class:`PruneOptions`.

    Returns:
        Rounded to four digits, the mildest first.

    Raises:
        InputError: It is no such text, or there is nothing to vary.
    """
    if structure not in ("weights", "units"):
        raise InputError(f"--structure {structure} leaves nothing to sweep.", hint="It is weights or units.")
    parts = text.split(":")
    try:
        first, last = (float(part) for part in parts[:2])
        count = int(parts[2]) if len(parts) == 3 else POINTS
        fine = len(parts) <= 3 and 0 < first < 1 and 0 < last < 1 and first != last and 2 <= count <= 100
    except ValueError:
        fine = False
    if not fine:
        raise InputError(f"--sweep cannot be '{text}'.", hint="Two shares and a number of points: 0.5:0.98:6.")
    ends = (1 - first, 1 - last) if structure == "weights" else (first, last)
    left = np.geomspace(max(ends), min(ends), count)
    return tuple(round(float(1 - x if structure == "weights" else x), 4) for x in left)


def prepared(folder: Path) -> Path:
    """A folder to write a curve to, made where it is missing.

    Raises:
        InputError: It is a file, or cannot be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"With --sweep the output is a folder; {folder} is a file.", hint="Name a folder.")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot make the folder {folder}: {error.strerror}.", hint="Name another one.") from None
    check_writable(folder / "curve.csv")
    return folder


def sweep(
    source: Source, data: CalibrationLike, options: PruneOptions, amounts: Sequence[float], folder: Path
) -> Curve:
    """Prune to several levels; every finished point is kept in the folder and not repeated by a later call.

    Args:
        source: The dense model.
        data: As for :func:`onnxprune.prune`; read once.
        options: Of every point, but for the sparsity (units: the share of the multiply-adds).
        amounts: The values of that.
        folder: Takes a model and a report per point, ``curve.csv``, and ``curve.png`` where matplotlib is there.

    Returns:
        What was reached; once ``stopped`` says True, the points so far.

    Raises:
        Interrupted: Stopped before the first point.
    """
    found = calibration(data, input_specs(source.model), limit=options.samples, seed=options.seed)
    arrays = {**found.inputs, **({} if found.labels is None else {LABELS: found.labels})}
    name = varied(options.structure)
    key = _key(source, found, options)
    reports: list[dict[str, Any]] = []
    resumed = 0
    for number, amount in enumerate(amounts, 1):
        model, report = (folder / f"{name}_{amount:.4f}{ending}" for ending in (".onnx", ".json"))
        before = _finished(model, report, key)
        if before is not None:
            reports.append(before)
            resumed += 1
            continue
        if options.stopped():
            break
        options.progress(f"point {number} of {len(amounts)}: {name} {amount:g}")
        try:
            result = prune_source(source, arrays, replace(options, **{name: amount}))  # type: ignore[arg-type]
        except Interrupted:
            break
        if options.stopped():  # whatever is not finished is not a point of the curve
            break
        content = {**result.report.content, "sweep": key}
        save(result.model, model)
        write_text(report, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        reports.append(content)
    if not reports:
        raise Interrupted("stopped before the first point was finished; nothing was written.")
    curve = Curve(name, tuple(amounts[: len(reports)]), tuple(reports), resumed, None)
    _write_csv(curve, folder / "curve.csv")
    return Curve(name, curve.levels, curve.reports, resumed, _draw(curve, folder / "curve.png"))


def _key(source: Source, data: Calibration, options: PruneOptions) -> str:
    """Tells curves of other models, samples or options apart."""
    left_out = (*TEMPORARY, varied(options.structure))
    chosen = {f.name: repr(getattr(options, f.name)) for f in fields(options) if f.name not in left_out}
    digest = hashlib.sha256(json.dumps([fingerprint(source.model), chosen], sort_keys=True).encode())
    for values in (*data.inputs.values(), *(() if data.labels is None else (data.labels,))):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _finished(model: Path, report: Path, key: str) -> dict[str, Any] | None:
    """The report of a point that an earlier run has finished."""
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if model.is_file() and isinstance(content, dict) and content.get("sweep") == key else None


def _write_csv(curve: Curve, path: Path) -> None:
    rows = curve.rows()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _draw(curve: Curve, path: Path) -> Path | None:
    try:
        content = picture(curve.name, curve.rows())
    except EnvironmentFailure:
        return None
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return path
