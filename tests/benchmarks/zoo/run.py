"""A whole zoo, killed and resumed, or on a Dask cluster that loses a worker, and every result compared.

``python -m tests.benchmarks.zoo.run MODELS --out DIR [--jobs 2] [--budget 2] [--dask]``
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from onnxprune.zoo import DomainRules, Limits, Row, Summary, cluster, optimize_all
from onnxprune.zoo.table import print_zoo
from tests.benchmarks.zoo.checking import WRONG, compare
from tests.benchmarks.zoo.domains import domains

KILL_AT = 0.4
"""Share of the models after which the run, or a worker, is killed."""


def main() -> int:
    """Run, kill, go on, compare; 1 when a result is wrong, missing or was made twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--budget", type=float, default=2.0)
    parser.add_argument("--dask", action="store_true", help="on a local cluster of that many workers")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rules = domains(options.models)
    (options.out / "domains.json").write_text(json.dumps(rules, indent=1))
    os.environ["ONNXPRUNE_CACHE"] = str(options.out.resolve() / "cache")
    before = time.monotonic()
    summary = (on_cluster if options.dask else killed_and_resumed)(options, rules)
    wall = time.monotonic() - before
    print_zoo(summary, every=True)
    faults = compared(options.models, options.out / "results", summary) + repeated(options.out / "results")
    throughput(summary, wall)
    for fault in faults:
        print(fault)
    print("FAILED" if faults else "PASSED: none wrong, none made twice")
    return bool(faults)


def killed_and_resumed(options: argparse.Namespace, rules: Mapping[str, str | None]) -> Summary:
    """The command line, killed in the middle, and then again to its end."""
    output = options.out / "results"
    command = [sys.executable, "-m", "onnxprune", "zoo", str(options.models), str(output), "-q"]
    command += ["--jobs", str(options.jobs), "--budget", str(options.budget), "--domains"]
    command.append(str(options.out / "domains.json"))
    first = subprocess.Popen(command)
    while first.poll() is None and len(stored(output)) < KILL_AT * len(rules):
        time.sleep(0.05)
    children = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGKILL)
    first.wait()
    left = psutil.wait_procs(children, timeout=10)[1]
    print(f"killed after {len(stored(output))} of {len(rules)} models; {len(left)} processes outlived it by 10 s")
    return optimize_all(
        options.models,
        output,
        domain=DomainRules.from_mapping(rules),
        jobs=options.jobs,
        limits=Limits(600, psutil.virtual_memory().total // options.jobs),
        **same_options(options.budget),
    )


def on_cluster(options: argparse.Namespace, rules: Mapping[str, str | None]) -> Summary:
    """A local cluster of worker processes, one of which is killed while it works."""
    local_cluster: Any = import_module("distributed").LocalCluster
    output = options.out / "results"
    output.mkdir(exist_ok=True)
    with (
        local_cluster(n_workers=options.jobs, threads_per_worker=1, dashboard_address=None, silence_logs=50) as local,
        cluster.connected(local.scheduler_address) as client,
    ):
        killed: list[str] = []

        def kill(done: int, total: int, row: Row) -> None:
            busy = [worker for worker, tasks in client.processing().items() if tasks]
            if not killed and busy and done >= KILL_AT * total:
                killed.append(busy[0])
                os.kill(client.run(os.getpid, workers=killed)[busy[0]], signal.SIGKILL)
                print(f"killed a worker after {done} of {total} models")

        return optimize_all(
            options.models,
            output,
            domain=DomainRules.from_mapping(rules),
            limits=Limits(600, psutil.virtual_memory().total // options.jobs),
            executor=cluster.executor_of(client, options.models, output),
            watcher=kill,
            **same_options(options.budget),
        )


def same_options(budget: float) -> dict[str, Any]:
    """What the command line passes on when only the budget is given, so that keys are the same."""
    from onnxprune.cli.common import shared_options  # noqa: PLC0415
    from onnxprune.cli.zoo import parser  # noqa: PLC0415

    given = parser("zoo").parse_args(["models", "results", "--budget", str(budget)])
    return {"align": given.align, "goal": given.goal, **shared_options(given)}


def stored(output: Path) -> list[Row]:
    """All rows that were ever stored, without one that is being written."""
    path = output / "results.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [Row.from_json(json.loads(line)) for line in lines if line]


def repeated(output: Path) -> list[str]:
    """Models that were worked on to the end more than once."""
    counts = Counter(row.path for row in stored(output))
    return [f"made {count} times: {path}" for path, count in counts.items() if count > 1]


def compared(models: Path, output: Path, summary: Summary) -> list[str]:
    """Run every result beside its original; sentences about what is wrong."""
    faults = [f"{row.status.value}: {row.path}: {row.reason}" for row in summary.failed]
    worst = 0.0
    for row in summary.rows:
        if row.status.good:
            found = compare(models / row.path, output / row.path, row.domain)
            worst = max(worst, found.largest)
            if found.wrong:
                faults.append(f"{row.path}: {found.wrong} entries differ by more than {WRONG} of the output range")
    print(f"compared in ONNX Runtime: largest difference {worst:.1e} of an output's range")
    return faults


def throughput(summary: Summary, wall: float) -> None:
    """Models per hour, and what a process costs."""
    rows: Sequence[Row] = [row for row in summary.rows if not row.same_as]
    seconds = sorted(row.seconds for row in rows)
    print(
        f"{len(rows)} models in {wall:.0f} s of wall time: {3600 * len(rows) / wall:.0f} an hour; per model "
        f"{sum(seconds) / len(rows):.1f} s on average, {seconds[len(rows) // 2]:.1f} s median, {seconds[-1]:.1f} s most"
    )
    peaks = sorted(row.peak for row in rows)
    print(f"memory of a process: {peaks[len(rows) // 2] / 1e6:.0f} MB median, {peaks[-1] / 1e6:.0f} MB most")
    busy = sum(row.processor for row in rows)
    rate = f"{busy / len(rows):.1f} s per model, {3600 * len(rows) / busy:.0f} models an hour and core"
    print(f"processor time: {busy:.0f} s, {rate}")


if __name__ == "__main__":
    raise SystemExit(main())
