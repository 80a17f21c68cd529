"""Code as users write it; type checkers have to see every public name with its type."""

from __future__ import annotations

from pathlib import Path

import onnx
from typing_extensions import assert_type

import onnxprune


def smaller(path: Path) -> onnx.ModelProto:
    """Optimize, and read the result."""
    try:
        result = onnxprune.optimize(path, "0:1", budget=0.0, goal="size", align=1)
    except onnxprune.InputError as error:
        assert_type(error.exit_code, int)
        raise
    assert_type(result, onnxprune.Result[onnx.ModelProto])
    assert_type(result.report, onnxprune.Report)
    assert_type(result.report.to_json(), str)
    assert_type(result.modified, bool)
    return result.model


def looked_at(path: Path) -> str:
    """Inspect, and make a page of the report."""
    report = onnxprune.inspect(path, "0:1", budget=0.0)
    assert_type(report, onnxprune.Report)
    return report.to_html()
