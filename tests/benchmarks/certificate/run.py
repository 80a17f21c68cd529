"""Measure certificates: ``python -m tests.benchmarks.certificate.run MODELS --out DIR [--only TEXT]``.

Every model is optimized with a certificate, which is then checked from disk. One row per model and domain is written
as soon as it is known; rows that are there are not measured again. ``--table`` prints what there is.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.certificate.cases import cases, first_of_each_family
from tests.benchmarks.certificate.table import table

ROWS = "rows.jsonl"


def measured(models: Path, number: int, folder: Path, limit: float) -> dict[str, Any]:
    """The row of a case, as far as it was known when the limit (seconds) had passed."""
    for old in folder.glob("*"):
        old.unlink()
    row = folder / "row.json"
    command = [sys.executable, "-m", "tests.benchmarks.certificate.worker", str(models), str(number), str(folder)]
    # A session of its own: the processes that prove are stopped with the one that measures.
    process = subprocess.Popen([*command, str(row)], start_new_session=True)
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return {**json.loads(row.read_text()), "stopped_after": limit}
    found: dict[str, Any] = json.loads(row.read_text())
    return found if code == 0 else {**found, "verifies": False, "reason": f"the measurement ended with code {code}"}


def main() -> int:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="measure models with this text in their name")
    parser.add_argument("--all", action="store_true", help="every model and property of vnncomp/, not one a family")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds until the measurement of a case is stopped")
    parser.add_argument("--table", action="store_true", help="print the table of what there is")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / ROWS
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["model"], row["domain"]) for row in rows}
    known = list(cases(options.models))
    chosen = known if options.all else first_of_each_family(known)
    for case in [] if options.table else chosen:
        if (case.name, case.domain) in done or options.only not in case.name:
            continue
        print(f"{case.name} {case.domain}", file=sys.stderr, flush=True)
        folder = options.out / "certificates" / f"{case.path.stem}_{case.domain}".replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        rows.append(measured(options.models, known.index(case), folder, options.limit))
        with file.open("a") as out:
            out.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
