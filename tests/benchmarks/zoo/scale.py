"""What a large zoo costs besides the work on its models.

``python -m tests.benchmarks.zoo.scale FOLDER [--count 100000]`` makes that many tiny files, gives each a row at once
instead of running it, and goes on from there a second time.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from onnxprune.zoo import Row, Status, optimize_all
from onnxprune.zoo.job import Job
from onnxprune.zoo.rows import FIGURES
from onnxprune.zoo.summary import Summary

PER_FOLDER = 1000


class Instant(Executor):
    """Finishes every job without looking at its model."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """A future that is done."""
        job: Job = arguments[0]
        figures = dict.fromkeys(FIGURES, 1234.5)
        status = Status.OPTIMIZED if hash(job.path) % 50 else Status.FAILED
        future: Future[Any] = Future()
        future.set_result(
            Row(job.path, job.key, status, seconds=1.234, before=figures, after=figures, units=(100, 10), worker="here")
        )
        return future


def main() -> None:
    """Print seconds, memory and sizes of both runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    models, output = options.folder / "models", options.folder / "results"
    for number in range(options.count):
        path = models / str(number // PER_FOLDER) / f"model_{number:06d}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(number))
    for run in ("first", "second"):
        before = time.process_time(), time.monotonic()
        summary: Summary = optimize_all(models, output, executor=Instant())
        processor, wall = time.process_time() - before[0], time.monotonic() - before[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{run} run: {len(summary.rows):,} rows, {processor:.1f} s of processor time, {wall:.1f} s, {peak:.0f} MB"
        )
    for file in sorted(output.iterdir()):
        if file.is_file():
            print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
