"""Runs every tool on every model and writes the table after each model."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from . import wheels
from .counting import metadata_kept, open_session, size
from .measure import Outputs, difference, latency, outputs_of, parse_domain, working_feeds
from .table import ORIGINAL, Row, markdown, merge, read_csv, write_csv
from .tools import TOOLS, Outcome, Tool, clean, python_of, run

CACHE = Path.home() / ".cache" / "onnxprune-benchmarks"


@dataclass(frozen=True)
class Original:
    """A model as found, its seeded inputs and its answers on them."""

    name: str
    path: Path
    domain: tuple[str, ...]
    sets: list[dict[str, Any]]
    reference: list[Outputs]
    row: Row


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    names = options.tools.split(",") if options.tools else [tool.name for tool in TOOLS]
    unknown = sorted(set(names) - {tool.name for tool in TOOLS})
    models = find_models([*options.models, *([wheels.fetch(options.cache)] if options.wheels else [])])
    if unknown or not models:
        known = ", ".join(tool.name for tool in TOOLS)
        print(f"Unknown tools {unknown}; known: {known}." if unknown else "No *.onnx found.", file=sys.stderr)
        return 2
    ort.set_default_logger_severity(4)
    venvs = options.venvs or options.cache / "venvs"
    pythons = {tool: python_of(tool, venvs) for tool in TOOLS if tool.name in names}
    domains = json.loads(options.domain.read_text()) if options.domain else {}
    options.out.mkdir(parents=True, exist_ok=True)
    rows = read_csv(options.out / "peers.csv")
    for number, (name, path) in enumerate(models.items(), 1):
        print(f"[{number}/{len(models)}] {name}", file=sys.stderr, flush=True)
        rows = merge(rows, measure_model(name, path, pythons, domains, options.timeout))
        write_csv(rows, options.out / "peers.csv")
        (options.out / "peers.md").write_text(markdown(rows), encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, metavar="MODELS_DIR", help="searched for *.onnx")
    results = Path(__file__).with_name("results")
    parser.add_argument("--out", type=Path, default=results, help="where peers.csv and peers.md go")
    parser.add_argument("--tools", metavar="A,B", help="rows of other tools in --out are kept")
    parser.add_argument("--timeout", type=float, default=120, help="seconds per tool and model (default 120)")
    parser.add_argument("--domain", type=Path, metavar="FILE", help='onnxprune\'s domains: {"a.onnx": "0:1"}')
    parser.add_argument("--wheels", action="store_true", help="also the models inside some PyPI wheels")
    parser.add_argument("--cache", type=Path, default=CACHE, help="downloads and environments")
    parser.add_argument("--venvs", type=Path, help="environments of the peers (default: in the cache)")
    return parser


def find_models(folders: Sequence[Path]) -> dict[str, Path]:
    """Model files under the folders, by their path relative to the folder given."""
    return {
        path.relative_to(folder).as_posix(): path.resolve()
        for folder in folders
        for path in sorted(folder.rglob("*.onnx"))
    }


def measure_model(
    name: str,
    path: Path,
    pythons: Mapping[Tool, Path],
    domains: Mapping[str, str | list[str]],
    timeout: float,
) -> list[Row]:
    """Rows of all tools on one model, the original's first."""
    wish = domains.get(name) or domains.get(path.name) or []
    original = read_original(name, path, (wish,) if isinstance(wish, str) else tuple(wish))
    rows = [original.row]
    for tool, python in pythons.items():
        with tempfile.TemporaryDirectory(prefix="onnxprune-peers-") as folder:
            target = Path(folder) / "result.onnx"
            extra = [part for text in original.domain for part in ("--domain", text)]
            outcome = run(tool, python, path, target, timeout=timeout, extra=extra)
            row = measure_result(original, tool, outcome, target)
        print(f"    {tool.name}: {row.status} {row.message}", file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def read_original(name: str, path: Path, domain: tuple[str, ...]) -> Original:
    """Run the model as found on seeded inputs; without a working size for them there is no reference."""
    row = Row(name, ORIGINAL, ORIGINAL, domain=" ".join(domain))
    sets, reference = [], []
    try:
        session = open_session(path, optimize=False)
        sets = working_feeds(session, parse_domain(domain))
        reference = outputs_of(session, sets)
        row = replace(row, loads=True, message="" if sets else "no input sizes found on which it runs")
        if sets:
            fast = open_session(path, optimize=True)
            absolute, relative = difference(reference, outputs_of(fast, sets))
            row = replace(row, max_abs_diff=absolute, max_rel_diff=relative, **_latency(fast, fast, sets[0]))
    except Exception as error:  # onnxruntime raises its own family of plain exceptions
        row = replace(row, loads=False, message=clean(str(error)))
    return Original(name, path, domain, sets, reference, _with_size(row, path, sets))


def _with_size(row: Row, path: Path, sets: list[dict[str, Any]]) -> Row:
    found = size(path, sets[0] if sets else None)
    return replace(row, nodes=found.nodes, params=found.params, macs=found.macs, bytes=found.bytes)


def _latency(original: Any, result: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    milliseconds, ratio = latency(original, result, feeds)
    return {"latency_ms": milliseconds, "latency_ratio": ratio}


def measure_result(original: Original, tool: Tool, outcome: Outcome, target: Path) -> Row:
    """Compare what a tool wrote with the original."""
    row = Row(
        original.name,
        tool.name,
        outcome.status,
        version=outcome.version,
        domain=" ".join(original.domain) if tool.is_ours else "",
        seconds=outcome.seconds,
        peak_mb=outcome.peak_mb,
        mutated=outcome.mutated,
        message=outcome.message,
    )
    if outcome.status != "ok":
        return row
    kept = metadata_kept(onnx.load(original.path), onnx.load(target))
    row = replace(_with_size(row, target, original.sets), metadata=kept)
    try:
        session = open_session(target, optimize=False)
        fast = open_session(target, optimize=True)
    except Exception as error:  # onnxruntime raises its own family of plain exceptions
        return replace(row, status="no load", loads=False, message=clean(str(error)))
    row = replace(row, loads=True)
    if not original.sets:
        return replace(row, status="unchecked")
    try:
        absolute, relative = difference(original.reference, outputs_of(session, original.sets))
        timing = _latency(open_session(original.path, optimize=True), fast, original.sets[0])
    except Exception as error:  # as above; a phantom input is one reason
        return replace(row, status="no run", message=clean(str(error)))
    row = replace(row, max_abs_diff=absolute, max_rel_diff=relative, **timing)
    return replace(row, status="wrong" if row.is_wrong(original.row) else "ok")
