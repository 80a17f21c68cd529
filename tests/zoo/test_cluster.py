"""A zoo on a real Dask cluster of several worker processes, one of which is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest

from onnxprune.errors import EnvironmentFailure
from onnxprune.zoo import Row, cluster, optimize_all
from tests.helpers import DENSE, assert_equal_models, command, parse, weights

distributed = pytest.importorskip("distributed", reason="Dask is an extra: onnxprune[cluster]")


@pytest.fixture(scope="module")
def local() -> Iterator[Any]:
    """Three worker processes with one thread each, and their scheduler."""
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as running:
        yield running


def models(zoo: Path, count: int) -> None:
    """Models that differ in the last bias."""
    for number in range(count):
        values = weights() | {"b2": np.full(3, number, np.float32)}
        onnx.save(parse(DENSE, weights=values), zoo / f"m{number}.onnx")


def test_a_killed_worker_costs_no_model(local: Any, zoo: Path, tmp_path: Path) -> None:
    models(zoo, 5)
    killed: list[int] = []
    with cluster.connected(local.scheduler_address) as client:

        def kill(done: int, total: int, row: Row) -> None:
            busy = [worker for worker, tasks in client.processing().items() if tasks]
            if not killed and busy:
                killed.append(client.run(os.getpid, workers=busy[:1])[busy[0]])
                os.kill(killed[0], signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)

        executor = cluster.executor_of(client, zoo, tmp_path)
        summary = optimize_all(zoo, tmp_path / "out", executor=executor, goal="size", align=1, watcher=kill)
    assert len(killed) == 1
    assert not psutil.pid_exists(killed[0])
    assert {row.path: row.status.value for row in summary.rows} == {f"m{n}.onnx": "optimized" for n in range(5)}
    for number in range(5):
        name = f"m{number}.onnx"
        assert_equal_models(onnx.load(zoo / name), onnx.load(tmp_path / "out" / name))
    stored = [json.loads(line)["path"] for line in (tmp_path / "out" / "results.jsonl").read_text().split("\n") if line]
    assert sorted(stored) == [f"m{n}.onnx" for n in range(5)]


def test_from_the_command_line(local: Any, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models(zoo, 2)
    arguments = ("zoo", zoo, tmp_path / "out", "--cluster", local.scheduler_address, "--goal", "size")
    ran = command(capsys, *arguments)
    assert (ran.code, ran.err) == (0, "")
    assert "2 optimized" in ran.out
    assert "2 finished before" in command(capsys, *arguments).out


def test_workers_that_do_not_see_the_models(local: Any, tmp_path: Path) -> None:
    with (
        cluster.connected(local.scheduler_address) as client,
        pytest.raises(EnvironmentFailure, match="does not see"),
    ):
        cluster.executor_of(client, tmp_path / "elsewhere")


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 0.5)
    with pytest.raises(EnvironmentFailure, match="No Dask scheduler answers"), cluster.connected("tcp://127.0.0.1:9"):
        pass
