"""Runs one tool on one model inside that tool's own environment, so that a crash or a hang stays there.

``python -I runner.py TOOL IN OUT STATS [ARGUMENTS of onnxprune]`` writes the result to OUT and to STATS a JSON
with the seconds of the tool's own call, peak memory, and whether the model handed over was changed.
It imports nothing of its neighbours: those do not exist in a peer's environment.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

Work = Callable[[], Any]
"""The tool's call alone: returns the new model, or None when it wrote the file itself."""


def prepare(tool: str, model: Any, source: str, target: str, arguments: list[str]) -> Work:
    """Import the tool (by name: its module is untyped); what is returned does nothing but its work."""
    if tool == "onnxsim":
        simplify = import_module("onnxsim").simplify
        return lambda: simplify(model)[0]
    if tool == "onnxslim":
        slim = import_module("onnxslim").slim
        return lambda: slim(model)
    if tool in ("onnxoptimizer", "onnxscript"):
        optimize = import_module({"onnxscript": "onnxscript.optimizer"}.get(tool, tool)).optimize
        return lambda: optimize(model)
    if tool == "onnxruntime":
        return lambda: _onnxruntime_basic(import_module("onnxruntime"), source, target)
    if tool == "onnxprune":
        import_module("onnxprune.optimizer")
        command = import_module("onnxprune.cli.main").main
        return lambda: _checked(command(["optimize", source, target, "--quiet", *arguments]))
    raise SystemExit(f"unknown tool: {tool}")


def _onnxruntime_basic(runtime: Any, source: str, target: str) -> None:
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = target
    options.log_severity_level = 4
    runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _checked(code: int) -> None:
    if code:
        raise SystemExit(code)


def peak_mb() -> float:
    """Peak resident memory of this process (Linux: of this program alone, not of the one that forked it)."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def version(tool: str) -> str:
    """Version of the tool in this environment."""
    found = getattr(import_module(tool), "__version__", None)
    return str(found or metadata.version(tool)).removeprefix("v")


def main() -> None:
    """Load, run, save, report."""
    tool, source, target, stats_path, *arguments = sys.argv[1:]
    stats: dict[str, Any] = {"version": version(tool)}
    takes_files = tool in ("onnxruntime", "onnxprune")
    onnx: Any = import_module("onnx")
    model = onnx.ModelProto() if takes_files else onnx.load(source)
    before = model.SerializeToString(deterministic=True)
    try:
        work = prepare(tool, model, source, target, arguments)
        start = time.perf_counter()
        result = work()
        stats["seconds"] = time.perf_counter() - start
        stats["peak_mb"] = peak_mb()
        if not takes_files:
            stats["mutated"] = model.SerializeToString(deterministic=True) != before
            onnx.save(result, target)
    except Exception as error:  # any failure of a tool is a measurement here
        stats["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        Path(stats_path).write_text(json.dumps(stats))


if __name__ == "__main__":
    main()
