"""Measures one case: ``python -m tests.benchmarks.certificate.worker MODELS NUMBER FOLDER ROW.json``.

A process of its own, so that a run that hangs can be stopped. ``ROW.json`` is written after every stage: what was
measured before a stop is kept. ``NUMBER`` is the place of the case in :func:`cases`.
"""

from __future__ import annotations

import json
import resource
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
from tests.benchmarks.stability.worker import domain_of


def measure(case: Case, folder: Path, row_file: Path) -> None:
    """Write the row of a case, stage by stage."""
    row = case.row()

    def known(**values: Any) -> None:
        row.update(values)
        row_file.write_text(json.dumps(row))

    known(verifies=False, reason="stopped: optimize")
    source = load(case.path)
    given = domain_of(case.box, input_specs(source.model)) if case.box else None
    settings: dict[str, Any] = {"budget": case.budget, "goal": "size", "align": 1, "remember": False}
    began = _processor()
    try:
        result = optimize(source.model, given, certificate=True, **settings)
    except OnnxpruneError as error:
        known(reason=str(error))
        return
    assert result.certificate is not None
    spent = _processor() - began
    report = result.report.content
    path = folder / "certificate.json"
    model = sealed(result, path)
    proof = report["proof"]
    known(
        reason="stopped: checking",
        removed=report["units"]["removed"],
        certified_removed=report["units"]["removed"],
        proving_s=proof["seconds"],
        making_s=result.certificate.seconds,
        optimize_cpu_s=spent,
        model_bytes=case.path.stat().st_size,
        certificate_bytes=sum(file.stat().st_size for file in folder.glob("certificate.*")),
        prover_trust=proof["trust"],
    )
    known(**{"reason": "", **_checked(path, source.model, model, exact=False)})
    if proof["trust"].get("solver"):
        known(certified_removed=None)
        other = optimize(source.model, given, trust="certified", **settings)
        known(certified_removed=other.report.content["units"]["removed"])
    if case.exact and row["verifies"]:
        known(exact_agrees=False, exact_s=0.0, exact_reason="stopped")
        found = _checked(path, source.model, model, exact=True)
        agrees = found.get("units") == row["units"]
        known(exact_agrees=agrees, exact_s=found["checking_s"], exact_reason=found.get("reason", ""))


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


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


if __name__ == "__main__":
    models, number, into, row_path = sys.argv[1:]
    measure(list(cases(Path(models)))[int(number)], Path(into), Path(row_path))
