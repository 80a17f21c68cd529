"""In a workflow of Olive."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import onnx
import pytest

from tests.integrations.support import MODEL, OPTIONS, by_the_command, weights

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("olive") is None, reason="olive-ai is not installed"),
    pytest.mark.filterwarnings("default"),  # Olive and what it imports are not ours
]


def test_the_pass_gives_what_the_command_gives(tmp_path: Path) -> None:
    import olive.workflows  # noqa: PLC0415 # skipped where it is missing

    from onnxprune.integrations.olive_pass import package_config  # noqa: PLC0415

    packages = tmp_path / "packages.json"
    packages.write_text(json.dumps(package_config()))
    workflow = {
        "input_model": {"type": "OnnxModel", "model_path": str(MODEL)},
        "passes": {"prune": {"type": "OnnxPrune", "domain": ["0:1"], "options": OPTIONS}},
        "output_dir": str(tmp_path / "out"),
        "cache_dir": str(tmp_path / "cache"),
    }
    olive.workflows.run(workflow, package_config=str(packages))
    (written,) = (tmp_path / "out").rglob("*.onnx")
    assert weights(onnx.load(written)) == weights(by_the_command(tmp_path))
