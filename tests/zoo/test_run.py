"""Whole zoos of stand-ins: resumed, killed, interrupted, with twins; and one of real models."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx
import psutil
import pytest

from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.zoo import Row, Status, Summary, optimize_all
from onnxprune.zoo.store import WORK, ResultStore, run_folder
from tests.helpers import CONV, assert_equal_models, dense, parse, untouchable, weights
from tests.zoo.conftest import STUB, left


def models(zoo: Path, *names: str) -> None:
    for name in names:
        path = zoo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def lines(output: Path) -> list[Row]:
    """All rows that were ever stored."""
    text = (output / "results.jsonl").read_text()
    return [Row.from_json(json.loads(line)) for line in text.splitlines() if line]


def statuses(summary: Summary) -> dict[str, str]:
    return {row.path: row.status.value for row in summary.rows}


@pytest.mark.usefixtures("stubbed")
class TestStandIns:
    def test_a_bad_model_stops_no_other_and_nothing_runs_twice(self, zoo: Path, tmp_path: Path) -> None:
        models(zoo, "a.onnx", "crash.onnx", "sub/b.onnx")
        out = tmp_path / "deep" / "out"
        first = optimize_all(zoo, out, jobs=2)
        assert statuses(first) == {"a.onnx": "optimized", "crash.onnx": "failed", "sub/b.onnx": "optimized"}
        assert [row.path for row in first.failed] == ["crash.onnx"]
        assert (out / "sub" / "b.onnx.report.json").is_file()
        assert len(lines(out)) == 3
        again = optimize_all(zoo, out, jobs=2)
        assert statuses(again) == statuses(first)
        assert all(row.finished_before for row in again.rows)
        assert len(lines(out)) == 3
        retried = optimize_all(zoo, out, retry=True)
        assert [row.path for row in lines(out)[3:]] == ["crash.onnx"]
        assert retried.counts()["finished before"] == 2

    def test_what_changed_or_is_gone_runs_again(self, zoo: Path, tmp_path: Path) -> None:
        models(zoo, "a.onnx", "b.onnx", "c.onnx")
        out = tmp_path / "out"
        optimize_all(zoo, out)
        (zoo / "a.onnx").write_text("another model")
        (out / "b.onnx").unlink()
        optimize_all(zoo, out)
        assert [row.path for row in lines(out)[3:]] == ["a.onnx", "b.onnx"]
        optimize_all(zoo, out, include=["c.onnx"], budget=1)
        optimize_all(zoo, out, include=["c.onnx"], budget=1, domain="0:1")
        assert [row.path for row in lines(out)[5:]] == ["c.onnx", "c.onnx"]

    def test_twins_run_once(self, zoo: Path, tmp_path: Path) -> None:
        for name in ("slow.onnx", "sub/slow.onnx", "slow_too.onnx"):
            models(zoo, name)
            (zoo / name).write_text("the same")
        for name in ("crash.onnx", "crash_too.onnx"):
            (zoo / name).write_text("a bad one")
        out = tmp_path / "out"
        rows = {row.path: row for row in optimize_all(zoo, out, jobs=2).rows}
        assert sorted(row.same_as for row in rows.values()) == ["", "", "crash.onnx", "slow.onnx", "slow.onnx"]
        assert rows["sub/slow.onnx"].files == {"sub/slow.onnx": 8, "sub/slow.onnx.report.json": 2}
        assert rows["sub/slow.onnx"].change("params") == -0.5
        assert rows["crash_too.onnx"].status is Status.FAILED
        (zoo / "late.onnx").write_text("the same")
        assert optimize_all(zoo, out).rows[2].same_as == "slow.onnx"

    def test_the_output_folder_may_lie_inside(self, zoo: Path) -> None:
        models(zoo, "a.onnx")
        for _ in range(2):
            assert optimize_all(zoo, zoo / "out").found == 1

    def test_a_file_that_cannot_be_read_is_a_row(self, zoo: Path, tmp_path: Path) -> None:
        models(zoo, "a.onnx")
        (zoo / "link.onnx").symlink_to(tmp_path / "nowhere")
        if hasattr(os, "mkfifo"):
            os.mkfifo(zoo / "pipe.onnx")
        rows = optimize_all(zoo, tmp_path / "out", domain="missing.npz").rows
        assert {row.status for row in rows} == {Status.FAILED}
        summary = optimize_all(zoo, tmp_path / "out")
        assert [row.path for row in summary.failed] == [row.path for row in summary.rows if row.path != "a.onnx"]
        assert "is missing, or no regular file" in summary.failed[0].reason

    def test_asked_for_an_end_the_rest_is_left(self, zoo: Path, tmp_path: Path) -> None:
        models(zoo, "patient.onnx", "x.onnx", "y.onnx")
        started = time.monotonic()
        summary = optimize_all(zoo, tmp_path / "out", stopped=lambda: time.monotonic() - started > 1)
        assert [(row.path, row.early) for row in summary.rows] == [("patient.onnx", True)]
        assert summary.left == 3
        (zoo / "patient.onnx").rename(zoo / "quick.onnx")
        assert optimize_all(zoo, tmp_path / "out").left == 0

    def test_an_interrupt_ends_all_processes(self, zoo: Path, tmp_path: Path) -> None:
        models(zoo, "a.onnx", "hang.onnx", "hang_too.onnx")

        def interrupt(done: int, total: int, row: Row) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            optimize_all(zoo, tmp_path / "out", jobs=3, watcher=interrupt)
        assert not left()
        assert [row.path for row in lines(tmp_path / "out")] == ["a.onnx"]
        assert [path.name for path in (tmp_path / "out" / WORK).iterdir()] == ["lock"]

    @pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
    def test_killed_it_goes_on_where_it_stood(self, zoo: Path, tmp_path: Path) -> None:
        models(zoo, *(f"slow{number}.onnx" for number in range(6)))
        out = tmp_path / "out"
        script = f"from onnxprune.zoo import guard, optimize_all; guard.COMMAND = {STUB!r}; "
        script += f"optimize_all({str(zoo)!r}, {str(out)!r}, jobs=2)"
        process = subprocess.Popen([sys.executable, "-c", script])
        deadline = time.monotonic() + 60
        while not (out / "results.jsonl").exists() or len(lines(out)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not psutil.wait_procs(children, timeout=10)[1], "its processes end with it"
        finished = [row.path for row in lines(out)]
        assert 2 <= len(finished) < 6
        summary = optimize_all(zoo, out, jobs=2)
        assert statuses(summary) == {f"slow{number}.onnx": "optimized" for number in range(6)}
        assert sorted(row.path for row in lines(out)) == sorted(statuses(summary)), "nothing ran twice"
        assert sum(row.finished_before for row in summary.rows) == len(finished)

    def test_any_executor_will_do(self, zoo: Path, tmp_path: Path) -> None:
        models(zoo, "a.onnx", "b.onnx")
        with ThreadPoolExecutor(2) as executor:
            assert len(optimize_all(zoo, tmp_path / "out", executor=executor).rows) == 2
            executor.submit(int).result()

    def test_an_executor_that_breaks_ends_the_run(self, zoo: Path, tmp_path: Path) -> None:
        class Broken(ThreadPoolExecutor):
            def submit(self, *arguments: Any, **keywords: Any) -> Future[Any]:
                future: Future[Any] = Future()
                future.set_exception(RuntimeError("no connection"))
                return future

        models(zoo, "a.onnx")
        with pytest.raises(EnvironmentFailure, match="no connection"):
            optimize_all(zoo, tmp_path / "out", executor=Broken())

    def test_summaries(self, zoo: Path, tmp_path: Path) -> None:
        models(zoo, "a.onnx", "crash.onnx")
        out = tmp_path / "out"
        optimize_all(zoo, out)
        with (out / "summary.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        content = json.loads((out / "summary.json").read_text())
        assert [row["status"] for row in table] == ["optimized", "failed"]
        assert [table[0]["params_before"], table[0]["params_after"], table[1]["params_after"]] == ["10", "5", ""]
        assert content["totals"]["after"] == {"params": 5, "macs": 20, "bytes": 50}
        assert content["counts"]["optimized"] == content["counts"]["failed"] == 1
        assert list(content["models"][0]) == list(table[0])

    @pytest.mark.parametrize("options", [{"jobs": 0}, {"data": {}}, {"bugdet": 1}, {"budget": -1}])
    def test_options_that_cannot_be_meant(self, zoo: Path, tmp_path: Path, options: dict[str, Any]) -> None:
        models(zoo, "a.onnx")
        with pytest.raises(InputError):
            optimize_all(zoo, tmp_path / "out", **options)


def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    row = Row("a.onnx", "k", Status.OPTIMIZED, files={"a.onnx": 3})
    store = ResultStore(tmp_path)
    store.append(row)
    store.close()
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"path": "b.onnx", "ke')
    store = ResultStore(tmp_path)
    store.append(Row("c.onnx", "k", Status.FAILED, "no"))
    store.close()
    store = ResultStore(tmp_path)
    assert store.by_path == {"a.onnx": row, "c.onnx": Row("c.onnx", "k", Status.FAILED, "no")}
    assert store.result_of("k") == row
    store.close()


def test_two_runs_do_not_share_an_output_folder(tmp_path: Path) -> None:
    with run_folder(tmp_path) as run:
        with pytest.raises(InputError, match="Another run"), run_folder(tmp_path):
            pass
        (tmp_path / WORK / "left").mkdir()
        assert run.is_dir()
    with run_folder(tmp_path):
        assert not (tmp_path / WORK / "left").exists()


def test_real_models(zoo: Path, tmp_path: Path) -> None:
    """One run over a good, an unchanged, a cut and a doubled model, and one with external data."""
    onnx.save(dense(), zoo / "dense.onnx")
    (zoo / "sub").mkdir()
    onnx.save(dense(), zoo / "sub" / "twin.onnx")
    onnx.save(untouchable(), zoo / "still.onnx")
    wide = parse(CONV, "float[N,4,H,W] x", "float[N,3,H,W] y", weights(kernel=(3, 3), hidden=40))
    onnx.save_model(wide, zoo / "conv.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (zoo / "cut.onnx").write_bytes(dense().SerializeToString()[:300])
    out = tmp_path / "out"
    summary = optimize_all(zoo, out, jobs=2, goal="size", align=1)
    assert statuses(summary) == {
        "conv.onnx": "optimized",
        "cut.onnx": "failed",
        "dense.onnx": "optimized",
        "still.onnx": "unchanged",
        "sub/twin.onnx": "optimized",
    }
    assert (out / "still.onnx").read_bytes() == (zoo / "still.onnx").read_bytes()
    assert (out / "sub" / "twin.onnx").read_bytes() == (out / "dense.onnx").read_bytes()
    for name in ("dense.onnx", "conv.onnx", "sub/twin.onnx"):
        assert_equal_models(onnx.load(zoo / name), onnx.load(out / name))
        report = json.loads((out / f"{name}.report.json").read_text())
        assert report["model"]["path"] == str(zoo / name)
        assert report["units"]["removed"] == 3
    rows = {row.path: row for row in summary.rows}
    assert rows["dense.onnx"].units == (11, 3)
    assert rows["sub/twin.onnx"].same_as == "dense.onnx"
    assert "cannot be parsed" in rows["cut.onnx"].reason
    data = [name for name in rows["conv.onnx"].files if name.endswith(".data")]
    assert len(data) == 1, "external data stay external"
