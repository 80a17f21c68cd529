"""``--export ort``: files that ONNX Runtime loads, that compute the same, and that appear together or not at all."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest

from onnxprune.domain import Domain
from onnxprune.errors import EnvironmentFailure, InputError, ValidationError
from onnxprune.mobile import PROVIDERS, export_ort, ort_files
from onnxprune.validate import Validator
from tests.helpers import command, conv, feeds, run, snapshot
from tests.report.test_schema import SCHEMA

MODELS = Path(__file__).resolve().parents[2] / "models"
QUICK = ("--goal", "size", "--budget", "0", "--forget")
NAMES = [
    "small.ort",
    "small.required_operators.config",
    "small.required_operators.with_runtime_opt.config",
    "small.with_runtime_opt.ort",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save(conv(), tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def converted(folder: Path, custom_ops: Any) -> None:
    """What the converter does, without its process: files in the .ort format, and lists."""
    for path in ort_files(folder / "model.onnx"):
        if path.suffix == ".ort":
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            options.optimized_model_filepath = str(path)
            options.add_session_config_entry("session.save_model_format", "ORT")
            onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        else:
            path.write_text("# - /somewhere/model.ort\n")


def test_the_whole_chain(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real model: optimized at fixed sizes, exported, loaded, compared, and better suited than before."""
    shutil.copy(MODELS / "slim_cnn.onnx", "in.onnx")
    sizes = ("--shape", "image=1,1,28,28", "--fix-shape")
    ran = command(capsys, "optimize", "in.onnx", "small.onnx", "--export", "ort", *sizes, *QUICK, "--report", "-")
    assert ran.code == 0
    assert sorted(path.name for path in folder.glob("small.*")) == sorted([*NAMES, "small.onnx"])
    for name in NAMES:
        assert f"written: {name}" in ran.err
    small = onnx.load("small.onnx")
    for seed in range(3):
        inputs = feeds(small, seed)
        for expected in (run(onnx.load("in.onnx"), inputs), run(small, inputs)):
            for name in NAMES[::3]:
                found = np.asarray(loaded(folder / name).run(None, inputs)[0])
                np.testing.assert_allclose(found, expected[0], rtol=0, atol=1e-4 * np.abs(expected[0]).max())
    assert (folder / "small.ort").stat().st_size < 0.6 * (folder / "in.onnx").stat().st_size
    lines = (folder / "small.required_operators.config").read_text().splitlines()
    assert lines[1:2] == ["# - small.ort"]
    assert all(line.count(";") == 2 for line in lines if line[0] != "#")
    on_device = (folder / "small.required_operators.with_runtime_opt.config").read_text()
    assert {"Conv", "Gemm", "Relu"} <= set(on_device.replace(";", ",").replace("\n", ",").split(","))
    assert on_device.splitlines()[1:3] == ["# - small.with_runtime_opt.ort", "# - small.ort"]
    report = json.loads(ran.out)
    jsonschema.Draft202012Validator(SCHEMA).validate(report)
    assert list(report["mobile"]) == list(PROVIDERS)
    assert report["mobile"]["nnapi"]["before"]["taken"] == 0
    assert report["mobile"]["nnapi"]["after"]["taken"] == report["mobile"]["nnapi"]["after"]["nodes"] > 0
    assert "NNAPI" in ran.err


def test_files_of_the_same_name_are_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.mobile.export._convert", converted)
    for name in NAMES:
        Path(name).write_text("old")
    with export_ort(conv(), folder / "small.onnx", Validator(conv(), Domain.everything())) as files:
        assert [file.read_text() for file in files] == ["old"] * 4
    assert files == ort_files(folder / "small.onnx")
    assert sorted(path.name for path in folder.iterdir()) == ["m.onnx", *NAMES]
    assert all(Path(name).read_bytes() != b"old" for name in NAMES)
    assert Path(NAMES[1]).read_text() == "# - small.ort\n"


def test_a_dry_run_tells_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(folder)
    ran = command(capsys, "optimize", "m.onnx", "small.onnx", "--export", "ort", "--dry-run", *QUICK)
    assert (ran.code, snapshot(folder)) == (0, before)
    assert "more with fixed sizes (--fix-shape): NNAPI" in ran.out
    assert "written" not in ran.out


def full(*arguments: Any, **options: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def other(made: Path, target: Path, validator: Validator) -> NoReturn:
    raise ValidationError(f"{target.name} differs")


def broken(*arguments: Any) -> NoReturn:
    raise EnvironmentFailure("ONNX Runtime cannot convert")


@pytest.mark.parametrize(
    ("place", "failure"),
    [
        ("onnxprune.mobile.export._convert", broken),
        ("onnxprune.mobile.export._compare", other),
        ("onnxprune.mobile.export.tempfile.TemporaryDirectory", full),
        ("onnxprune.mobile.export.shutil.copyfile", full),
    ],
)
def test_a_failure_leaves_everything_as_it_was(
    place: str, failure: Callable[..., NoReturn], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("small.ort").write_text("old")
    before, validator = snapshot(folder), Validator(conv(), Domain.everything())
    monkeypatch.setattr("onnxprune.mobile.export._convert", converted)
    monkeypatch.setattr(place, failure)
    with (
        pytest.raises((EnvironmentFailure, ValidationError)),
        export_ort(conv(), folder / "small.onnx", validator),
    ):
        pytest.fail("the block must not begin")
    monkeypatch.undo()
    assert snapshot(folder) == before


def test_a_failure_on_the_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(folder)
    monkeypatch.setattr("onnxprune.mobile.export._convert", broken)
    ran = command(capsys, "optimize", "m.onnx", "small.onnx", "--export", "ort", "--report", "r.json", *QUICK)
    assert (ran.code, ran.out) == (1, "")
    assert "cannot convert" in ran.err
    assert len(ran.err.splitlines()) <= 2
    assert snapshot(folder) == before


def test_a_model_that_cannot_be_written_takes_the_rest_with_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.mobile.export._convert", converted)
    before = snapshot(folder)
    with (
        pytest.raises(EnvironmentFailure),
        export_ort(conv(), folder / "small.onnx", Validator(conv(), Domain.everything())),
    ):
        raise EnvironmentFailure("Cannot write small.onnx")
    assert snapshot(folder) == before


def test_a_file_that_computes_something_else_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(place: Path, custom_ops: Any) -> None:
        model = onnx.load(place / "model.onnx")
        weights = onnx.numpy_helper.to_array(model.graph.initializer[0])
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(2 * weights, model.graph.initializer[0].name))
        onnx.save(model, place / "model.onnx")
        converted(place, custom_ops)

    monkeypatch.setattr("onnxprune.mobile.export._convert", wrong)
    validator = Validator(conv(), Domain.everything())
    with (
        pytest.raises(ValidationError, match=r"small\.ort differs from the \.onnx model"),
        export_ort(conv(), folder / "small.onnx", validator),
    ):
        pytest.fail("the block must not begin")
    assert [path.name for path in folder.iterdir()] == ["m.onnx"]


def test_what_the_converter_says_is_passed_on(folder: Path) -> None:
    model, validator = conv(), Validator(conv(), Domain.everything())
    model.graph.node[0].op_type = "Unheard"
    with (
        pytest.raises(EnvironmentFailure, match=r"(?s)cannot convert.*Unheard"),
        export_ort(model, folder / "small.onnx", validator),
    ):
        pytest.fail("the block must not begin")


@pytest.mark.parametrize("taken", NAMES)
def test_a_folder_in_the_way_is_found_early(taken: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(taken).mkdir()
    ran = command(capsys, "optimize", "m.onnx", "small.onnx", "--export", "ort", *QUICK)
    assert (ran.code, len(ran.err.splitlines()) <= 2) == (2, True)
    assert taken in ran.err


def test_a_report_cannot_take_the_name_of_an_exported_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, "optimize", "m.onnx", "small.onnx", "--export", "ort", "--report", "small.ort", *QUICK)
    assert ran.code == 2
    assert "would overwrite" in ran.err


def test_one_library_of_operators_at_most(folder: Path) -> None:
    validator = Validator(conv(), Domain.everything())
    with pytest.raises(InputError, match="one library"), export_ort(conv(), folder / "s.onnx", validator, ["a", "b"]):
        pytest.fail("the block must not begin")
