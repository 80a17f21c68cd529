"""``onnxprune verify`` from end to end: what it prints and answers, with a certificate and without one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.cli.main import main
from onnxprune.verify.reading import seal
from tests.helpers import Ran, command, dense, weights

FILES = ("c.json", "a.onnx", "b.onnx")
SETTINGS = ("--domain", "0:1", "--goal", "size", "--align", "1", "--budget", "0", "--forget", "--quiet")

GONE = 5
"""Units that are inactive on the domain, those that are dead everywhere among them."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, what optimize makes of it, and the certificate."""
    folder = tmp_path_factory.mktemp("made")
    certificate, original, optimized = (str(folder / name) for name in FILES)
    onnx.save(dense(), original)
    assert main(["optimize", original, optimized, *SETTINGS, "--certificate", certificate]) == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with them."""
    for name in FILES:
        shutil.copy(made / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs ``verify`` in that directory."""

    def verify(*arguments: str | Path) -> Ran:
        return command(capsys, "verify", *arguments)

    return verify


def edited(folder: Path, *, sealed: bool, **changes: Any) -> None:
    """Change fields of the certificate, with or without a new seal in both files."""
    path = folder / "c.json"
    content = json.loads(path.read_text()) | changes
    if sealed:
        content["seal"] = seal(content)
        model = onnx.load("b.onnx")
        onnx.helper.set_model_props(model, {"onnxprune.certificate": content["seal"]})
        onnx.save(model, "b.onnx")
    path.write_text(json.dumps(content))


def test_what_optimize_writes_is_accepted(run: Any) -> None:
    ran = run(*FILES)
    assert ran.code == 0
    assert f"units removed or merged: {GONE} inactive" in ran.out
    assert "NOT checked" not in ran.out
    assert ran.out.splitlines()[-1].startswith("VERIFIED in ")
    assert ran.out.splitlines()[-1].endswith("(float64, rounded outward)")


def test_a_dry_run_writes_no_certificate(folder: Path) -> None:
    assert main(["optimize", "a.onnx", "new.onnx", *SETTINGS, "--dry-run", "--certificate", "new.json"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_rational_numbers(run: Any) -> None:
    ran = run(*FILES, "--exact")
    assert ran.code == 0
    assert ran.out.splitlines()[-1].endswith("(rational numbers)")


def test_a_report_on_standard_output_is_all_there_is(run: Any) -> None:
    ran = run(*FILES, "--report", "-")
    report = json.loads(ran.out)
    assert ran.code == 0
    assert "VERIFIED" in ran.err
    assert report["verified"]
    assert report["exact"] is False
    assert sum(report["units"].values()) == GONE
    assert report["float32"]["robust"] == report["float32"]["units"]


def test_quiet(run: Any) -> None:
    assert run(*FILES, "--quiet") == Ran(0, "", "")


@pytest.mark.parametrize("sealed", [False, True], ids=["old seal", "new seal"])
def test_a_changed_certificate_is_rejected_with_the_reason(sealed: bool, run: Any, folder: Path) -> None:
    content = json.loads((folder / "c.json").read_text())
    (name,) = content["domain"]["inputs"]
    wider = {"lower": [[-9.0] * 4], "upper": [[9.0] * 4]}
    edited(folder, sealed=sealed, domain={**content["domain"], "inputs": {name: wider}})
    ran = run(*FILES)
    assert ran.code == 1
    assert ran.out.startswith("REJECTED: ")
    assert len(ran.out.splitlines()) == 1
    assert ("seal" in ran.out) is not sealed


def test_a_rejection_is_reported(run: Any, folder: Path) -> None:
    edited(folder, sealed=False, claims=[])
    ran = run(*FILES, "--report", "r.json")
    report = json.loads((folder / "r.json").read_text())
    assert ran.code == 1
    assert not report["verified"]
    assert report["reason"] in ran.out


def test_a_changed_weight_is_rejected(run: Any) -> None:
    model = onnx.load("b.onnx")
    tensor = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1e-3
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, "b.onnx")
    ran = run(*FILES)
    assert ran.code == 1
    assert "another optimized model" in ran.out


@pytest.mark.parametrize(
    ("files", "code", "text"),
    [
        (("none.json", "a.onnx", "b.onnx"), 2, "No such file: none.json"),
        (("c.json", "none.onnx", "b.onnx"), 2, "none.onnx"),
        (("half.json", "a.onnx", "b.onnx"), 2, "half.json is not JSON"),
        (("other.json", "a.onnx", "b.onnx"), 2, "other.json is not a certificate"),
        ((".", "a.onnx", "b.onnx"), 2, "Cannot read ."),
        (("a.onnx", "c.json", "b.onnx"), 2, "c.json"),
        (("c.json", "b.onnx", "a.onnx"), 1, "another original"),
        (("c.json", "a.onnx", "a.onnx"), 1, "another optimized model"),
        (("c.json", "a.onnx", "wrong.onnx"), 1, "another optimized model"),
        (("c.json", "wrong.onnx", "b.onnx"), 1, "another original"),
        (("a.onnx",), 2, "two or three files, not 1"),
        (("c.json", "a.onnx", "b.onnx", "b.onnx"), 2, "two or three files, not 4"),
    ],
)
def test_files_that_do_not_fit(files: tuple[str, ...], code: int, text: str, run: Any, folder: Path) -> None:
    (folder / "half.json").write_text((folder / "c.json").read_text()[:100])
    (folder / "other.json").write_text("{}")
    other = weights()
    other["b2"] = other["b2"] + np.float32(1)
    model = dense()
    model.graph.initializer[3].CopyFrom(onnx.numpy_helper.from_array(other["b2"], "b2"))
    onnx.save(model, "wrong.onnx")
    ran = run(*files)
    said = ran.err if code == 2 else ran.out
    assert ran.code == code
    assert text in said
    assert 1 <= len(said.splitlines()) <= 2
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("where", ["none/c.json", ".", "a.onnx", "b2.onnx"])
def test_certificates_that_cannot_be_written(where: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "a.onnx").read_bytes()
    ran = command(capsys, "optimize", "a.onnx", "b2.onnx", *SETTINGS, "--certificate", where)
    assert ran.code == 2
    assert 1 <= len(ran.err.splitlines()) <= 2
    assert (folder / "a.onnx").read_bytes() == before
    assert not (folder / "b2.onnx").exists()


@pytest.mark.parametrize("where", ["none/r.json", ".", "c.json", "a.onnx"])
def test_reports_that_cannot_be_written(where: str, run: Any, folder: Path) -> None:
    before = {name: (folder / name).read_bytes() for name in FILES}
    ran = run(*FILES, "--report", where)
    assert ran.code == 2
    assert 1 <= len(ran.err.splitlines()) <= 2
    assert {name: (folder / name).read_bytes() for name in FILES} == before


def test_two_models_that_do_the_same(run: Any) -> None:
    ran = run("a.onnx", "b.onnx", "--domain", "0:1")
    assert ran.code == 0
    assert ran.out.splitlines()[-1].startswith("ALIKE")


def test_two_models_that_differ(run: Any, folder: Path) -> None:
    other = weights()
    model = dense()
    model.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(other["w2"] * np.float32(2), "w2"))
    onnx.save(model, "wrong.onnx")
    ran = run("a.onnx", "wrong.onnx", "--domain", "0:1", "--report", "r.json")
    assert ran.code == 1
    assert ran.out.splitlines()[-1].startswith("DIFFERENT")
    assert json.loads((folder / "r.json").read_text())["alike"] is False


def test_a_model_and_itself_on_every_input(run: Any) -> None:
    assert run("a.onnx", "a.onnx").code == 0


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, "verify", "--help")
    assert ran.code == 0
    assert "onnxprune verify certificate.json model.onnx smaller.onnx" in ran.out
