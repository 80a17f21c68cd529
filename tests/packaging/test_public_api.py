"""The public names: typed, importable at once, and quick to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import onnxprune
from tests.packaging import consumer

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"numpy", "onnx", "onnxruntime", "scipy", "rich", "mip", "onnx_graphsurgeon", "shtab"}


def test_a_consumer_runs() -> None:
    """Type checkers read the same file; here its claims meet real results."""
    model = ROOT / "models" / "controller.onnx"
    assert consumer.smaller(model).graph.node
    assert consumer.looked_at(model).startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("name", onnxprune.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert (getattr(onnxprune, name).__doc__ or "").strip()


def test_importing_the_package_imports_nothing_heavy(tmp_path: Path) -> None:
    code = f"import sys, onnxprune; sys.exit(', '.join(sorted({HEAVY!r} & set(sys.modules))) or None)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_name_with_a_typing_error_is_corrected(tmp_path: Path) -> None:
    code = "import onnxprune; onnxprune.optimise"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "has no attribute 'optimise'" in ran.stderr
    assert "Did you mean: 'optimize'?" in ran.stderr
