"""Model files: what is read, what is refused, and that writing leaves either all or nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

import onnxprune
from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.graph import files
from onnxprune.graph.kinds import ModelLike
from tests.helpers import DENSE, assert_equal_models, dense, parse, run, snapshot, untouchable, weights


def stored(model: ModelProto, path: Path, *, external: str = "") -> Path:
    """The model in a file, with its weights in another one where a name is given."""
    if external:
        model = onnx.ModelProto.FromString(model.SerializeToString())  # saving would change the caller's
        onnx.save_model(model, path, save_as_external_data=True, location=external, size_threshold=0)
    else:
        path.write_bytes(model.SerializeToString())
    return path


def fail(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("form", ["path", "text", "bytes", "proto"])
def test_model_can_be_given_in_any_form(form: str, tmp_path: Path) -> None:
    model = dense()
    path = stored(model, tmp_path / "model.onnx")
    given: dict[str, ModelLike] = {
        "path": path,
        "text": str(path),
        "bytes": path.read_bytes(),
        "proto": model,
    }
    source = files.load(given[form])
    assert source.model == model
    assert source.model is not model
    assert source.path == (path if form in ("path", "text") else None)


@pytest.mark.parametrize("share", np.linspace(0, 1, 41, endpoint=False))
def test_any_truncation_is_refused_or_harmless(share: float) -> None:
    """A cut between two fields may leave a smaller model; it is refused later if it does not run."""
    data = dense().SerializeToString()
    with contextlib.suppress(InputError):
        files.load(data[: int(len(data) * share)])


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
def test_truncated_files_never_crash_the_job(name: str, tmp_path: Path) -> None:
    path = stored(dense(), tmp_path / "model.onnx", external="model.onnx.data")
    data = (tmp_path / name).read_bytes()
    for size in range(0, len(data), 41):
        (tmp_path / name).write_bytes(data[:size])
        with pytest.raises(onnxprune.OnnxpruneError):
            onnxprune.optimize(path, goal="size")


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_never_crash_the_job(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(dense().SerializeToString())
    for place in rng.integers(0, len(data), 3):
        data[place] = rng.integers(0, 256)
    with contextlib.suppress(onnxprune.OnnxpruneError):
        onnxprune.optimize(bytes(data), goal="size")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("place", ["initializer", "sparse", "constant", "branch"])
def test_nan_is_refused_wherever_it_is_stored(dtype: Any, place: str) -> None:
    values = numpy_helper.from_array(np.array([1, np.nan, np.inf], dtype), "odd")
    model = untouchable()
    if place == "initializer":
        model.graph.initializer.append(values)
    elif place == "sparse":
        indices = numpy_helper.from_array(np.array([0, 1, 2]), "indices")
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [9]))
    else:
        constant = helper.make_node("Constant", [], ["c"], value=values)
        body = helper.make_graph([constant], "body", [], [])
        branch = helper.make_node("If", ["flag"], ["z"], then_branch=body, else_branch=body)
        model.graph.node.append(constant if place == "constant" else branch)
    with pytest.raises(InputError, match="NaN"):
        files.load(model)


def test_both_infinities_are_no_nan() -> None:
    ends = numpy_helper.from_array(np.array([-np.inf, np.inf], np.float32), "ends")
    model = untouchable()
    model.graph.initializer.append(ends)
    assert files.load(model).model == model


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.bool_, np.float32])
def test_weights_of_another_length_are_refused(dtype: Any) -> None:
    model = untouchable()
    tensor = numpy_helper.from_array(np.ones(5).astype(dtype), "spare")
    tensor.raw_data = tensor.raw_data[:-1]
    model.graph.initializer.append(tensor)
    with pytest.raises(InputError, match="'spare' is damaged"):
        files.load(model)


@pytest.mark.parametrize("location", ["../secret.bin", "/nowhere/weights.bin", "nowhere.bin"])
def test_external_data_stays_beside_the_model(location: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    path = stored(dense(), inside / "model.onnx", external="weights.bin")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="external data"):
        files.load(path)


@pytest.mark.parametrize("build", [dense, untouchable])
def test_external_data_round_trip(build: Callable[[], ModelProto], tmp_path: Path) -> None:
    original = build()
    source = files.load(stored(original, tmp_path / "model.onnx", external="weights.bin"))
    result = onnxprune.optimize(tmp_path / "model.onnx", goal="size")
    assert_equal_models(original, result.model)
    target = tmp_path / "result" / "model.onnx"
    target.parent.mkdir()
    if result.modified:
        files.save(result.model, target, external=bool(source.external))
    else:
        files.copy_unchanged(source, target)
        assert len(list(target.parent.iterdir())) == 2
        assert target.read_bytes() == (tmp_path / "model.onnx").read_bytes()
        assert (target.parent / "weights.bin").read_bytes() == (tmp_path / "weights.bin").read_bytes()
    assert_equal_models(original, onnx.load(target))


def test_external_data_of_a_branch_is_found(tmp_path: Path) -> None:
    model = parse(
        """y = If (flag) <
            then_branch = yes () => (float[3] p) { p = Constant () },
            else_branch = no () => (float[3] q) { q = Identity (b2) }
        >""",
        "bool flag",
        "float[3] y",
        weights(),
    )
    values = numpy_helper.from_array(np.arange(3, dtype=np.float32))
    model.graph.node[0].attribute[0].g.node[0].attribute.append(helper.make_attribute("value", values))
    path = tmp_path / "model.onnx"
    onnx.save_model(
        model, path, save_as_external_data=True, location="weights.bin", size_threshold=0, convert_attribute=True
    )
    del model.graph.initializer[:]
    source = files.load(path)
    assert source.external == ("weights.bin",)
    found = run(source.model, {"flag": np.array(True)})
    np.testing.assert_array_equal(found[0], np.arange(3))


@pytest.mark.parametrize("external", [False, True])
def test_save_replaces_what_was_there(external: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    for _ in range(2):
        files.save(dense(), path, external=external)
        assert_equal_models(dense(), onnx.load(path))
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_save_keeps_the_mode_of_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    path.chmod(0o640)
    files.save(dense(), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    files.save(dense(), tmp_path / "model.onnx")
    usual, found = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "model.onnx"))
    assert found == usual


WRITES = {
    "creating": (tempfile, "mkstemp"),
    "writing": (Path, "write_bytes"),
    "flushing": (os, "fsync"),
    "replacing": (Path, "replace"),
}
EXTERNAL_WRITES = {
    "creating": (tempfile, "mkdtemp"),
    "writing": (onnx, "save_model"),
    "replacing": (Path, "replace"),
}


@pytest.mark.parametrize("old", [b"", b"the old result"])
@pytest.mark.parametrize(
    ("external", "where"),
    [(False, where) for where in WRITES.values()] + [(True, where) for where in EXTERNAL_WRITES.values()],
    ids=[*WRITES, *(f"{name} with external data" for name in EXTERNAL_WRITES)],
)
def test_full_disk_leaves_everything_as_it_was(
    external: bool, where: tuple[Any, str], old: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    if old:
        path.write_bytes(old)
    before = snapshot(tmp_path)
    monkeypatch.setattr(*where, fail)
    with pytest.raises(EnvironmentFailure, match="No space left"):
        files.save(dense(), path, external=external)
    monkeypatch.undo()
    assert snapshot(tmp_path) == before


def test_copy_does_not_overwrite_the_data_of_another_model(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    source = files.load(stored(untouchable(), ours / "model.onnx", external="weights.bin"))
    stored(dense(), theirs / "other.onnx", external="weights.bin")
    before = snapshot(theirs)
    files.copy_unchanged(source, theirs / "model.onnx")
    assert before.items() <= snapshot(theirs).items()
    assert_equal_models(untouchable(), onnx.load(theirs / "model.onnx"))


def test_copy_onto_itself_is_no_change(tmp_path: Path) -> None:
    path = stored(untouchable(), tmp_path / "model.onnx", external="weights.bin")
    before = snapshot(tmp_path)
    files.copy_unchanged(files.load(path), path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["folder", "no folder", "below a file", "pipe", "long name", "folder loop"])
def test_unwritable_output_is_refused_early(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    path = {
        "folder": tmp_path,
        "no folder": tmp_path / "nowhere" / "out.onnx",
        "below a file": tmp_path / "file" / "out.onnx",
        "pipe": tmp_path / "pipe",
        "long name": tmp_path / ("n" * 300 + ".onnx"),
        "folder loop": tmp_path / "loop" / "out.onnx",
    }[kind]
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError) as caught:
        files.check_writable(path)
    assert caught.value.hint
    assert sorted(os.listdir(tmp_path)) == before


def test_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        files.check_writable(tmp_path / "out.onnx")


def test_longest_possible_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".onnx")
    files.check_writable(path)
    files.save(dense(), path)
    assert onnx.load(path) == dense()


def test_fingerprint_ignores_our_own_notes_only() -> None:
    plain, noted, other = dense(), dense(), dense()
    helper.set_model_props(noted, {"onnxprune.align": "8", "onnxprune.domain.x": "0:1"})
    helper.set_model_props(other, {"names": "cat"})
    assert files.fingerprint(noted) == files.fingerprint(plain)
    assert files.fingerprint(other) != files.fingerprint(plain)
    assert files.fingerprint(parse(DENSE, weights=weights(dead=()))) != files.fingerprint(plain)


def test_computing_a_constant_leaves_the_model_as_it_was() -> None:
    tensor = onnx.numpy_helper.from_array(np.array([2.0], np.float32))  # without a name, as exporters write it
    nodes = [
        onnx.helper.make_node("ConstantOfShape", ["shape"], ["filled"], value=tensor),
        onnx.helper.make_node("Add", ["x", "filled"], ["y"]),
    ]
    shape = onnx.numpy_helper.from_array(np.array([3], np.int64), "shape")
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3]) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], [shape]), ir_version=8)
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", 17))
    result = onnxprune.optimize(model, goal="size", budget=0.0)
    assert len(result.model.graph.node) == 1
    assert result.source.model.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
