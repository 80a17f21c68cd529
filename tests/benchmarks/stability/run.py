"""How many units every method decides: ``python -m tests.benchmarks.stability.run MODELS_DIR GROUP... --out DIR``.

See README.md for the groups and columns. Every measurement is a process of its own; finished ones are found again in
``DIR/results.csv``, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.graph.files import load
from onnxprune.samples import input_specs
from tests.benchmarks.peers.benchmark import CACHE
from tests.benchmarks.peers.tools import TOOLS, python_of

from .cases import GROUPS, Case, Limits, cases
from .table import Row, append, read, read_baseline, row_of
from .verdicts import Evidence, report
from .worker import domain_of

GRACE = 60.0
"""Seconds beyond its budget after which a run of ours is ended."""
HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "results.csv"
    baseline = read_baseline(options.baseline) if options.baseline else {}
    limits = Limits(options.budget, options.milp_limit, options.peer_limit)
    wanted = [case for group in options.groups for case in cases(group, options.models, baseline, limits)]
    methods = set(options.methods.split(",")) if options.methods else None
    chosen = [c for c in wanted if options.only in f"{c.model} {c.domain}" and (not methods or c.method in methods)]
    done = read(path)
    for number, case in enumerate(chosen, 1):
        if case.key in done and not options.again:
            continue
        row = measure(case, options.models, options.venvs)
        append(row, path)
        done[row.key] = row
        print(f"[{number}/{len(chosen)}] {_line(row)}", file=sys.stderr, flush=True)
    evidence = Evidence(done, options.models, baseline, options.published)
    for group in dict.fromkeys(options.groups):
        here = [case for case in wanted if case.group == group]
        text = report(group, here, evidence)
        (options.out / f"{group}.md").write_text(text, encoding="utf-8")
        print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.stability.run", description=__doc__)
    parser.add_argument("models", type=Path, metavar="MODELS_DIR", help="holds exact/, vnncomp/, zoo/")
    parser.add_argument("groups", nargs="+", choices=list(GROUPS), metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--baseline", type=Path, metavar="CSV", help="auto_LiRPA's figures per layer")
    parser.add_argument("--published", type=Path, metavar="CSV", help="published times of exact compression")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where results.csv and the tables go")
    parser.add_argument("--only", default="", metavar="TEXT", help="only models and domains with this in their name")
    parser.add_argument("--methods", metavar="A,B", help="only these methods")
    parser.add_argument("--budget", type=float, default=60, help="seconds of the cascade (default 60)")
    parser.add_argument("--milp-limit", type=float, default=120, help="seconds of LEO and the single MILP (120)")
    parser.add_argument("--peer-limit", type=float, default=20, help="seconds per analyzer in group onnxsim (20)")
    parser.add_argument("--venvs", type=Path, default=CACHE / "venvs", help="environments of the peers")
    parser.add_argument("--again", action="store_true", help="measure what is in results.csv already, too")
    return parser


def measure(case: Case, models: Path, venvs: Path) -> Row:
    """Run a case in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="onnxprune-stability-") as folder:
        job, out = Path(folder) / "job.json", Path(folder) / "out.json"
        content: dict[str, Any] = {"model": str((models / case.model).resolve()), "domain": dict(case.box)}
        content |= {"method": case.method, "budget": case.budget}
        command = [sys.executable, "-m", "tests.benchmarks.stability.worker", str(job), str(out)]
        limit = 2 * case.budget + GRACE
        if case.method == "onnxsim":
            tool = next(tool for tool in TOOLS if tool.name == "onnxsim")
            command = [str(python_of(tool, venvs)), "-I", str(HERE / "onnxsim_worker.py"), str(job), str(out)]
            content["box"] = str(_save_box(content, Path(folder) / "box.npz"))
            limit = case.budget
        job.write_text(json.dumps(content), encoding="utf-8")
        status = _run(command, limit)
        result = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    return row_of(case.key, result, status)


def _save_box(content: dict[str, Any], path: Path) -> Path:
    """The domain's box in the shapes of the inputs."""
    specs = input_specs(load(content["model"]).model)
    domain = domain_of(content["domain"], specs)
    ends: dict[str, Any] = {}
    for spec in specs:
        shape = tuple(d if isinstance(d, int) else 1 for d in spec.shape or ())
        for end, values in zip(("lower", "upper"), domain.bounds(spec), strict=True):
            ends[f"{spec.name}.{end}"] = np.broadcast_to(values, shape)
    np.savez(path, **ends)
    return path


def _run(command: Sequence[str], limit: float) -> str:
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.communicate()
        return f"timeout after {limit:g} s"
    return "ok" if process.returncode == 0 else f"exit code {process.returncode}: {errors.strip()[-200:]}"


def _line(row: Row) -> str:
    decided = f"i {row.inactive} a {row.active} c {row.constant} u {row.unstable} ? {row.undecided}"
    seconds = "-" if row.seconds is None else f"{row.seconds:.2f} s"
    memory = "-" if row.peak_mb is None else f"{row.peak_mb:.0f} MB"
    return f"{row.model} {row.domain} {row.method}: {row.status}, {decided}, {seconds}, {memory}"


if __name__ == "__main__":
    sys.exit(main())
