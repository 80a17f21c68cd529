"""The stability benchmark's own arithmetic: rows, contradictions, verdicts. Nothing long is run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.benchmarks.stability.cases import ACAS, SENSORS, Case, Limits, cases, tenths
from tests.benchmarks.stability.run import main
from tests.benchmarks.stability.table import (
    Row,
    against_truth,
    append,
    architecture,
    contradictions,
    missed,
    published,
    read,
    read_baseline,
    read_truth,
    row_of,
)
from tests.benchmarks.stability.verdicts import Evidence, report
from tests.benchmarks.stability.worker import work

BASELINE = """model,domain,method,dtype,units,undecided,mean_width,method_time_s,peak_rss_mb,status
net.onnx,full,CROWN,float32,4,1,0.5,0.10,256,ok
net.onnx,full,CROWN,float32,4,2,0.5,0.20,257,ok
net.onnx,full,CROWN,float64,4,0,0.5,0.20,257,ok
net.onnx,full,alpha,float32,4,1,0.5,9.0,257,ok
net.onnx,full,alpha,float32,4,,,,,timeout
"""
RUNS = """dataset,arch,l1,new_time_s,new_timeout,old_time_s,old_timeout
MNIST,4-4,0.00020000000000000001,4.0,False,100,False
MNIST,4-4,0.0002,2.0,False,,
MNIST,4-4,0.0002,10800.5,True,,
MNIST,4-4,0.0001,1.0,False,,
"""
TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 2] x) => (float[1, 1] y) <float[2, 3] w, float[3] b, float[3, 1] v>
{
    m = MatMul (x, w)
    pre = Add (m, b)
    r = Relu (pre)
    y = MatMul (r, v)
}
"""


def row(method: str, *states: str, **changes: Any) -> Row:
    layers = [{"tensor": f"pre{i}", "states": codes, "entries": len(codes)} for i, codes in enumerate(states)]
    key = ("exact/net.onnx", "0:1", method, "60")
    return replace(row_of(key, {"layers": layers, "seconds": 1.5, "peak_mb": 100.0, "stages": ["linear"]}), **changes)


def save(folder: Path) -> Path:
    model = onnx.parser.parse_model(TEXT)
    weights = {
        "w": np.array([[1.0, -1.0, 1.0], [1.0, -1.0, -1.0]]),
        "b": np.array([0.5, -0.5, 0.0]),
        "v": np.ones((3, 1)),
    }
    del model.graph.initializer[:]
    for name, values in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def test_rows_count_states_and_survive_the_file(tmp_path: Path) -> None:
    one = row("cascade", "iaau", "c?")
    assert (one.units, one.inactive, one.active, one.constant, one.unstable, one.undecided) == (6, 1, 2, 1, 1, 1)
    assert one.stable == 4
    append(one, tmp_path / "rows.csv")
    append(row("linear0", "i???", "??"), tmp_path / "rows.csv")
    again = replace(one, seconds=0.5)
    append(again, tmp_path / "rows.csv")
    found = read(tmp_path / "rows.csv")
    assert len(found) == 2
    assert found[one.key] == again
    assert row_of(one.key, {"error": "ValueError: no"}).status == "ValueError: no"
    assert row_of(one.key, {}, "timeout after 20 s").seconds is None


def test_contradictions_between_methods() -> None:
    one = row("cascade", "iau?")
    assert not contradictions([one, row("linear0", "ia??"), row("samples", "??u?")])
    assert len(contradictions([one, row("leo", "aiiu")])) == 3
    renamed = row("onnxsim", "uau?")
    renamed = replace(renamed, layers=({"tensor": "other", "states": "uau?"},))
    assert contradictions([one, renamed]) == ["exact/net.onnx 0:1 pre0[0]: cascade inactive, onnxsim unstable"]
    assert not contradictions([one, row("leo", "ia")])


def test_ground_truth_in_its_three_formats(tmp_path: Path) -> None:
    layer = {"stably_active": [0], "stably_inactive": [1], "undecided": [3]}
    limits = [{"layer": 1, "always_active_idx": [0], "never_active_idx": [1]}]
    contents: dict[str, Any] = {
        "checked": {"our_check": {"per_layer": {"1": layer}}, "architecture": [9, 4, 2], "l1": 0.0002},
        "layers": {"layers": {"1": layer}, "architecture": [9, 4, 4, 2]},
        "limits": {"layers": limits},
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    checked, layers, upper = (read_truth(tmp_path / f"{name}.json") for name in contents)
    assert checked == layers
    assert not read_truth(tmp_path / "absent.json")
    assert not against_truth(row("cascade", "aiui"), checked)
    assert missed(row("cascade", "?iu?"), checked) == 1
    assert len(against_truth(row("cascade", "uaau"), checked)) == 3
    assert not against_truth(row("cascade", "uuuu"), upper)
    assert len(against_truth(row("cascade", "iuai"), upper)) == 3
    assert missed(row("cascade", "????"), upper) == 0
    assert architecture(tmp_path / "checked.json") == ("4", 0.0002)
    assert architecture(tmp_path / "layers.json") is None


def test_figures_of_others(tmp_path: Path) -> None:
    (tmp_path / "baseline.csv").write_text(BASELINE)
    (tmp_path / "runs.csv").write_text(RUNS)
    peers = read_baseline(tmp_path / "baseline.csv")["net.onnx", "full"]
    assert list(peers) == ["CROWN"]
    assert (peers["CROWN"].undecided, peers["CROWN"].seconds, peers["CROWN"].peak_mb) == ((1, 2), 0.2, 257)
    cell = published(tmp_path / "runs.csv", "MNIST", "4-4", 2e-4)
    assert cell is not None
    assert (cell.runs, cell.timeouts, cell.least, cell.middle) == (3, 1, 2.0, 4.0)
    assert published(tmp_path / "runs.csv", "MNIST", "5-5", 2e-4) is None


def test_verdicts_name_what_is_missed(tmp_path: Path) -> None:
    (tmp_path / "exact").mkdir()
    layer = {"stably_active": [0], "stably_inactive": [], "undecided": []}
    (tmp_path / "exact" / "net.json").write_text(json.dumps({"our_check": {"per_layer": {"1": layer}}}))
    case = Case("exact", "exact/net.onnx", "0:1", "cascade", 60)
    fine, slow = row("cascade", "auuu"), row("cascade", "?iuu", seconds=6.0, stages="linear mip")
    text = report("exact", [case], Evidence({fine.key: fine}, tmp_path, {}, None))
    assert "0 contradictions, 0 misses, 0 not measured." in text
    text = report("exact", [case], Evidence({slow.key: slow}, tmp_path, {}, None))
    assert "1 contradictions, 4 misses, 0 not measured." in text
    assert "**NO**" in text
    assert "1 not measured" in report("exact", [case], Evidence({}, tmp_path, {}, None))


def test_domains_of_cases(tmp_path: Path) -> None:
    for box in tenths():
        sides = np.subtract(box["upper"], box["lower"])
        assert np.allclose(sides, np.subtract(SENSORS[1], SENSORS[0]) / 10)
        assert np.greater_equal(box["lower"], SENSORS[0]).all()
        assert np.less_equal(box["upper"], SENSORS[1]).all()
    found = list(cases("acas", tmp_path, {}, Limits(5.0, 6.0, 7.0)))
    assert {(case.domain, case.method) for case in found} >= {("prop_1.vnnlib", "samples"), ("tenth 0", "cascade")}
    assert all(case.model == f"vnncomp/acasxu/{ACAS}" for case in found)


@pytest.mark.parametrize(
    ("method", "states", "unproved"),
    [("cascade", "aiu", 1), ("interval", "ai?", 1), ("linear0", "ai?", 1), ("samples", "??u", 3)],
)
def test_states_by_every_kind_of_method(tmp_path: Path, method: str, states: str, unproved: int) -> None:
    job = {
        "model": str(save(tmp_path)),
        "domain": {"lower": [[0, 0]], "upper": [[1, 1]]},
        "method": method,
        "budget": 5,
    }
    found = work(job)
    assert [(layer["states"], layer["unproved"]) for layer in found["layers"]] == [(states, unproved)]
    assert found["seconds"] > 0


def test_what_optimize_leaves(tmp_path: Path) -> None:
    job = {"model": str(save(tmp_path)), "domain": {"texts": ["0:1"]}, "method": "optimize-rows", "budget": 5}
    figures = work(job)["figures"]
    assert (figures["hidden_before"], figures["widths_before"]) == (3, [3, 1])
    assert figures["hidden_after"] < 3
    assert figures["own_error"] < 1e-5


def test_a_finished_run_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "models" / "exact")
    arguments = [str(tmp_path / "models"), "exact", "--out", str(tmp_path), "--methods", "cascade,optimize-product"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "[2/2]" in output.err
    assert "4 misses" not in output.out
    assert main(arguments) == 0
    assert not capsys.readouterr().err
    assert (tmp_path / "exact.md").exists()
