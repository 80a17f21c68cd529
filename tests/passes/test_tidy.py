"""``tidy``: every change alone, in every opset's form, and everything it must leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from onnxprune.errors import ValidationError
from onnxprune.validate import Validator
from tests.helpers import assert_equal_models, command, dense, snapshot
from tests.passes.support import VECTOR, ints, left_alone, net, run_pass, tidy

NAME = "tidy"
GRAPHS: dict[str, tuple[str, dict[str, Any], list[str], str]] = {
    "Identity": ("a = Identity (x) y = Neg (a)", {}, ["Neg"], "Identity nodes"),
    "Identity at the output": ("a = Neg (x) y = Identity (a)", {}, ["Neg"], "Identity nodes"),
    "two Identity nodes": ("a = Identity (x) b = Identity (a) y = Neg (b)", {}, ["Neg"], "Identity nodes"),
    "Identity of a weight": ("a = Identity (w) y = Add (x, a)", {"w": [1, 2]}, ["Add"], "constant nodes folded"),
    "Dropout": ("a = Dropout (x) y = Neg (a)", {}, ["Neg"], "Dropout nodes"),
    "Dropout with a ratio": ("a = Dropout (x, half) y = Neg (a)", {}, ["Neg"], "Dropout nodes"),
    "Dropout with an unread mask": ("a, m = Dropout (x) y = Neg (a)", {}, ["Neg"], "Dropout nodes"),
    "Dropout, not training": (
        "a = Dropout (x, half, off) y = Neg (a)", {"off": np.array(False)}, ["Neg"], "Dropout nodes",
    ),
    "Dropout 7": ("a = Dropout <ratio = 0.5> (x) y = Neg (a)", {"opset": 7}, ["Neg"], "Dropout nodes"),
    "Dropout 9": ("a, m = Dropout (x) y = Neg (a)", {"opset": 9}, ["Neg"], "Dropout nodes"),
    "Constant": ("c = Constant <value = float[2] {1, 2}> () y = Add (x, c)", {}, ["Add"], "Constant nodes"),
    "Constant 9": (
        "c = Constant <value = float[2] {1, 2}> () y = Add (x, c)", {"opset": 9}, ["Add"], "Constant nodes",
    ),
    "Constant value_float": (
        "c = Constant <value_float = 2.0> () y = Add (x, c)", {}, ["Add"], "Constant nodes",
    ),
    "Constant value_floats": (
        "c = Constant <value_floats = [1.0, 2.0]> () y = Add (x, c)", {}, ["Add"], "Constant nodes",
    ),
    "Constant value_ints": (
        "c = Constant <value_ints = [0, 2]> () y = Reshape (x, c)", {}, ["Reshape"], "Constant nodes",
    ),
    "constant arithmetic": ("c = Add (v, w) d = Neg (c) y = Add (x, d)", {"v": [1, 2], "w": [3, 4]}, ["Add"],
                            "constant nodes folded"),
    "static Shape": ("s = Shape (w) c = Cast <to = 1> (s) y = Add (x, c)", {"w": [[1, 2]]}, ["Add"],
                     "constant nodes folded"),
    "part of a static Shape": (
        "s = Shape <start = 1> (x) c = Cast <to = 1> (s) y = Add (x, c)", {}, ["Add"], "constant nodes folded",
    ),
    "unreachable node": ("a = Exp (x) b = Neg (a) y = Neg (x)", {}, ["Neg"], "unreachable nodes"),
    "MatMul and Add": ("a = MatMul (x, w) y = Add (a, b)", {"w": [[1, 2], [3, 4]], "b": [5, 6]}, ["Gemm"],
                       "MatMul + Add to Gemm"),
    "Add and MatMul": ("a = MatMul (x, w) y = Add (b, a)", {"w": [[1, 2], [3, 4]], "b": [[5, 6]]}, ["Gemm"],
                       "MatMul + Add to Gemm"),
    "MatMul and Add 7": ("a = MatMul (x, w) y = Add (a, b)", {"w": [[1, 2], [3, 4]], "b": [5, 6], "opset": 7},
                         ["Gemm"], "MatMul + Add to Gemm"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "options", "ops", "change"), [pytest.param(*g, id=n) for n, g in GRAPHS.items()])
def test_one_change_alone(body: str, options: dict[str, Any], ops: list[str], change: str) -> None:
    done = tidy(body, **options)
    assert done.ops == ops
    assert change in done.report.changes


def test_the_gemm_has_the_weights_of_the_product() -> None:
    done = tidy("a = MatMul (x, w) y = Add (a, b)", w=[[1, 2], [3, 4]], b=[5, 6])
    assert done.layer("y") == [[[1, 2], [3, 4]], [5, 6]]
    assert done.names == {"w", "b"}
    assert done.report.rounding == 0


LEFT: dict[str, tuple[str, dict[str, Any]]] = {
    "input to output": ("y = Identity (x)", {}),
    "both names are outputs": ("a = Neg (x) y = Identity (a)", {"outputs": "float[N,2] y, float[N,2] a"}),
    "mask is used": ("a, m = Dropout (x) f = Cast <to = 1> (m) y = Add (a, f)", {}),
    "mask is an output": ("y, m = Dropout (x)", {"outputs": "float[N,2] y, bool[N,2] m"}),
    "training": ("a = Dropout <seed = 1> (x, zero, on) y = Neg (a)", {"on": np.array(True)}),
    "training decided at run time": (
        "a = Dropout <seed = 1> (x, zero, on) y = Neg (a)", {"inputs": "float[N,2] x, bool on"}),
    "quantize and dequantize": (
        "q = QuantizeLinear (x, scale, point) y = DequantizeLinear (q, scale2, point2)",
        {"scale": 0.5, "point": np.array(3, np.uint8), "scale2": 0.25, "point2": np.array(4, np.uint8)}),
    "dequantized weights": (
        "d = DequantizeLinear (w, scale, point) y = MatMul (x, d)",
        {"w": np.array([[1, 2], [3, 4]], np.int8), "scale": 0.5, "point": np.array(0, np.int8)}),
    "dynamic Shape": ("s = Shape (x) c = Cast <to = 1> (s) y = Add (x, c)", {}),
    "product of higher rank": (
        "a = MatMul (x, w) y = Add (a, b)",
        {"w": [[1, 2], [3, 4]], "b": [5, 6], "inputs": "float[N,H,2] x", "outputs": "float[N,H,2] y"}),
    "product that is an output": (
        "a = MatMul (x, w) y = Add (a, b)",
        {"w": [[1, 2], [3, 4]], "b": [5, 6], "outputs": "float[N,2] y, float[N,2] a"}),
    "product read twice": ("a = MatMul (x, w) b = Neg (a) y = Add (a, b)", {"w": [[1, 2], [3, 4]]}),
    "sum with a column": (
        "a = MatMul (x, w) y = Add (a, c)",
        {"w": [[1, 2], [3, 4]], "c": [[1], [2]], "inputs": "float[2,2] x", "outputs": "float[2,2] y"}),
    "sum with a larger tensor": (
        "a = MatMul (x, w) y = Add (a, c)",
        {"w": [[1, 2], [3, 4]], "c": [[[1, 1]], [[2, 2]]], "outputs": "float[2,N,2] y"}),
    "zero bias of an old Gemm": (
        "y = Gemm (x, w, b)", {"w": [[1, 2], [3, 4]], "b": [0, 0], "opset": 9}),
    "large constant made from a small one": (
        "c = Expand (one, size) s = ReduceSum <keepdims = 0> (c) y = Mul (x, s)", {"size": ints(300, 300)}),
    "opset 23": ("a = Gemm (x, w) y = Relu (a)", {"w": [[1, 2], [3, 4]], "opset": 23, "ir": 10}),
}  # fmt: skip


@pytest.mark.parametrize(("body", "options"), [pytest.param(*graph, id=name) for name, graph in LEFT.items()])
def test_what_stays(body: str, options: dict[str, Any]) -> None:
    left_alone(body, **options)


@pytest.mark.parametrize(
    ("body", "function"),
    [
        ("y = local.Identity (x)", "Identity (a) => (b) { b = Add (a, a) }"),
        ("t = local.Identity (x) y = Neg (t)", "Identity (a) => (b) { b = Add (a, a) }"),
        ("t = local.Dropout (x) y = Neg (t)", "Dropout (a) => (b) { b = Add (a, a) }"),
        ("t = MatMul (x, w) y = local.Add (t, b)", "Add (a, b) => (c) { c = Sub (a, b) }"),
        ("t = Gemm (x, w) y = local.BatchNormalization (t, b, b2, b3, b4)",
         "BatchNormalization (a, p, q, r, s) => (b) { b = Neg (a) }"),
        ("t = local.Shape (w) c = Cast <to = 1> (t) y = Add (x, c)", "Shape (a) => (b) { b = ReduceSum (a) }"),
    ],
)  # fmt: skip
def test_an_operator_of_another_domain_is_not_meant(body: str, function: str) -> None:
    tables: dict[str, Any] = {name: [1, place] for place, name in enumerate(("b", "b2", "b3", "b4"), 2)}
    functions = f'<domain: "local", opset_import: ["": 17]> {function}'
    left_alone(body, functions=functions, w=[[1, 2], [3, 4]], **tables)


@pytest.mark.parametrize("source", ["Constant <value = float[2] {1, 2}> ()", "Neg (w)", "Identity (t)", "Dropout (t)"])
def test_what_a_sub_graph_reads_keeps_its_name(source: str) -> None:
    left_alone(
        f"""t = Neg (x) c = {source}
        y = If (flag) <then_branch = yes () => (float[N,2] p) {{ p = Add (t, c) }},
                       else_branch = no () => (float[N,2] q) {{ q = Sub (t, c) }}>""",
        inputs="float[N,2] x, bool flag", w=[1, 2],
    )  # fmt: skip


def test_random_numbers_are_not_folded() -> None:
    model = net("r = RandomUniformLike (w) z = Mul (r, zero) y = Add (x, z)", **VECTOR, w=[1, 2])
    assert not run_pass(NAME, model).report.modified


TARGETS = {
    "view(n, -1)": "n = Gather (s, i0) u = Unsqueeze (n, i0v) t = Concat <axis = 0> (u, open)",
    "view(n, 8)": "n = Slice (s, i0v, i1v) t = Concat <axis = 0> (n, eight)",
    "start and end": "n = Shape <end = 1> (x) t = Concat <axis = 0> (n, eight)",
    "doubled": "n = Slice (s, i0v, i1v) d = Mul (n, two) t = Concat <axis = 0> (d, four)",
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in TARGETS.items()])
def test_computed_reshape_targets(body: str) -> None:
    tables: dict[str, Any] = {
        "i0": np.array(0), "i0v": ints(0), "i1v": ints(1), "open": ints(-1), "eight": ints(8),
        "two": ints(2), "four": ints(4),
    }  # fmt: skip
    done = tidy(f"s = Shape (x) {body} y = Reshape (x, t)", inputs="float[N,2,4] x", outputs="float[a,b] y", **tables)
    assert done.ops == ["Reshape"]
    (target,) = done.layer("y")
    assert target[0] == (-1 if "two" in body else 0)
    assert done.report.changes["computed Reshape targets"] == 1


def old_export() -> ModelProto:
    model = dense(opset=9, ir=3)
    for t in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
    return model


def test_initializers_leave_the_inputs() -> None:
    model = old_export()
    done = run_pass(NAME, model, tolerance=1e-6)
    assert [value.name for value in done.model.graph.input] == ["x"]
    assert done.model.ir_version >= 4
    assert done.report.changes == {"initializers taken out of the inputs": 4}
    assert list(done.model.graph.node) == list(model.graph.node)
    assert len(done.node("y").input) == 3, "the third input of an old Gemm is required"


def test_unused_initializers_go() -> None:
    model = dense()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(9, np.float32), "spare"))
    done = run_pass(NAME, model, tolerance=1e-6)
    assert "spare" not in done.names
    assert done.report.changes == {"unused initializers": 1}


def test_an_unused_input_stays_in_the_signature() -> None:
    done = left_alone("y = Neg (x)", inputs="float[N,2] x, float[3] unused")
    assert [value.name for value in done.model.graph.input] == ["x", "unused"]


def test_notes_and_names_survive() -> None:
    model = net("a = Identity (x) b = Neg (a) y = Exp (b)", **VECTOR)
    for number, node in enumerate(model.graph.node):
        node.name, node.doc_string = f"node {number}", f"text {number}"
    model.graph.value_info.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 2]))
    done = run_pass(NAME, model, tolerance=1e-6)
    assert [(n.name, n.doc_string) for n in done.model.graph.node] == [("node 1", "text 1"), ("node 2", "text 2")]
    assert [value.name for value in done.model.graph.value_info] == ["b"]


def test_no_file_is_written_before_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx.save(old_export(), tmp_path / "in.onnx")
    (tmp_path / "out.onnx").write_text("mine")
    before = snapshot(tmp_path)
    seen: list[bool] = []

    def fail(*arguments: Any, **options: Any) -> None:
        seen.append(snapshot(tmp_path) == before)
        if not options.get("quick"):
            raise ValidationError("The result differs.")

    monkeypatch.setattr(Validator, "check", fail)
    ran = command(capsys, "optimize", tmp_path / "in.onnx", tmp_path / "out.onnx", "--goal", "size", "--quiet")
    assert ran.code == 1
    assert all(seen)
    assert snapshot(tmp_path) == before


def test_helpers_agree_on_the_old_export() -> None:
    model = old_export()
    assert_equal_models(model, run_pass(NAME, model, tolerance=1e-6).model)
