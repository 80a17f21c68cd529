"""Options that say how units are proved stable, on the command line and in Python."""

from __future__ import annotations

import importlib.util
import io
import json
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

import onnxprune
from onnxprune.report import table
from tests.helpers import command, conv, dense, run
from tests.stability.planted import BOX, model, planted

STATES = ("inactive", "active", "constant", "unstable", "undecided")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model whose units need a solver."""
    (tmp_path / "model.onnx").write_bytes(planted(0))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    ran = command(capsys, "inspect", "model.onnx", "--domain", BOX, "--report", "-", *options)
    assert ran.code == 0, ran.err
    content: dict[str, Any] = json.loads(ran.out)
    return content


def counts(content: Any) -> list[list[int]]:
    return [[layer[state] for state in STATES] for layer in content["layers"]]


@pytest.mark.parametrize(
    "options",
    [
        ["--budget", "30"],
        ["--budget", "1e2"],
        ["--method", "cascade"],
        ["--method", "leo"],
        ["--method", "single"],
        ["--trust", "solver"],
        ["--trust", "certified"],
        ["--solver", "highs"],
        ["--solver", "cbc"],
        ["--solver-check"],
        ["--method", "leo", "--solver-check"],
        ["--rule", "product"],
        ["--rule", "rows"],
        ["--jobs", "1"],
        ["--forget"],
    ],
    ids=" ".join,
)
def test_every_value_gives_the_same_states(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, *options)
    assert found["units"]["undecided"] == 0
    assert found["layers"][1]["inactive"] == 8
    solver = options[:2] in (["--method", "leo"], ["--method", "single"])
    assert (found["proof"]["trust"]["solver"] == 8) == solver


def test_several_jobs_give_the_same_states(capsys: pytest.CaptureFixture[str]) -> None:
    assert counts(report(capsys, "--jobs", "2", "--method", "leo")) == counts(report(capsys))


def test_no_budget_leaves_bounds_alone(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "--budget", "0")
    assert sum(found["proof"]["by_method"][method] for method in ("split", "lp", "mip")) == 0
    assert found["units"]["undecided"] > 0
    assert found["validation"]["samples"] > 0


@pytest.mark.parametrize("method", ["cascade", "leo", "single"])
def test_trust_in_certificates_alone(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "--trust", "certified", "--method", method)
    assert found["proof"]["trust"]["solver"] == 0
    assert found["proof"]["by_method"]["mip"] == 0
    assert found["units"]["inactive"] == (8 if method == "cascade" else 0)


@pytest.mark.skipif(importlib.util.find_spec("gurobipy") is not None, reason="needs a machine without gurobipy")
def test_a_solver_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = sorted(path.name for path in folder.iterdir())
    ran = command(capsys, "optimize", "model.onnx", "out.onnx", "--domain", BOX, "--solver", "gurobi")
    assert ran.code in (1, 2)
    assert ran.out == ""
    assert len(ran.err.splitlines()) == 2
    assert "gurobi" in ran.err
    assert sorted(path.name for path in folder.iterdir()) == names


def test_rules_of_the_merge(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Five active units before one output: their product has rank 1, their rows have rank 4."""
    weights = dense()
    rows = onnx.numpy_helper.to_array(weights.graph.initializer[0]).copy()
    columns = onnx.numpy_helper.to_array(weights.graph.initializer[2])[:1].copy()
    for tensor, values in zip(
        weights.graph.initializer, (rows, 100 + 0 * rows[:, 0], columns, columns[:, 0]), strict=True
    ):
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    weights.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    Path("active.onnx").write_bytes(weights.SerializeToString())
    merged = {}
    for rule in ("product", "rows"):
        arguments = ["active.onnx", f"{rule}.onnx", "--domain", "0:1", "--goal", "size", "--rule", rule]
        arguments += ["--passes", "merge_dependent", "--report", "-"]
        ran = command(capsys, "optimize", *arguments)
        assert ran.code == 0, ran.err
        merged[rule] = json.loads(ran.out)["units"]["merged"]
    assert merged["product"] > merged["rows"] > 0


def test_a_pass_s_own_rule_comes_first() -> None:
    options = {"goal": "size", "align": 1, "rule": "product"}
    result = onnxprune.optimize(dense(), "0:1", passes="merge_dependent{rule=rows}", **options)
    assert [entry["name"] for entry in result.report["passes"]] == ["merge_dependent"]


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_executors_of_the_caller(kind: str) -> None:
    expected = onnxprune.inspect(model(0), BOX, method="leo")
    pool: Executor = (
        ThreadPoolExecutor(1)
        if kind == "threads"
        else ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    )
    with pool:
        result = onnxprune.optimize(model(0), domain=BOX, budget=60, method="leo", executor=pool, goal="size", align=1)
        assert pool.submit(int, "3").result() == 3, "the executor was shut down"
    assert counts(result.report) == counts(expected)
    x = np.random.default_rng(0).uniform(-1, 1, size=(50, 26)).astype(np.float32)
    (before,), (after,) = run(model(0), {"x": x}), run(result.model, {"x": x})
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-4)


def test_the_summary_tells_what_rests_on_a_solver(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["optimize", "model.onnx", "out.onnx", "--domain", BOX, "--goal", "size"]
    assert "solver's word" not in command(capsys, *arguments).out
    ran = command(capsys, *arguments, "--method", "leo", "-v")
    assert "8 units are proved on the solver's word; --trust certified does without" in ran.out
    assert "  proved by: mip 8 (8 on the solver's word)" in ran.out


def test_the_summary_tells_what_is_open(capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, "optimize", "model.onnx", "out.onnx", "--domain", BOX, "--goal", "size", "--budget", "0")
    (line,) = (line for line in ran.out.splitlines() if "undecided" in line)
    assert "a larger --budget" in line
    ran = command(capsys, "optimize", "model.onnx", "out.onnx", "--goal", "size")
    for line in ran.out.splitlines():
        if "undecided" in line:
            assert "--domain" in line


def test_progress_shows_what_is_decided(capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, "inspect", "model.onnx", "--domain", BOX, "-v")
    assert "linear bounds: " in ran.err
    assert "/10 " in ran.err
    assert max(map(len, ran.err.splitlines())) <= 110


def deep(layers: int) -> bytes:
    """Many convolutions in a row."""
    net = conv()
    first = net.graph.node[0]
    del net.graph.node[:]
    size, name = 4, "x"
    rows = onnx.numpy_helper.to_array(net.graph.initializer[0])[:4]
    net.graph.initializer.append(onnx.numpy_helper.from_array(rows, "w"))
    for k in range(layers):
        net.graph.node.append(onnx.helper.make_node("Conv", [name, "w"], [f"h{k}"], f"conv{k}", pads=[1, 1, 1, 1]))
        net.graph.node.append(onnx.helper.make_node("Relu", [f"h{k}"], [f"r{k}"]))
        name = f"r{k}"
    net.graph.node[-1].output[0] = "y"
    net.graph.output[0].type.tensor_type.shape.dim[1].dim_value = size
    assert first.op_type == "Conv"
    return net.SerializeToString()


def test_progress_is_short_for_many_layers(capsys: pytest.CaptureFixture[str]) -> None:
    Path("deep.onnx").write_bytes(deep(20))
    ran = command(capsys, "inspect", "deep.onnx", "--domain", BOX, "-v", "--budget", "2")
    assert ran.code == 0
    assert "/80 in 20 layers decided" in ran.err
    assert max(map(len, ran.err.splitlines())) <= 110


@pytest.mark.parametrize("width", [80, 100])
def test_layers_fit_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "console", lambda file=None: Console(file=file, width=width, highlight=False))
    net = onnx.load_from_string(deep(3))
    for number, node in enumerate(net.graph.node):
        node.name = f"/backbone/stage/with/a/long/name/\N{CJK UNIFIED IDEOGRAPH-5C64}/{number}" * 3
    content = onnxprune.inspect(net, BOX, budget=1.0).content
    for layer in content["layers"]:
        layer["by_method"] |= {"interval": 40, "linear": 3, "lp": 2, "mip": 1}
        layer["trust"] |= {"certified": 45, "solver": 1}
    target = io.StringIO()
    table.print_layers(content, budget=1.0, file=target)
    lines = target.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "  proved by: interval 40, linear 3, lp 2, mip 1 (1 on the solver's word)" in lines
