"""Passes that change the function on purpose: run once, when asked for, and the rest is held to their result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import InputError
from onnxprune.pass_api import Exactness
from onnxprune.pass_registry import available, select
from tests.helpers import assert_equal_models, command, run
from tests.surgeon.small import HIDDEN, WEIGHTS, data, dense_model, stored

NAMES = ("cancel_weights", "cancel_units")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cal.npz"
    np.savez(path, **data())  # type: ignore[arg-type] # arrays by name
    return path


def zeros(model: onnx.ModelProto) -> int:
    return sum(int((stored(model)[name] == 0).sum()) for name in ("w1", "w2"))


def test_they_say_that_they_are_approximate_and_never_run_unasked() -> None:
    for name in NAMES:
        assert available()[name].exactness is Exactness.APPROXIMATE
    assert not {item.name for item in select(None)} & set(NAMES)


def test_weights_are_cancelled_once_and_the_result_is_checked_against_that(file: Path) -> None:
    passes = f"tidy,cancel_weights{{data={file},sparsity=0.9,method=magnitude}},remove_inactive,remove_unused"
    alone = onnxprune.optimize(dense_model(), passes=f"cancel_weights{{data={file},sparsity=0.9,method=magnitude}}")
    assert zeros(alone.model) == WEIGHTS - int(0.1 * WEIGHTS)
    found = onnxprune.optimize(dense_model(), passes=passes, goal="size")
    entries = {entry["name"]: entry for entry in found.report["passes"]}
    assert entries["cancel_weights"]["exactness"] == "APPROXIMATE"
    assert entries["cancel_weights"]["changes"] == {"weights set to zero": WEIGHTS - int(0.1 * WEIGHTS)}
    assert entries["remove_inactive"]["removed"] > 0
    assert any("APPROXIMATE" in note for note in found.report["notes"])
    assert_equal_models(alone.model, found.model)
    assert found.report["validation"]["max_abs_error"] < 1e-4
    gap = np.abs(run(found.model, data())[0] - run(dense_model(), data())[0]).max()
    assert gap > 0.1


def test_a_pattern(file: Path) -> None:
    text = f"cancel_weights{{data={file},pattern=2:4,budget=0.2,samples=40}}"
    found = onnxprune.optimize(dense_model(), passes=text, goal="size")
    assert ((stored(found.model)["w1"] != 0).reshape(-1, 4).sum(axis=1) == 2).all()


def test_units_go_with_the_passes_that_remove_what_is_silent(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = file.parent
    onnx.save(dense_model(), folder / "in.onnx")
    passes = f"tidy,cancel_units{{data={file},macs=0.5,budget=0.2}},remove_inactive,remove_unused"
    ran = command(capsys, "optimize", folder / "in.onnx", folder / "out.onnx", "--passes", passes, "--goal", "size")
    assert ran.code == 0
    assert "[APPROXIMATE]" in ran.out
    assert stored(onnx.load(folder / "out.onnx"))["w1"].shape == (HIDDEN // 2, 16)


@pytest.mark.parametrize("name", NAMES)
def test_without_data_nothing_can_be_done(name: str) -> None:
    with pytest.raises(InputError, match="needs data"):
        onnxprune.optimize(dense_model(), passes=name)


def test_other_mistakes(file: Path) -> None:
    with pytest.raises(InputError, match="sparsity cannot be 9"):
        onnxprune.optimize(dense_model(), passes=f"cancel_weights{{data={file},sparsity=9}}")
    with pytest.raises(InputError, match="Cannot read"):
        onnxprune.optimize(dense_model(), passes="cancel_weights{data=missing.npz}")


def test_a_change_of_the_function_has_no_certificate(file: Path) -> None:
    with pytest.raises(InputError, match="no certificate"):
        onnxprune.optimize(dense_model(), domain="0:1", passes=f"cancel_weights{{data={file}}}", certificate=True)
