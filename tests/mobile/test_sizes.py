"""Open dimensions become fixed ones: in Python, on the command line, and what the proof gains by it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import InputError
from onnxprune.mobile import with_fixed_sizes
from tests.helpers import DENSE, assert_equal_models, command, conv, dense, parse, run, snapshot, weights

TWO = "s = Add (a, b) y = Relu (s)"


def sizes(values: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in values.type.tensor_type.shape.dim]


def test_inputs_and_outputs_are_fixed() -> None:
    model = conv()
    before = model.SerializeToString()
    fixed = with_fixed_sizes(model, {"x": (2, 4, 7, 5)})
    assert model.SerializeToString() == before
    assert sizes(fixed.graph.input[0]) == [2, 4, 7, 5]
    assert sizes(fixed.graph.output[0]) == [2, 3, 7, 5]
    inputs = {"x": np.random.default_rng(0).normal(size=(2, 4, 7, 5)).astype(np.float32)}
    np.testing.assert_array_equal(run(fixed, inputs)[0], run(model, inputs)[0])


def test_a_model_with_fixed_sizes_is_handed_back() -> None:
    model = conv(inputs="float[2,4,7,5] x", outputs="float[2,3,7,5] y")
    assert with_fixed_sizes(model, {"x": (2, 4, 7, 5)}) is model


def test_a_name_is_fixed_wherever_it_stands() -> None:
    model = parse(TWO, inputs="float[N,4] a, float[N,4] b", outputs="float[N,4] y")
    fixed = with_fixed_sizes(model, {"a": (3, 4)})
    assert [sizes(value) for value in (*fixed.graph.input, *fixed.graph.output)] == [[3, 4]] * 3


def test_an_unnamed_dimension_and_an_unknown_rank_are_fixed() -> None:
    model = parse(TWO, inputs="float[?,4] a, float b", outputs="float y")
    model.graph.input[1].type.tensor_type.ClearField("shape")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    fixed = with_fixed_sizes(model, {"a": (3, 4), "b": (3, 1)})
    assert [sizes(value) for value in (*fixed.graph.input, *fixed.graph.output)] == [[3, 4], [3, 1], [3, 4]]


def test_stale_notes_about_tensors_in_between_go() -> None:
    model = dense()
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("h", onnx.TensorProto.FLOAT, [1, 8]))
    onnx.checker.check_model(with_fixed_sizes(model, {"x": (3, 4)}), full_check=True)


@pytest.mark.parametrize(
    ("shapes", "complaint"),
    [
        ({"z": (3, 4)}, "unknown input 'z'"),
        ({"a": (3,)}, "does not fit"),
        ({"a": (3, 4, 1)}, "does not fit"),
        ({"a": (3, 5)}, "does not fit"),
        ({"a": (0, 4)}, "does not fit"),
        ({"a": (3, 4), "b": (2, 4)}, "two sizes: 3 and 2"),
    ],
)
def test_what_cannot_be_is_refused(shapes: dict[str, tuple[int, ...]], complaint: str) -> None:
    model = parse(TWO, inputs="float[N,4] a, float[N,4] b", outputs="float[N,4] y")
    with pytest.raises(InputError, match=complaint):
        with_fixed_sizes(model, shapes)


def test_the_same_as_the_tool_of_onnx_runtime(tmp_path: Path) -> None:
    onnx.save(conv(), tmp_path / "open.onnx")
    tool = [sys.executable, "-m", "onnxruntime.tools.make_dynamic_shape_fixed"]
    asked = ["--input_name", "x", "--input_shape", "2,4,7,5", "open.onnx", "fixed.onnx"]
    subprocess.run([*tool, *asked], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    assert with_fixed_sizes(conv(), {"x": (2, 4, 7, 5)}) == onnx.load(tmp_path / "fixed.onnx")


def test_fixed_sizes_are_written_and_compared_with_the_original(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(conv(), "m.onnx")
    ran = command(
        capsys, "optimize", "m.onnx", "o.onnx", "--shape", "x=1,4,6,6", "--fix-shape", "--goal", "size", "--budget", "0"
    )
    assert (ran.code, ran.err) == (0, "")
    assert "fixed in the result" in ran.out
    result = onnx.load("o.onnx")
    assert sizes(result.graph.input[0]) == [1, 4, 6, 6]
    assert_equal_models(with_fixed_sizes(conv(), {"x": (1, 4, 6, 6)}), result)
    ran = command(
        capsys,
        "optimize",
        "o.onnx",
        "again.onnx",
        "--shape",
        "x=1,4,6,6",
        "--fix-shape",
        "--goal",
        "size",
        "--budget",
        "0",
    )
    assert Path("o.onnx").read_bytes() == Path("again.onnx").read_bytes()


def test_a_model_without_removable_units_is_fixed_all_the_same() -> None:
    model = parse(DENSE, weights=weights(dead=()))
    result = onnxprune.optimize(model, shapes={"x": (2, 4)}, fix_shape=True, goal="size")
    assert result.modified
    assert sizes(result.model.graph.input[0]) == [2, 4]


def test_a_proof_may_use_the_sizes() -> None:
    """A mean over n ones, less 3.5: not positive for n up to 3, positive for more."""
    model = parse(
        "o = ConstantOfShape <value = float[1] {1.0}> (n) s = ReduceSum <keepdims = 0> (o) d = Sub (s, limit) "
        "r = Relu (d) g = Mul (x, r) y = Gemm <transB = 1> (g, w1, b1)",
        inputs="float[N,4] x",
        outputs="float[N,8] y",
        weights={"limit": np.asarray(3.5, np.float32), "w1": weights()["w1"], "b1": weights()["b1"]},
    )
    model.graph.node.insert(0, onnx.helper.make_node("Shape", ["x"], ["n"], start=0, end=1))
    small = onnxprune.optimize(model, shapes={"x": (3, 4)}, fix_shape=True, goal="size", budget=0, remember=False)
    sizes_only = onnxprune.optimize(model, shapes={"x": (3, 4)}, goal="size", budget=0, remember=False)
    assert len(small.model.graph.node) < len(sizes_only.model.graph.node)
    open_size = {"x": np.ones((5, 4), np.float32)}
    np.testing.assert_allclose(run(sizes_only.model, open_size)[0], run(model, open_size)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--fix-shape"], "--shape INPUT"),
        (["--fix-shape", "--shape", "z=1,4"], "unknown input 'z'"),
        (["--fix-shape", "--shape", "x=1,4,4"], "does not fit"),
        (["--fix-shape", "--shape", "x=1,5"], "does not fit"),
        (["--fix-shape", "--shape", "x=1,4", "--certificate", "c.json"], "cannot go with --fix-shape"),
    ],
)
def test_mistakes_on_the_command_line(
    options: list[str],
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(dense(), "m.onnx")
    before = snapshot(tmp_path)
    ran = command(capsys, "optimize", "m.onnx", "o.onnx", *options)
    assert ran.code == 2
    assert complaint in ran.err
    assert len(ran.err.splitlines()) <= 2
    assert snapshot(tmp_path) == before
