"""Measure what is removed from known models: ``python -m tests.benchmarks.removal.run MODELS [--wheel DET.onnx]``.

Prints one row per case: change of multiply-adds and parameters against the file as found, latency of the tidied
file over that of the result, largest difference, seconds without latency measurement, peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from tests.benchmarks.removal.masking import mask_inner_filters

SIZE = ("--align", "1", "--goal", "size")


@dataclass(frozen=True)
class Case:
    """A model, the options to run it with, and the figures to reach (percent, factor)."""

    name: str
    path: Path
    options: tuple[str, ...] = ()
    macs: float | None = None
    params: float | None = None
    faster: float | None = None
    over_original: float | None = None


def cases(models: Path, wheel: Path | None, folder: Path) -> Iterator[Case]:
    """All cases whose model is there."""
    zoo = models / "zoo"
    yield Case("pfld", zoo / "pfld.onnx", (), -57, -54, 1.7)
    yield Case("pfld, size", zoo / "pfld.onnx", SIZE, -57, -54)
    yield Case("vww96, size", zoo / "vww96.onnx", ("--domain", "0:1", *SIZE), -49, -84)
    yield Case("vww96", zoo / "vww96.onnx", ("--domain", "0:1"), None, -73, 1.4)
    if wheel is not None:
        yield Case("PP-OCRv6_det_small", wheel, (), None, -21, 1.0)
    for name in ("zoo/resnet20", "cbs/resnet20_cifar10"):
        for biases in (True, False):
            model = onnx.load(models / f"{name}.onnx")
            mask_inner_filters(model, biases=biases)
            what = "weights and biases" if biases else "weights"
            path = folder / f"{name.replace('/', '_')}_{biases}.onnx"
            onnx.save(model, path)
            if biases:
                yield Case(f"{name}, {what} masked", path, (), -49, None, 1.5)
            else:
                yield Case(f"{name}, {what} masked", path, (), None, None, 1.0)
                yield Case(f"{name}, {what} masked, size", path, SIZE, -45)
    yield Case("slim320", zoo / "slim320.onnx", (), over_original=2.5)
    yield Case("acas11", zoo / "acas11.onnx", ())


def measure(case: Case, folder: Path) -> list[str]:
    """One row of the table."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "onnxprune", "optimize", str(case.path), str(folder / "out.onnx")]
    subprocess.run([*command, *case.options, "--report", str(report), "-q"], check=True, cwd=folder)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    found = json.loads(report.read_text(encoding="utf-8"))
    before, tidied, after = found["before"], found["tidied"], found["after"]
    macs = 100 * (after["macs"] / before["macs"] - 1)
    params = 100 * (after["params"] / before["params"] - 1)
    timed = after["latency_ms"] is not None
    faster = tidied["latency_ms"] / after["latency_ms"] if timed else None
    original = before["latency_ms"] / after["latency_ms"] if timed else None
    return [
        case.name,
        _against(macs, case.macs, "%.1f %%", lower=True),
        _against(params, case.params, "%.1f %%", lower=True),
        _against(faster, case.faster, "%.2f", lower=False),
        _against(original, case.over_original, "%.2f", lower=False),
        str(found["align"]),
        f"{found['validation']['max_abs_error']:.1e}",
        f"{found['proof']['seconds']:.1f}",
        f"{peak:.0f}",
    ]


def _against(value: float | None, wanted: float | None, text: str, *, lower: bool) -> str:
    if value is None:
        return "-"
    shown = text % value
    if wanted is None:
        return shown
    reached = value <= wanted if lower else value >= wanted
    return f"{shown} ({'reached' if reached else 'MISSED'}: {text % wanted})"


def main() -> None:
    """Run all cases and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("models", type=Path, help="folder with zoo/ and cbs/")
    parser.add_argument("--wheel", type=Path, help="PP-OCRv6_det_small.onnx of the package rapidocr 3.10.0")
    options = parser.parse_args()
    columns = ["model", "MACs", "params", "tidied / result", "original / result", "align", "difference", "s", "peak MB"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in cases(options.models.resolve(), options.wheel and options.wheel.resolve(), folder):
            print("| " + " | ".join(measure(case, folder)) + " |", flush=True)


if __name__ == "__main__":
    main()
