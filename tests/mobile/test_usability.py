"""The summary says what ONNX Runtime's usability checker says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.errors import EnvironmentFailure
from onnxprune.mobile import PROVIDERS, usability, with_fixed_sizes
from tests.helpers import conv, dense, parse

MODELS = Path(__file__).resolve().parents[2] / "models"


def test_what_the_checker_prints(tmp_path: Path) -> None:
    """The transformer has operators that NNAPI and CoreML do not know, in several places."""
    model = with_fixed_sizes(onnx.load(MODELS / "transformer.onnx"), {"rows": (1, 28, 28)})
    onnx.save(model, tmp_path / "m.onnx")
    tool = [sys.executable, "-m", "onnxruntime.tools.check_onnx_model_mobile_usability", "m.onnx"]
    ran = subprocess.run(tool, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=120)
    found = usability(model)
    for key, name in PROVIDERS.items():
        counts = found[key]
        said = (
            f"{counts['partitions']} partitions with a total of {counts['taken']}/{counts['nodes']} nodes "
            f"can be handled by the {name} EP."
        )
        assert (said in ran.stdout + ran.stderr) == (key != "xnnpack")
        if counts["suitable"]:
            assert (
                f"Model should perform well with {name} as is: {counts['suitable'].upper()}" in ran.stdout + ran.stderr
            )


def test_open_sizes_keep_nodes_out() -> None:
    open_sizes, fixed = usability(conv()), usability(with_fixed_sizes(conv(), {"x": (1, 4, 6, 6)}))
    for key in PROVIDERS:
        assert (open_sizes[key]["taken"], open_sizes[key]["partitions"]) == (0, 0)
        assert (fixed[key]["taken"], fixed[key]["partitions"], fixed[key]["not_taken"]) == (3, 1, [])
        assert open_sizes[key]["taken_if_fixed"] == 3
    assert {key: fixed[key]["suitable"] for key in PROVIDERS} == {
        "nnapi": "yes",
        "coreml_neuralnetwork": "yes",
        "coreml_mlprogram": "yes",
        "xnnpack": None,
    }


def test_an_operator_that_is_not_taken_splits_the_rest() -> None:
    body = "a = Relu (x) b = Erf (a) y = Relu (b)"
    found = usability(parse(body, inputs="float[2,4] x", outputs="float[2,4] y"))["nnapi"]
    assert (found["nodes"], found["taken"], found["partitions"], found["not_taken"]) == (3, 2, 2, ["Erf"])


def test_a_model_that_is_a_constant() -> None:
    body = "z = Constant <value = float[2] {1.0, 2.0}> () y = Neg (z)"
    found = usability(parse(body, inputs="float[2] x", outputs="float[2] y"))
    assert all(counts["taken"] == counts["nodes"] or counts["nodes"] for counts in found.values())


def test_shapes_that_cannot_be_inferred_count_as_open(monkeypatch: pytest.MonkeyPatch) -> None:
    blind = with_fixed_sizes(dense(), {"x": (2, 4)})
    monkeypatch.setattr("onnxprune.mobile.providers._optimized", lambda model, custom_ops: model)
    found = usability(blind)
    assert (found["nnapi"]["taken"], found["nnapi"]["taken_if_fixed"]) == (0, 3)


def test_onnx_is_left_as_it_was() -> None:
    before = onnx.NodeProto.__hash__
    usability(dense())
    assert onnx.NodeProto.__hash__ is before


def test_a_model_that_does_not_load_is_named() -> None:
    model = parse("y = Unheard (x)", inputs="float[2] x", outputs="float[2] y", weights={"w": np.ones(1, np.float32)})
    with pytest.raises(EnvironmentFailure, match="cannot prepare the model for mobile use"):
        usability(model)
