"""Measure certificates: ``python -m tests.benchmarks.certificate.run MODELS --out DIR [--only TEXT]``.

Every model is optimized with a certificate, which is then checked from disk. One row per model and domain is written
as soon as it is known; rows that are there are not measured again. ``--table`` prints what there is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import onnx

from onnxprune import OnnxpruneError, optimize
from onnxprune.certificate.sealing import sealed
from onnxprune.graph.files import load
from onnxprune.samples import input_specs
from onnxprune.verify.checker import Verdict, check, check_seal
from onnxprune.verify.reading import read
from onnxprune.verify.reasons import Rejected
from tests.benchmarks.certificate.cases import Case, cases
from tests.benchmarks.certificate.table import table
from tests.benchmarks.stability.worker import domain_of

ROWS = "rows.jsonl"


def measured(case: Case, folder: Path) -> dict[str, Any]:
    """One row."""
    row: dict[str, Any] = {"group": case.group, "model": case.name, "domain": case.domain, "budget": case.budget}
    source = load(case.path)
    given = domain_of(case.box, input_specs(source.model)) if case.box else None
    settings: dict[str, Any] = {"budget": case.budget, "goal": "size", "align": 1, "remember": False}
    try:
        result = optimize(source.model, given, certificate=True, **settings)
    except OnnxpruneError as error:
        return {**row, "verifies": False, "reason": str(error)}
    assert result.certificate is not None
    report = result.report.content
    path = folder / "certificate.json"
    model = sealed(result, path)
    proof = report["proof"]
    row |= {
        "removed": report["units"]["removed"],
        "proving_s": proof["seconds"],
        "making_s": result.certificate.seconds,
        "model_bytes": case.path.stat().st_size,
        "certificate_bytes": sum(file.stat().st_size for file in folder.glob("certificate.*")),
        "prover_trust": proof["trust"],
    }
    row["certified_removed"] = row["removed"]
    if proof["trust"].get("solver"):
        other = optimize(source.model, given, trust="certified", **settings)
        row["certified_removed"] = other.report.content["units"]["removed"]
    row |= _checked(path, source.model, model, exact=False)
    if case.exact and row["verifies"]:
        found = _checked(path, source.model, model, exact=True)
        row["exact_s"], row["exact_agrees"] = found["checking_s"], found.get("units") == row["units"]
        row["exact_reason"] = found.get("reason", "")
    return row


def _checked(path: Path, original: onnx.ModelProto, optimized: onnx.ModelProto, *, exact: bool) -> dict[str, Any]:
    began = time.process_time()
    try:
        certificate, seal = read(path)
        check_seal(seal, optimized)
        verdict = check(certificate, original, optimized, exact=exact)
    except Rejected as error:
        return {"verifies": False, "reason": error.what, "checking_s": time.process_time() - began}
    return {"verifies": True, "checking_s": time.process_time() - began, **_said(verdict)}


def _said(verdict: Verdict) -> dict[str, Any]:
    robust = verdict.robust
    methods = Counter(verdict.methods)
    del methods["none"]
    return {
        "units": verdict.units,
        "methods": dict(methods),
        "solver": verdict.solver,
        "robust": None if robust is None else [robust.robust, robust.units],
        "witnessed": verdict.witnessed,
        "deviation": max(verdict.deviation.values(), default=0.0),
    }


def main() -> int:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="measure models with this text in their name")
    parser.add_argument("--table", action="store_true", help="print the table of what there is")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / ROWS
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["model"], row["domain"]) for row in rows}
    for case in [] if options.table else cases(options.models):
        if (case.name, case.domain) in done or options.only not in case.name:
            continue
        print(f"{case.name} {case.domain}", file=sys.stderr, flush=True)
        folder = options.out / "certificates" / f"{case.path.stem}_{case.domain}".replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("certificate.*"):
            old.unlink()
        rows.append(measured(case, folder))
        with file.open("a") as out:
            out.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
