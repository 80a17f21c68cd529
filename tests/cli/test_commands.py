"""What every command prints, writes, and leaves alone."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest

from onnxprune.cli.main import COMMANDS
from onnxprune.pass_registry import available
from tests.helpers import DEAD, HIDDEN, assert_equal_models, command, conv, dense, snapshot, untouchable

ENTRIES = {
    "script": [str(Path(sys.executable).with_name("onnxprune"))],
    "module": [sys.executable, "-m", "onnxprune"],
}
REPORT = """schema model domain before tidied after units layers kept_because passes deviation align proof
validation notes"""
PARTS = {
    "model": "path sha256 opset",
    "before": "nodes params macs bytes latency_ms",
    "tidied": "nodes params macs bytes latency_ms",
    "after": "nodes params macs bytes latency_ms",
    "units": "total inactive active constant unstable undecided removed merged",
    "proof": "by_method trust seconds",
    "validation": "samples max_abs_error deviation_bound provider",
}
PASS_CLASS = available()["remove_inactive"]
LAYER = "name op activation total inactive active constant unstable undecided kept kept_because by_method trust"
PASS = "name exactness modified removed merged deviation seconds"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model that has dead units and one that has none."""
    (tmp_path / "dead.onnx").write_bytes(dense().SerializeToString())
    (tmp_path / "fine.onnx").write_bytes(untouchable().SerializeToString())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outside(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, away from the source tree."""
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, **options)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen_and_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.out.splitlines()) <= 50
    assert max(map(len, ran.out.splitlines())) <= 100
    assert f"example:\n  onnxprune {name}" in ran.out


def test_main_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.out.splitlines()) <= 50
    assert "example:\n  onnxprune optimize" in ran.out
    for name, purpose in COMMANDS.items():
        assert name in ran.out
        assert purpose in ran.out


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_version(entry: list[str], tmp_path: Path) -> None:
    ran = outside(*entry, "--version", cwd=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"onnxprune {version('onnxprune')}\n", "")


def test_help_starts_quickly(tmp_path: Path) -> None:
    """0.3 s is the aim; slow machines get three tries and some slack."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        assert outside(*ENTRIES["script"], "--help", cwd=tmp_path).returncode == 0
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=str)
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = f"""
import sys
from onnxprune.cli.main import main
try:
    main({arguments!r})
except SystemExit:
    pass
heavy = {{"onnx", "onnxruntime", "numpy", "scipy", "rich", "onnx_graphsurgeon", "mip"}} & set(sys.modules)
sys.exit(", ".join(sorted(heavy)) or None)
"""
    ran = outside(sys.executable, "-c", code, cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_optimize_in_a_process_of_its_own(entry: list[str], folder: Path) -> None:
    ran = outside(*entry, "optimize", "dead.onnx", "out.onnx", "--goal", "size", cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"{len(DEAD)} of {HIDDEN + 3} units removed" in ran.stdout
    assert "PASSED" in ran.stdout
    assert "written: out.onnx" in ran.stdout
    assert_equal_models(dense(), onnx.load(folder / "out.onnx"))


def test_error_in_a_process_of_its_own(folder: Path) -> None:
    ran = outside(*ENTRIES["script"], "optimize", "nowhere.onnx", "out.onnx", cwd=folder)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "onnxprune: No such file: nowhere.onnx\n  Check the path of the input model.\n"


@pytest.mark.parametrize("name", ["passes", "operators"])
@pytest.mark.parametrize("target", ["closed pipe", "full disk"])
def test_output_that_cannot_be_written_is_no_crash(name: str, target: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        ran = subprocess.run(
            [*ENTRIES["script"], name],
            cwd=tmp_path,
            stdout=writer if target == "closed pipe" else full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(writer)
        os.close(full)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr
    assert len(ran.stderr.splitlines()) <= 2


@pytest.mark.parametrize("goal", ["latency", "size"])
@pytest.mark.parametrize("name", ["dead", "fine"])
def test_report_on_standard_output_is_json_and_nothing_else(
    name: str, goal: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = command(capsys, "optimize", f"{name}.onnx", "out.onnx", "--report", "-", "--goal", goal, "--domain", "0:1")
    assert ran.code == 0
    report = json.loads(ran.out)
    assert list(report) == REPORT.split()
    for part, keys in PARTS.items():
        assert list(report[part]) == keys.split()
    assert set(report["proof"]["by_method"]) == {"interval", "linear", "split", "lp", "mip"}
    assert set(report["proof"]["trust"]) == {"certified", "solver"}
    assert len(report["layers"]) == 2
    for layer in report["layers"]:
        assert set(LAYER.split()) <= set(layer)
        assert set(layer["by_method"]) == set(report["proof"]["by_method"])
        assert set(layer["trust"]) == set(report["proof"]["trust"])
    for entry in report["passes"]:
        assert set(PASS.split()) <= set(entry)
    assert "written: out.onnx" in ran.err


def test_report_counts_add_up(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(capsys, "optimize", "dead.onnx", "out.onnx", "--report", "r.json", "--goal", "size")
    report = json.loads((folder / "r.json").read_text())
    units, layers = report["units"], report["layers"]
    states = ("inactive", "active", "constant", "unstable", "undecided")
    for entry in (units, *layers):
        assert entry["total"] == sum(entry[state] for state in states)
    for key in ("total", *states):
        assert units[key] == sum(layer[key] for layer in layers)
    assert units["removed"] == sum(layer["total"] - len(layer["kept"]) for layer in layers) == len(DEAD)
    for layer in layers:
        assert sum(layer["kept_because"].values()) == len(layer["kept"])
    assert layers[0]["kept"] == [unit for unit in range(HIDDEN) if unit not in DEAD]
    assert report["after"]["bytes"] == (folder / "out.onnx").stat().st_size
    assert report["before"]["bytes"] == (folder / "dead.onnx").stat().st_size
    assert report["model"]["path"] == "dead.onnx"


def test_inspect_and_optimize_report_the_same_units(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = []
    for arguments in (["inspect", "dead.onnx"], ["optimize", "dead.onnx", "out.onnx", "--goal", "size"]):
        assert command(capsys, *arguments, "--report", "r.json", "--quiet").code == 0
        reports.append(json.loads((folder / "r.json").read_text()))
    for key in ("units", "layers", "kept_because", "model", "before", "after"):
        assert reports[0][key] == reports[1][key]


@pytest.mark.parametrize(
    "arguments", [["optimize", "dead.onnx", "out.onnx", "--dry-run"], ["inspect", "dead.onnx"]], ids=str
)
def test_dry_runs_write_nothing(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(folder)
    ran = command(capsys, *arguments)
    assert (ran.code, ran.err) == (0, "")
    assert "written" not in ran.out
    assert snapshot(folder) == before


def test_dry_run_needs_no_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(folder)
    assert command(capsys, "optimize", "dead.onnx", "nowhere/out.onnx", "--dry-run", "--quiet").code == 0
    assert snapshot(folder) == before


@pytest.mark.parametrize("arguments", [["optimize", "dead.onnx", "out.onnx"], ["inspect", "dead.onnx"]], ids=str)
def test_quiet_prints_nothing(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, *arguments, "--quiet", "--report", "r.json")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert (folder / "r.json").exists()
    assert (folder / "out.onnx").exists() == (arguments[0] == "optimize")


def test_verbose_tells_the_steps_on_standard_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, "optimize", "dead.onnx", "out.onnx", "--verbose", "--goal", "size")
    assert ran.code == 0
    assert "remove_inactive" in ran.err
    assert "stays because: " in ran.out
    assert "proved by: " in ran.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["optimize", "long.onnx", "out.onnx", "-v", "--goal", "size"],
        ["inspect", "long.onnx"],
        ["passes"],
        ["operators"],
    ],
    ids=lambda value: value[0],
)
def test_tables_fit_a_terminal(arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = conv()
    for number, node in enumerate(model.graph.node):
        node.name = f"/{number}/backbone/stage/with/a/name/that/is/longer/than/any/terminal" * 2
    (folder / "long.onnx").write_bytes(model.SerializeToString())
    ran = command(capsys, *arguments)
    assert ran.code == 0
    assert ran.out
    assert max(map(len, ran.out.splitlines())) <= 100


@pytest.mark.parametrize("name", ["[/relu]", "[bold]layer", "block[0]", "a\nb", "\N{GREEK SMALL LETTER ALPHA}", " "])
def test_names_are_shown_as_they_are(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = dense()
    model.graph.node[0].name = name
    (folder / "odd.onnx").write_bytes(model.SerializeToString())
    ran = command(capsys, "inspect", "odd.onnx")
    assert (ran.code, ran.err) == (0, "")
    assert name.splitlines()[0] in ran.out


def test_nothing_to_remove_gives_back_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, "optimize", "fine.onnx", "out.onnx", "--goal", "size")
    assert (ran.code, ran.err) == (0, "")
    assert "byte for byte" in ran.out
    assert (folder / "out.onnx").read_bytes() == (folder / "fine.onnx").read_bytes()


@pytest.mark.parametrize("name", ["dead", "fine"])
def test_input_may_be_the_output(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / f"{name}.onnx"
    before, names = onnx.load(path), sorted(os.listdir(folder))
    assert command(capsys, "optimize", path, path, "--goal", "size").code == 0
    assert sorted(os.listdir(folder)) == names
    assert_equal_models(before, onnx.load(path))
    assert (onnx.load(path) == before) == (name == "fine")


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("name", ["dead", "fine"])
def test_external_data(name: str, separate: bool, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = onnx.load(folder / f"{name}.onnx")
    home = folder / "home"
    home.mkdir()
    onnx.save_model(
        onnx.load(folder / f"{name}.onnx"),
        home / "model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=0,
    )
    target = folder / "other" if separate else home
    target.mkdir(exist_ok=True)
    for _ in range(2):  # the second time there is a result already
        ran = command(capsys, "optimize", home / "model.onnx", target / "model.onnx", "--goal", "size")
        assert (ran.code, ran.err) == (0, "")
        assert_equal_models(original, onnx.load(target / "model.onnx"))
    assert not list(folder.rglob(".*"))


def test_second_run_gives_the_very_same_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, "optimize", "dead.onnx", "one.onnx", "--goal", "size", "--domain", "-1:1").code == 0
    assert command(capsys, "optimize", "one.onnx", "two.onnx", "--goal", "size", "--domain", "-1:1").code == 0
    assert (folder / "two.onnx").read_bytes() == (folder / "one.onnx").read_bytes()
    assert (folder / "one.onnx").read_bytes() != (folder / "dead.onnx").read_bytes()


@pytest.mark.parametrize("domain", ["-1:1", "-1e-1:.5", "-.5:-.25", "-inf:0", "x=-1:1", "-1:inf"])
@pytest.mark.parametrize("joined", [False, True])
def test_domains_may_begin_with_a_minus(
    domain: str, joined: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = [f"--domain={domain}"] if joined else ["--domain", domain]
    assert command(capsys, "inspect", "dead.onnx", *option, "--quiet", "--report", "r.json").code == 0
    report = json.loads((folder / "r.json").read_text())
    assert report["domain"]["kind"] == "box"
    assert report["domain"]["origin"] == domain


def test_mean_may_begin_with_a_minus(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, "inspect", "dead.onnx", "--domain", "0:1", "--mean", "-.5", "--std", "2", "--report", "-")
    assert ran.code == 0
    assert json.loads(ran.out)["domain"]["inputs"]["x"]["lower"] == 0.25


def test_data_outside_the_domain_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(folder / "data.npz", x=np.full((2, 4), 9.0))
    ran = command(
        capsys, "optimize", "dead.onnx", "out.onnx", "--domain", "0:1", "--data", "data.npz", "--goal", "size"
    )
    assert ran.code == 0
    assert "outside the domain" in ran.out


def test_data_is_validated_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(folder / "data.npz", x=np.zeros((5, 4)))
    samples = []
    for extra in ([], ["--data", "data.npz"]):
        ran = command(capsys, "inspect", "dead.onnx", "--report", "-", *extra)
        samples.append(json.loads(ran.out)["validation"]["samples"])
    assert samples[1] - samples[0] == 5


def test_kept_layer_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(command(capsys, "inspect", "dead.onnx", "--report", "-").out)["layers"]
    ran = command(capsys, "inspect", "dead.onnx", "--report", "-", "--keep", listed[0]["name"])
    assert json.loads(ran.out)["units"]["removed"] == 0


def test_only_the_passes_asked_for_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = command(capsys, "inspect", "dead.onnx", "--report", "-", "--passes", "remove_inactive,tidy")
    assert {entry["name"] for entry in json.loads(ran.out)["passes"]} == {"remove_inactive", "tidy"}
    ran = command(capsys, "inspect", "dead.onnx", "--report", "-", "--skip", "remove_inactive")
    assert "remove_inactive" not in {entry["name"] for entry in json.loads(ran.out)["passes"]}


def test_same_seed_same_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def report(seed: int) -> dict[str, Any]:
        ran = command(capsys, "inspect", "dead.onnx", "--report", "-", "--seed", str(seed))
        content: dict[str, Any] = json.loads(ran.out)
        content["proof"].pop("seconds")
        for entry in content["passes"]:
            entry.pop("seconds")
        return content

    assert report(5) == report(5)


def interrupt(*_: Any, **__: Any) -> NoReturn:
    raise KeyboardInterrupt


def disk_full(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_memory(*_: Any, **__: Any) -> NoReturn:
    raise MemoryError


MISHAPS: dict[str, tuple[tuple[Any, str], Callable[..., NoReturn], int, str]] = {
    "interrupt in a pass": ((PASS_CLASS, "run"), interrupt, 130, "interrupted"),
    "interrupt while reading": ((Path, "read_bytes"), interrupt, 130, "interrupted"),
    "interrupt while writing": ((Path, "write_bytes"), interrupt, 130, "interrupted"),
    "interrupt while replacing": ((Path, "replace"), interrupt, 130, "interrupted"),
    "disk full while writing the model": ((Path, "write_bytes"), disk_full, 1, "No space left"),
    "disk full while copying the model": ((shutil, "copyfile"), disk_full, 1, "No space left"),
    "disk full while writing the report": ((Path, "write_text"), disk_full, 1, "No space left"),
    "disk full while flushing": ((os, "fsync"), disk_full, 1, "No space left"),
    "disk full from the start": ((tempfile, "mkstemp"), disk_full, 1, "No space left"),
    "out of memory": ((PASS_CLASS, "run"), no_memory, 1, "memory"),
}


@pytest.mark.parametrize("old", [False, True], ids=["no old result", "old result"])
@pytest.mark.parametrize("mishap", MISHAPS.values(), ids=MISHAPS)
def test_mishap_leaves_everything_as_it_was(
    mishap: tuple[tuple[Any, str], Callable[..., NoReturn], int, str],
    old: bool,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where, failure, code, word = mishap
    if old:
        for name in ("out.onnx", "r.json"):
            (folder / name).write_text("old result")
    before = snapshot(folder)
    model = "fine.onnx" if where[1] == "copyfile" else "dead.onnx"
    with monkeypatch.context() as patch:
        patch.setattr(*where, failure)
        ran = command(capsys, "optimize", model, "out.onnx", "--report", "r.json", "--goal", "size")
    assert (ran.code, ran.out) == (code, "")
    assert word in ran.err
    assert len(ran.err.splitlines()) <= 2
    assert snapshot(folder) == before
