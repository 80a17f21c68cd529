"""Stands in for the process that works on a model; the name of the model says what goes wrong in it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from onnxprune.zoo.job import FILES, RESULT, Job, report_path

HUNGRY = "x = bytearray(b'1') * 300_000_000; import time; time.sleep(60)"
EXTERNAL = b"weights"


def main() -> None:
    parent = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
    job = Job.from_json(parent.readline())
    asked = threading.Event()
    threading.Thread(target=listen, args=(parent, asked), daemon=True).start()
    name = Path(job.path).name
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("complain"):
        sys.exit("first line\nno such luck\n")
    if name.startswith("hang"):
        time.sleep(60)
    if name.startswith("hungry"):
        exec(HUNGRY)
    if name.startswith("parent"):
        subprocess.run([sys.executable, "-c", HUNGRY], check=False)
    if name.startswith("patient"):
        asked.wait(60)
    time.sleep(0.3 if name.startswith("slow") else 0)
    made = Path(FILES)
    made.mkdir()
    source = Path(job.output, job.copy_of) if job.copy_of else Path(job.model)
    (made / name).write_bytes(source.read_bytes())
    (made / report_path(name)).write_text("{}")
    figures = {"nodes": 2, "params": 10, "macs": 20, "bytes": 100, "latency_ms": 1.0}
    content = {
        "status": "optimized",
        "before": figures,
        "after": figures | {"params": 5, "bytes": 50},
        "units": [4, 2],
        "error": 1e-7,
        "samples": 3,
        "early": asked.is_set(),
    }
    Path(RESULT).write_text(json.dumps(content))


def listen(parent: io.FileIO, asked: threading.Event) -> None:
    while parent.readline():
        asked.set()
    os._exit(1)


if __name__ == "__main__":
    main()
