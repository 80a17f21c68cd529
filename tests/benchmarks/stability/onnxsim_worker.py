"""Runs onnxsim's analyzer of stable ReLUs in its own environment: ``python -I onnxsim_worker.py JOB.json OUT.json``.

It imports nothing of its neighbours: those do not exist there. The job holds ``model`` and ``box``, an ``.npz`` with
``<input>.lower`` and ``<input>.upper`` in the shapes of the inputs.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

METHODS = ("interval", "crown", "zonotope")


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Analyze one model."""
    onnx: Any = import_module("onnx")
    numpy: Any = import_module("numpy")
    analyzer: Any = import_module("onnxsim.stable_relu_prune")
    model = onnx.load(job["model"])
    box = numpy.load(job["box"])
    names = {key.rsplit(".", 1)[0] for key in box.files}
    ranges = {name: (box[f"{name}.lower"], box[f"{name}.upper"]) for name in names}
    began = time.perf_counter()
    report = analyzer.analyze(model, ranges, methods=METHODS)
    seconds = time.perf_counter() - began
    layers = []
    for layer in report.layers:
        codes = ["?"] * layer.units
        for unit in layer.on_units if layer.on_units is not None else ():
            codes[int(unit)] = "a"
        for unit in layer.dead_units if layer.dead_units is not None else ():
            codes[int(unit)] = "i"
        layers.append({"tensor": layer.pre_activation, "states": "".join(codes)})
    figures = {"prunable": sum(layer.units for layer in report.layers if layer.prunable)}
    skipped = [f"{name} skipped: {why}" for name, why in report.skipped_methods.items()]
    return {"layers": layers, "stages": report.methods, "seconds": seconds, "figures": figures | {"notes": skipped}}


def main() -> None:
    """Read a job, write its result."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        result = work(job)
    except Exception as error:  # any failure is a measurement here
        result = {"error": f"{type(error).__name__}: {error}"}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        peak = int(line.split()[1])
    result["peak_mb"] = peak / (2**20 if sys.platform == "darwin" else 2**10)
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
