"""``onnxprune verify A B``: two models without a certificate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.helpers import DENSE, command, dense, parse, weights

LATE = "h = Gemm <transB = 1> (x, w, b) r = Relu (h) y = Gemm <transB = 1> (r, v)"


def late(threshold: float) -> onnx.ModelProto:
    """``x`` and, from a threshold on, twice its excess."""
    values = {"w": [[1.0], [1.0]], "b": [0.0, -threshold], "v": [[1.0, 2.0]]}
    arrays = {name: np.array(given, np.float32) for name, given in values.items()}
    return parse(LATE, "float[1,1] x", "float[1,1] y", arrays)


def compared(
    folder: Path, capsys: pytest.CaptureFixture[str], one: onnx.ModelProto, other: onnx.ModelProto, box: str
) -> tuple[int, dict[str, Any]]:
    """Exit code and report."""
    onnx.save(one, folder / "a.onnx")
    onnx.save(other, folder / "b.onnx")
    report = folder / "r.json"
    ran = command(capsys, "verify", folder / "a.onnx", folder / "b.onnx", "--domain", box, "--report", report)
    assert ran.out.splitlines()[-1].startswith("ALIKE" if ran.code == 0 else "DIFFERENT")
    return ran.code, json.loads(report.read_text())


def test_a_model_and_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = compared(tmp_path, capsys, dense(), dense(), "0:1")
    assert code == 0
    assert report["alike"]
    assert report["difference"] == report["bound"] == {"y": 0.0}


def test_the_same_function_with_fewer_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = weights()
    kept = np.flatnonzero(full["w1"].any(axis=1))
    fewer = full | {name: full[name][kept] for name in ("w1", "b1")} | {"w2": full["w2"][:, kept]}
    code, report = compared(tmp_path, capsys, dense(), parse(DENSE, weights=fewer), "0:1")
    assert code == 0
    assert report["bound"]["y"] < 1e-6


def test_a_difference_outside_the_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = compared(tmp_path, capsys, late(2.0), late(3.0), "0:1.5")
    assert code == 0
    assert report["difference"]["y"] == 0.0
    assert compared(tmp_path, capsys, late(2.0), late(3.0), "0:2.5")[0] == 1


def test_a_difference_at_a_corner_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = compared(tmp_path, capsys, late(3.9), late(5.0), "0:4")
    assert code == 1
    assert report["difference"]["y"] == pytest.approx(0.2, rel=1e-5)
    assert report["bound"]["y"] >= report["difference"]["y"]


@pytest.mark.parametrize("change", [1e-2, 1.0])
def test_another_weight_and_its_bound(change: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = weights()
    other["w2"] = other["w2"] + np.float32(change)
    code, report = compared(tmp_path, capsys, dense(), parse(DENSE, weights=other), "0:1")
    assert code == 1
    assert 0 < report["difference"]["y"] <= report["bound"]["y"]


@pytest.mark.parametrize(
    "other",
    [
        parse(DENSE.replace("(x,", "(z,"), "float[N,4] z", weights=weights()),
        parse(DENSE.replace("y =", "z ="), outputs="float[N,3] z", weights=weights()),
        parse(DENSE, "double[N,4] x", "double[N,3] y", weights=weights(dtype=np.float64)),
    ],
    ids=["input", "output", "type"],
)
def test_models_that_cannot_be_compared(
    other: onnx.ModelProto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(dense(), tmp_path / "a.onnx")
    onnx.save(other, tmp_path / "b.onnx")
    ran = command(capsys, "verify", tmp_path / "a.onnx", tmp_path / "b.onnx", "--domain", "0:1")
    assert ran.code == 2
    assert "The models cannot be compared: the " in ran.err
