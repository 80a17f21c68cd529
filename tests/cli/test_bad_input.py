"""Whatever a user gets wrong: a message of one or two lines, the right exit code, and nothing written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest

import onnxprune
from tests.helpers import DENSE, Ran, command, dense, parse, snapshot, weights

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
VNNLIB = "(declare-const X_0 Real)\n(assert (<= X_0 1.0))\n"


def broken(name: str, values: np.ndarray[Any, Any]) -> onnx.ModelProto:
    return parse(DENSE, weights={**weights(), name: values})


def with_nan_constant() -> onnx.ModelProto:
    model = parse("c = Constant () y = Add (x, c)", outputs="float[N,4] y")
    values = onnx.numpy_helper.from_array(np.array([np.nan], np.float32))
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("value", values))
    return model


def damaged() -> onnx.ModelProto:
    model = dense()
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-3]
    return model


def external(folder: Path, name: str, *, keep: float) -> None:
    """A model with external data, of which only a share is left."""
    data = folder / f"{name}.data"
    onnx.save_model(dense(), folder / name, save_as_external_data=True, location=data.name, size_threshold=0)
    if keep:
        os.truncate(data, int(data.stat().st_size * keep))
    else:
        data.unlink()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one usable model and many unusable files."""
    folder = tmp_path_factory.mktemp("template")
    models = {
        "model": dense(),
        "nan": broken("w2", np.full((3, 8), np.nan, np.float32)),
        "nan_half": broken("w2", np.full((3, 8), np.nan, np.float16)),
        "nan_constant": with_nan_constant(),
        "damaged": damaged(),
        "opset6": dense(opset=6),
        "no_opset": dense(),
        "zero": dense(inputs="float[0,4] x"),
        "custom": parse("h = acme.Foo (x) y = Relu (h)", imports=', "acme": 1'),
        "unknown": parse("y = Frobnicate (x)"),
        "mismatch": parse("y = Gemm (x, w1)", weights=weights()),
        "undefined": parse("y = Add (x, nowhere)"),
        "sequence": parse("y = ConcatFromSequence <axis = 0> (x)", "seq(float[N,3]) x"),
        "text": parse("y = Identity (x)", "string[2] x", "string[2] y"),
    }
    del models["no_opset"].opset_import[:]
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    whole = (folder / "model.onnx").read_bytes()
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "picture.onnx").write_bytes(PNG)
    (folder / "notes.onnx").write_text("This is not the model you are looking for.\n")
    (folder / "zeros.onnx").write_bytes(bytes(64))
    external(folder, "missing_data.onnx", keep=0)
    external(folder, "short_data.onnx", keep=0.5)
    (folder / "folder").mkdir()
    (folder / "file").write_text("a file, not a folder")
    boxes: dict[str, dict[str, Any]] = {
        "box_shape": {"x.lower": np.zeros(7), "x.upper": np.ones(7)},
        "box_name": {"z.lower": np.zeros(4), "z.upper": np.ones(4)},
        "box_nothing": {"x": np.zeros(4)},
        "box_nan": {"x.lower": np.full(4, np.nan), "x.upper": np.ones(4)},
        "box_inverted": {"x.lower": np.ones(4), "x.upper": np.zeros(4)},
        "data_name": {"image": np.zeros((2, 4))},
        "data_more": {"x": np.zeros((2, 4)), "z": np.zeros((2, 4))},
        "data_shape": {"x": np.zeros((2, 5))},
        "data_rank": {"x": np.zeros((2, 1, 1, 4))},
        "data_scalar": {"x": np.array(1.0)},
        "data_none": {"x": np.zeros((0, 4))},
        "data_nan": {"x": np.full((2, 4), np.nan)},
        "data_text": {"x": np.array([["a", "b", "c", "d"]])},
        "data_pickle": {"x": np.array([{}, {}], dtype=object)},
    }
    for name, arrays in boxes.items():
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "not_a_zip.npz").write_bytes(PNG)
    (folder / "cut_zip.npz").write_bytes((folder / "data_name.npz").read_bytes()[:100])
    (folder / "empty.npz").write_bytes(b"")
    np.save(folder / "point.npy", np.zeros(4))
    np.save(folder / "point_shape.npy", np.zeros(5))
    np.save(folder / "point_nan.npy", np.full(4, np.nan))
    shutil.copy(folder / "point.npy", folder / "array.npz")
    (folder / "short.vnnlib").write_text(VNNLIB)
    (folder / "garbage.vnnlib").write_text("((((")
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the template, as working directory."""
    here = tmp_path / "here"
    shutil.copytree(template, here)
    os.mkfifo(here / "pipe")
    monkeypatch.chdir(here)
    return here


class Bad(NamedTuple):
    """Arguments, what the message must mention, and the exit code."""

    arguments: str
    words: str
    code: int = 2


MODELS = {
    "missing file": Bad("optimize nowhere.onnx out.onnx", "No such file: nowhere.onnx"),
    "path through a file": Bad("optimize file/model.onnx out.onnx", "file/model.onnx"),
    "directory": Bad("optimize folder out.onnx", "folder is a directory"),
    "empty file": Bad("optimize empty.onnx out.onnx", "empty.onnx is empty"),
    "truncated": Bad("optimize cut.onnx out.onnx", "cut.onnx truncated"),
    "picture": Bad("optimize picture.onnx out.onnx", "picture.onnx not an ONNX"),
    "text": Bad("optimize notes.onnx out.onnx", "notes.onnx not an ONNX"),
    "zeros": Bad("optimize zeros.onnx out.onnx", "zeros.onnx not an ONNX"),
    "NaN": Bad("optimize nan.onnx out.onnx", "nan.onnx 'w2' NaN"),
    "NaN in half precision": Bad("optimize nan_half.onnx out.onnx", "nan_half.onnx 'w2' NaN"),
    "NaN in a Constant node": Bad("optimize nan_constant.onnx out.onnx", "nan_constant.onnx NaN"),
    "damaged weights": Bad("optimize damaged.onnx out.onnx", "damaged.onnx 'w1' damaged"),
    "old opset": Bad("optimize opset6.onnx out.onnx", "opset6.onnx opset6.onnx 6; 7. version_converter"),
    "no opset": Bad("optimize no_opset.onnx out.onnx", "no_opset.onnx opset"),
    "missing external data": Bad("optimize missing_data.onnx out.onnx", "missing_data.onnx external data"),
    "short external data": Bad("optimize short_data.onnx out.onnx", "short_data.onnx"),
    "empty dimension": Bad("optimize zero.onnx out.onnx", "'x' zero"),
    "sequence input": Bad("optimize sequence.onnx out.onnx", "'x' tensor"),
    "text input": Bad("optimize text.onnx out.onnx", "'x' sampled"),
    "custom operator": Bad("optimize custom.onnx out.onnx", "Foo --custom-ops", 1),
    "unknown operator": Bad("optimize unknown.onnx out.onnx", "Frobnicate --custom-ops", 1),
    "shapes that do not fit": Bad("optimize mismatch.onnx out.onnx", "ONNX Runtime cannot", 1),
    "undefined tensor": Bad("optimize undefined.onnx out.onnx", "nowhere", 1),
    "inspect a missing file": Bad("inspect nowhere.onnx", "No such file: nowhere.onnx"),
    "inspect a picture": Bad("inspect picture.onnx", "picture.onnx not an ONNX"),
}
DOMAINS = {
    "unknown input": Bad("--domain z=0:1", "'z' x"),
    "inverted": Bad("--domain 1:0", "inverted 'x'"),
    "empty after intersection": Bad("--domain 0:1 --domain x=2:3", "'x'"),
    "unparsable": Bad("--domain abc", "'abc' 0:1"),
    "three numbers": Bad("--domain 0:1:2", "'0:1:2'"),
    "no name": Bad("--domain =0:1", "0:1"),
    "not a number": Bad("--domain nan:1", "nan:1"),
    "nothing": Bad("--domain :", "':'"),
    "missing npz": Bad("--domain nowhere.npz", "nowhere.npz"),
    "npz shape": Bad("--domain box_shape.npz", "box_shape.npz x 7"),
    "npz name": Bad("--domain box_name.npz", "box_name.npz 'z'"),
    "npz without bounds": Bad("--domain box_nothing.npz", "box_nothing.npz lower upper"),
    "npz with NaN": Bad("--domain box_nan.npz", "box_nan.npz NaN"),
    "npz inverted": Bad("--domain box_inverted.npz", "'x' lower upper"),
    "npz that is none": Bad("--domain not_a_zip.npz", "not_a_zip.npz"),
    "npz truncated": Bad("--domain cut_zip.npz", "cut_zip.npz"),
    "npz empty": Bad("--domain empty.npz", "empty.npz"),
    "missing vnnlib": Bad("--domain nowhere.vnnlib", "nowhere.vnnlib"),
    "vnnlib of another model": Bad("--domain short.vnnlib", "short.vnnlib 1 4"),
    "garbage vnnlib": Bad("--domain garbage.vnnlib", "garbage.vnnlib"),
    "radius alone": Bad("--radius 0.1", "--around --radius"),
    "around alone": Bad("--around point.npy", "--around --radius"),
    "inverted and negative": Bad("--domain -1:-2", "inverted 'x' -1 -2"),
    "negative radius": Bad("--around point.npy --radius -0.1", "-0.1"),
    "radius not a number": Bad("--around point.npy --radius nan", "nan"),
    "radius not numeric": Bad("--around point.npy --radius wide", "--radius 'wide'"),
    "missing point": Bad("--around nowhere.npy --radius 1", "nowhere.npy"),
    "point shape": Bad("--around point_shape.npy --radius 1", "point_shape.npy"),
    "point with NaN": Bad("--around point_nan.npy --radius 1", "point_nan.npy NaN"),
    "point outside": Bad("--around point.npy --radius 1 --domain 5:6", "'x'"),
    "mean alone": Bad("--mean 0.5", "--mean --domain"),
    "std alone": Bad("--std 0.5", "--std --domain"),
    "mean for an npz": Bad("--mean 0.5 --domain box_nothing.npz", "box_nothing.npz"),
    "mean not numeric": Bad("--domain 0:1 --mean a,b", "--mean 'a,b'"),
    "mean of no channel": Bad("--domain 0:1 --mean .1,.2,.3 --std .1,.2,.3", "3 'x'"),
    "lengths differ": Bad("--domain 0:1 --mean .1,.2 --std .1,.2,.3", "2 3"),
    "std zero": Bad("--domain 0:1 --std 0", "std"),
}
OPTIONS = {
    "unknown pass": Bad("--passes remove_inactiv", "'remove_inactiv' 'remove_inactive'"),
    "unknown skipped pass": Bad("--skip nothing", "'nothing'"),
    "unknown pass option": Bad("--passes remove_inactive{speed=9}", "'remove_inactive' 'speed'"),
    "unclosed pass option": Bad("--passes remove_inactive{speed=9", "pass speed=9"),
    "no pass": Bad("--passes ,", "pass"),
    "unknown kept node": Bad("--keep nowhere", "--keep nowhere inspect"),
    "unknown provider": Bad("--provider abacus", "'abacus' cpu"),
    "shape of an unknown input": Bad("--shape z=1,4", "'z' x"),
    "shape without sizes": Bad("--shape x=", "'x='"),
    "shape without name": Bad("--shape 1,4", "'1,4'"),
    "shape of zero": Bad("--shape x=0,4", "x=0,4"),
    "shape of another rank": Bad("--shape x=1,4,4", "x 1 4 N"),
    "shape against a fixed size": Bad("--shape x=1,5", "x 1 5 4"),
    "missing data": Bad("--data nowhere.npz", "nowhere.npz"),
    "data names": Bad("--data data_name.npz", "image x"),
    "data for too many": Bad("--data data_more.npz", "z x"),
    "data shape": Bad("--data data_shape.npz", "'x' 5 4"),
    "data rank": Bad("--data data_rank.npz", "'x' shape"),
    "data scalar": Bad("--data data_scalar.npz", "'x'"),
    "data without samples": Bad("--data data_none.npz", "'x'"),
    "data with NaN": Bad("--data data_nan.npz", "'x' NaN"),
    "data of text": Bad("--data data_text.npz", "'x'"),
    "data with objects": Bad("--data data_pickle.npz", "data_pickle.npz"),
    "data that is a model": Bad("--data model.onnx", "model.onnx npz"),
    "data that is a single array": Bad("--data point.npy", "point.npy npz"),
    "data that only claims to be an npz": Bad("--data array.npz", "array.npz"),
    "data truncated": Bad("--data cut_zip.npz", "cut_zip.npz npz"),
    "data empty": Bad("--data empty.npz", "empty.npz npz"),
    "data in a folder": Bad("--data folder", "folder npz"),
    "align": Bad("--align 3", "--align '3' 16"),
    "align zero": Bad("--align 0", "--align '0'"),
    "goal": Bad("--goal speed", "--goal 'speed' latency"),
    "negative seed": Bad("--seed -1", "--seed -1"),
    "seed not a number": Bad("--seed x", "--seed 'x'"),
    "negative threads": Bad("--threads -1", "--threads -1"),
    "negative tolerance": Bad("--tolerance -1", "--tolerance -1"),
    "tolerance not a number": Bad("--tolerance nan", "--tolerance nan"),
    "negative budget": Bad("--budget -1", "--budget -1"),
    "budget not a number": Bad("--budget long", "--budget 'long'"),
    "endless budget": Bad("--budget inf", "--budget inf"),
    "method": Bad("--method magic", "--method 'magic' leo"),
    "trust": Bad("--trust nobody", "--trust 'nobody' certified"),
    "solver": Bad("--solver abacus", "--solver 'abacus' highs"),
    "rule": Bad("--rule columns", "--rule 'columns' rows"),
    "no jobs": Bad("--jobs 0", "--jobs '0'"),
    "jobs not a number": Bad("--jobs many", "--jobs 'many'"),
    "forget with a value": Bad("--forget=yes", "--forget 'yes'"),
    "solver check with a value": Bad("--solver-check=cbc", "--solver-check 'cbc'"),
    "unknown option": Bad("--fast", "--fast"),
    "missing library": Bad("--custom-ops nowhere.so", "nowhere.so"),
    "report in no folder": Bad("--report nowhere/report.json", "nowhere"),
    "report into a device": Bad("--report pipe", "pipe regular"),
    "report is a folder": Bad("--report folder", "folder directory"),
    "report over the model": Bad("--report model.onnx", "--report model.onnx"),
    "report over the result": Bad("--report out.onnx", "--report out.onnx"),
}
OUTPUTS = {
    "no folder": Bad("optimize model.onnx nowhere/out.onnx", "nowhere"),
    "below a file": Bad("optimize model.onnx file/out.onnx", "file"),
    "a folder": Bad("optimize model.onnx folder", "folder directory"),
    "nothing": Bad("optimize model.onnx", "OUT"),
    "a device": Bad("optimize model.onnx pipe", "pipe regular"),
    "over external data": Bad("optimize short_data.onnx short_data.onnx.data", "short_data.onnx"),
}
USAGE = {
    "nothing": Bad("", "onnxprune command"),
    "unknown command": Bad("optimise model.onnx out.onnx", "'optimise' 'optimize'"),
    "unknown flag": Bad("--fast", "onnxprune"),
    "too much": Bad("optimize model.onnx out.onnx more.onnx", "more.onnx"),
    "nothing to inspect": Bad("inspect", "IN"),
    "passes of something": Bad("passes model.onnx", "model.onnx"),
}


def check_refusal(ran: Ran, bad: Bad) -> None:
    """One or two lines that say what, where, and what to do."""
    assert ran.code == bad.code, ran
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert 1 <= len(lines) <= 2, ran.err
    assert lines[-1].strip(), ran.err
    assert "Traceback" not in ran.err
    for word in bad.words.split():
        assert word in ran.err


def rows(*tables: dict[str, Bad]) -> pytest.MarkDecorator:
    """One test per row, called by its name."""
    named = [pytest.param(bad, id=name) for table in tables for name, bad in table.items()]
    return pytest.mark.parametrize("bad", named)


@rows(MODELS, OUTPUTS, USAGE)
def test_call_is_refused(bad: Bad, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(folder)
    arguments = bad.arguments.split()
    if len(arguments) > 1 and arguments[0] == "optimize":
        arguments += ["--report", "report.json"]
    check_refusal(command(capsys, *arguments), bad)
    assert snapshot(folder) == before


@rows(DOMAINS, OPTIONS)
def test_option_is_refused(bad: Bad, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(folder)
    report = [] if "--report" in bad.arguments else ["--report", "report.json"]
    ran = command(capsys, "optimize", "model.onnx", "out.onnx", *bad.arguments.split(), *report)
    check_refusal(ran, bad)
    assert snapshot(folder) == before


PYTHON: dict[str, tuple[dict[str, Any], str]] = {
    "negative seed": ({"seed": -1}, "seed"),
    "negative tolerance": ({"tolerance": -1.0}, "tolerance"),
    "tolerance that accepts everything": ({"tolerance": float("nan")}, "tolerance"),
    "negative threads": ({"threads": -1}, "threads"),
    "align zero": ({"align": 0}, "align"),
    "align negative": ({"align": -4}, "align"),
    "align odd": ({"align": 3}, "align"),
    "align as text": ({"align": "8"}, "align"),
    "goal": ({"goal": "speed"}, "goal"),
    "negative budget": ({"budget": -1.0}, "budget"),
    "endless budget": ({"budget": float("inf")}, "budget"),
    "budget that is no number": ({"budget": float("nan")}, "budget"),
    "method": ({"method": "magic"}, "method"),
    "trust": ({"trust": "nobody"}, "trust"),
    "solver": ({"solver": "abacus"}, "solver"),
    "rule": ({"rule": "columns"}, "rule"),
    "no jobs": ({"jobs": 0}, "jobs"),
    "kept layer that is no list": ({"keep": "nowhere"}, "nowhere"),
    "skipped pass": ({"skip": ["nothing"]}, "nothing"),
    "no pass": ({"passes": ""}, "pass"),
    "pass": ({"passes": ["tidy", "nothing"]}, "nothing"),
    "shape": ({"shapes": {"x": (2, 5)}}, "x"),
    "shape without axes": ({"shapes": {"x": ()}}, "x"),
    "data names": ({"data": {"z": np.zeros((1, 4), np.float32)}}, "z"),
    "data of complex numbers": ({"data": {"x": np.zeros((1, 4), np.complex64)}}, "x"),
    "provider": ({"provider": ""}, "cpu"),
    "domain": ({"domain": "z=0:1"}, "z"),
}


@pytest.mark.parametrize(("options", "word"), PYTHON.values(), ids=PYTHON)
def test_python_option_is_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(onnxprune.InputError) as caught:
        onnxprune.optimize(dense(), **options)
    assert word in str(caught.value)
    assert caught.value.hint


def test_data_may_be_plain_lists() -> None:
    result = onnxprune.optimize(dense(), goal="size", data={"x": [[1, 2, 3, 4]]})
    assert result.modified


@pytest.mark.parametrize("value", ["0", "-8", "abc", "", "1e3", "\N{SUPERSCRIPT TWO}", "9" * 30])
def test_odd_notes_in_the_model_are_no_crash(value: str) -> None:
    model = dense()
    onnx.helper.set_model_props(model, {"onnxprune.align": value, "onnxprune.domain.x": value})
    assert onnxprune.optimize(model).report["schema"] == 1
