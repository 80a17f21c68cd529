"""``onnxprune prune``: what it writes and prints, and how it answers mistakes."""

from __future__ import annotations

import csv
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.cli.interrupt import finishing
from onnxprune.surgeon import curve, prune
from onnxprune.surgeon.methods import operated
from onnxprune.surgeon.stages import share_of, stages_for
from tests.helpers import Ran, command, parse, snapshot
from tests.surgeon.small import WEIGHTS, data, dense_model, pruned, stored

QUICK = ("--threads", "1", "--method", "magnitude")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model and its samples."""
    onnx.save(dense_model(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **data(labelled=True))  # type: ignore[arg-type] # arrays by name
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs ``prune model.onnx out.onnx`` with more arguments."""

    def prune(*arguments: str | Path, model: str = "model.onnx", output: str = "out.onnx") -> Ran:
        return command(capsys, "prune", model, output, *arguments)

    return prune


def test_a_run_from_end_to_end(folder: Path, run: Any) -> None:
    before = snapshot(folder)
    ran = run("--data", "data.npz", "--sparsity", "0.8", *QUICK, "--task", "classify", "--report", "r.json", "-v")
    assert ran.code == 0
    report = json.loads((folder / "r.json").read_text())
    model = onnx.load(folder / "out.onnx")
    zeros = WEIGHTS - int((1 - 0.8) * WEIGHTS + 1e-9)
    assert report["weights"]["zeros"] == zeros
    assert report["after"]["bytes"] == (folder / "out.onnx").stat().st_size == model.ByteSize()
    assert report["model"]["path"] == "model.onnx"
    for text in (
        f"{zeros:,} of {WEIGHTS} weights are zero (80.",
        "nonzero",
        "bytes, compressed",
        "latency (ms)",
        "held-out samples: relative error",
        "accuracy",
        "ONNX Runtime is no faster for them",
        "changes the function: APPROXIMATE",
        "written: out.onnx",
    ):
        assert text in ran.out
    assert "60 samples, 4 kB" in ran.err
    after = snapshot(folder)
    assert {name: after[name] for name in before} == before


def test_layers_and_what_was_kept_are_listed(folder: Path, run: Any) -> None:
    arguments = ("--data", "data.npz", "--sparsity", "0.5", *QUICK, "--keep", "y", "--dry-run")
    brief, long = run(*arguments), run(*arguments, "-v")
    assert "kept as it was: y (asked to stay)" in brief.out
    assert "kept: asked to stay" in long.out
    assert [line.split()[:3] for line in long.out.splitlines() if line.startswith("h ")] == [["h", "512", "256"]]
    assert not (folder / "out.onnx").exists()
    assert "written" not in brief.out


def test_the_command_and_python_give_the_same(folder: Path, run: Any) -> None:
    assert run("--data", "data.npz", "--sparsity", "0.7", *QUICK, "--seed", "3").code == 0
    same = pruned(samples=data(labelled=True), sparsity=0.7, method="magnitude", seed=3)
    wanted = stored(same.model)
    found = stored(onnx.load(folder / "out.onnx"))
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


def test_sparse_storage(folder: Path, run: Any) -> None:
    ran = run("--data", "data.npz", "--sparsity", "0.9", *QUICK, "--store", "sparse")
    assert onnx.load(folder / "out.onnx").graph.sparse_initializer
    assert "they bring" in ran.out


def test_units_by_latency(folder: Path, run: Any) -> None:
    ran = run(
        *("--data", "data.npz", "--structure", "units", "--latency", "0.99", "--align", "1"),
        *("--budget", "0.1", "--threads", "1"),
    )
    assert ran.code in (0, 2)  # 2: on a noisy machine so small a model may seem no faster
    assert ("% of the latency: " in ran.out) == (ran.code == 0)


def test_data_may_be_a_folder(folder: Path, run: Any) -> None:
    (folder / "parts").mkdir()
    for number in range(2):
        np.savez(folder / "parts" / f"{number}.npz", x=data()["x"][30 * number : 30 * number + 30])
    ran = run("--data", "parts", "--sparsity", "0.5", *QUICK, "--report", "-", "--quiet")
    assert json.loads(ran.out)["calibration"]["held_out"] == 6


def test_blocks_of_the_selection_are_proved(folder: Path, run: Any) -> None:
    ran = run("--data", "data.npz", "--sparsity", "0.7", "--method", "cbs", "--blocks", "2", "--report", "r.json")
    assert "blocks of 20 weights: " in ran.out
    blocks = json.loads((folder / "r.json").read_text())["blocks"]
    assert len(blocks) == 2
    assert all(block["bound"] <= block["value"] <= block["local"] and block["gap"] is not None for block in blocks)


def test_labels_move_the_result_towards_them(folder: Path, run: Any) -> None:
    inputs = data(count=200)["x"]
    np.savez(folder / "other.npz", x=inputs, labels=np.where(inputs[:, 0] > 0, 0, 1))  # not what the model says
    common = ("--data", "other.npz", "--sparsity", "0.2", "--threads", "1", "--task", "classify")
    accuracies = []
    for extra in ((), ("--labels",)):
        assert run(*common, *extra, "--report", "r.json").code == 0
        report = json.loads((folder / "r.json").read_text())
        assert report["calibration"]["labels_used"] == bool(extra)
        accuracies.append(report["quality"]["accuracy"])
    assert accuracies[1] > accuracies[0] + 10


def test_quiet_prints_nothing(folder: Path, run: Any) -> None:
    ran = run("--data", "data.npz", "--sparsity", "0.5", *QUICK, "-q")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert (folder / "out.onnx").is_file()


def test_a_sweep(folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "picture", lambda name, rows: b"")
    arguments = ("--data", "data.npz", "--sweep", "0.5:0.9:2", *QUICK, "--task", "classify")
    first, again = run(*arguments, output="curve"), run(*arguments, output="curve")
    assert (first.code, again.code) == (0, 0)
    assert "2 points were finished before and not repeated" in again.out
    assert again.out.splitlines()[:3] == first.out.splitlines()[:3]
    assert "accuracy" in first.out
    assert "written: curve" in first.out
    with (folder / "curve" / "curve.csv").open() as file:
        assert [row["asked"] for row in csv.DictReader(file)] == ["0.5", "0.9"]


def test_the_first_interrupt_ends_with_the_last_finished_stage(
    folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = operated

    def interrupted(model: Any, fit: Any, held: Any, options: Any, provider: Any) -> Any:
        def progress(text: str) -> None:
            if text.startswith("stage 4"):
                os.kill(os.getpid(), signal.SIGINT)

        return inner(model, fit, held, replace(options, progress=progress, steps=60), provider)

    monkeypatch.setattr(prune, "operated", interrupted)
    ran = run("--data", "data.npz", "--sparsity", "0.9", "--threads", "1", "--report", "r.json")
    assert ran.code == 0
    assert "finishing with the last finished stage; Ctrl-C again to stop" in ran.err
    assert "note: It was stopped: this is the last finished stage" in ran.out
    report = json.loads((folder / "r.json").read_text())
    assert report["share_of_the_way"] == pytest.approx(share_of(3, stages_for(0.1)))
    assert report["weights"]["sparsity"] == pytest.approx(0.9 * share_of(3, stages_for(0.1)), abs=0.01)
    assert (folder / "out.onnx").is_file()


@pytest.mark.parametrize("signals", [1, 2])
def test_nothing_is_written_without_a_finished_stage(
    folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    inner = operated

    def interrupted(*arguments: Any) -> Any:
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGINT)
        return inner(*arguments)

    monkeypatch.setattr(prune, "operated", interrupted)
    before = snapshot(folder)
    ran = run("--data", "data.npz", "--sparsity", "0.9", "--threads", "1")
    assert ran.code == 130
    assert "nothing was written" in ran.err
    assert snapshot(folder) == before


def test_interrupts_are_asked_about_only_inside() -> None:
    with finishing("it") as stopped:
        assert not stopped()


SPARSITY = ("--sparsity", "0.5")
DATA = ("--data", "data.npz")
MISTAKES: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "no data": (SPARSITY, {}, "the following arguments are required: --data"),
    "missing data": (("--data", "no.npz", *SPARSITY), {}, "Cannot read no.npz"),
    "missing model": ((*DATA, *SPARSITY), {"model": "no.onnx"}, "No such file: no.onnx"),
    "no amount": (DATA, {}, "How much is to go?"),
    "percent": ((*DATA, "--sparsity", "90"), {}, "sparsity cannot be 90"),
    "no number": ((*DATA, "--sparsity", "half"), {}, "'half' is not a number"),
    "structure": ((*DATA, *SPARSITY, "--structure", "channels"), {}, "structure cannot be 'channels'"),
    "method": ((*DATA, *SPARSITY, "--method", "obs"), {}, "invalid choice: 'obs'"),
    "blocks without cbs": ((*DATA, *SPARSITY, "--blocks", "3"), {}, "method cbs only"),
    "method for units": ((*DATA, "--structure", "units", "--macs", ".5", "--method", "cbs"), {}, "to a sparsity"),
    "keep": ((*DATA, *SPARSITY, "--keep", "z"), {}, "--keep names no layer with weights: z"),
    "folder of OUT": ((*DATA, *SPARSITY), {"output": "no/out.onnx"}, "folder of the output does not exist"),
    "OUT is IN": ((*DATA, *SPARSITY), {"output": "model.onnx"}, "OUT is the model that is read"),
    "OUT is the data": ((*DATA, *SPARSITY), {"output": "data.npz"}, "OUT is the data that is read"),
    "report is IN": ((*DATA, *SPARSITY, "--report", "model.onnx"), {}, "would overwrite"),
    "no weights": ((*DATA, *SPARSITY), {"model": "empty.onnx"}, "no weights that can be pruned"),
    "fixed batch": ((*DATA, *SPARSITY), {"model": "eight.onnx"}, "takes exactly 8 samples"),
    "shape of data": (("--data", "wide.npz", *SPARSITY), {}, "shape [17]; the model wants [16]"),
    "name of data": (("--data", "named.npz", *SPARSITY), {}, "unknown ['input'], missing ['x']"),
    "few data": (("--data", "few.npz", *SPARSITY), {}, "5 calibration samples are too few"),
    "labels that are not there": (("--data", "bare.npz", *SPARSITY, "--labels"), {}, "There are no labels"),
    "align": ((*DATA, "--structure", "units", "--macs", ".5", "--align", "5"), {}, "align cannot be 5"),
    "provider": ((*DATA, *SPARSITY, "--provider", "abacus"), {}, "Provider 'abacus'"),
    "sweep": ((*DATA, "--sweep", "50:98"), {"output": "c"}, "--sweep cannot be '50:98'"),
    "sweep and sparsity": (
        (*DATA, "--sweep", ".5:.9", *SPARSITY),
        {"output": "c"},
        "cannot be combined with --sparsity",
    ),
    "sweep into a file": ((*DATA, "--sweep", ".5:.9"), {"output": "few.npz"}, "few.npz is a file"),
}


@pytest.mark.parametrize(("arguments", "names", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_take_a_line_or_two(
    folder: Path, run: Any, arguments: tuple[str, ...], names: dict[str, str], message: str
) -> None:
    onnx.save(parse("y = Relu (x)", "float[N,16] x", "float[N,16] y"), "empty.onnx")
    onnx.save(dense_model(inputs="float[8,16] x", outputs="float[8,5] y"), "eight.onnx")
    np.savez("wide.npz", x=np.random.default_rng(0).normal(size=(40, 17)))
    np.savez("named.npz", input=data()["x"])
    np.savez("few.npz", x=data()["x"][:5])
    np.savez("bare.npz", **data())  # type: ignore[arg-type] # arrays by name
    before = snapshot(folder)
    ran = run(*arguments, **names)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert len(ran.err.splitlines()) <= 2
    assert snapshot(folder) == before
