"""What every integration must do: the same as the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from onnxprune.cli.main import main

MODEL = Path(__file__).parents[2] / "models" / "mnist_l1.onnx"
OPTIONS: dict[str, Any] = {"goal": "size", "align": 1, "budget": 0.0}
"""Without latencies and solvers: the same every time."""


def by_the_command(folder: Path) -> onnx.ModelProto:
    """What ``onnxprune optimize`` writes."""
    output = folder / "by_the_command.onnx"
    arguments = ["optimize", str(MODEL), str(output), "--domain", "0:1", "--goal", "size", "--align", "1"]
    assert main([*arguments, "--budget", "0", "--quiet"]) == 0
    return onnx.load(output)


def weights(model: onnx.ModelProto) -> dict[str, bytes]:
    """Initializers as they are stored."""
    return {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in model.graph.initializer}
