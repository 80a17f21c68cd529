"""One run over a zoo: skip what is finished, run the rest, keep every row, sum up."""

from __future__ import annotations

import queue
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path

from onnxprune.errors import EnvironmentFailure
from onnxprune.zoo.finding import DomainRules
from onnxprune.zoo.guard import run_guarded
from onnxprune.zoo.job import FINISH, Job, job_key
from onnxprune.zoo.rows import Row, Status
from onnxprune.zoo.store import ResultStore
from onnxprune.zoo.summary import Summary

_POLL_SECONDS = 0.2
_SUMMARY_SECONDS = 30.0
_SUMMARY_SHARE = 0.02
"""Most of the time that may go into writing summaries meanwhile."""

Watcher = Callable[[int, int, Row], None]


class Campaign:
    """One run over a zoo.

    Attributes:
        notes: Sentences for the user.
        watcher: Called with the numbers of models done and found, and a new row.
        stopped: Whether the user asked for an end.
    """

    def __init__(
        self,
        folder: Path,
        paths: Sequence[str],
        template: Job,
        store: ResultStore,
        domains: DomainRules,
        *,
        retry: bool,
    ) -> None:
        self.folder = folder
        self.paths = paths
        self.template = template
        self.store = store
        self.domains = domains
        self.retry = retry
        self.notes: list[str] = []
        self.watcher: Watcher = lambda done, total, row: None
        self.stopped: Callable[[], bool] = lambda: False
        self.output: Path = Path(template.output)
        self.rows: dict[str, Row] = {}
        self.waiting: dict[str, list[Job]] = defaultdict(list)
        self.running: dict[Future[Row | None], Job] = {}
        self.finished: queue.SimpleQueue[Future[Row | None]] = queue.SimpleQueue()
        self.started: float = time.monotonic()
        self.written = time.monotonic()
        self.asked = False

    def run(self, executor: Executor) -> Summary:
        """All models; every row is stored before the next result is looked at."""
        try:
            for path in self.paths:
                if self._ends():
                    break
                self._consider(path, executor)
                while not self.finished.empty():
                    self._take(self.finished.get(), executor)
            while self.running:
                self._ends()
                try:
                    self._take(self.finished.get(timeout=_POLL_SECONDS), executor)
                except queue.Empty:
                    continue
        finally:
            for future in self.running:
                future.cancel()
        return self._write()

    def _ends(self) -> bool:
        """Whether the user asked for an end; the jobs learn of it the first time."""
        if not self.asked and self.stopped():
            self.asked = True
            Path(self.template.run, FINISH).touch()
        return self.asked

    def _consider(self, path: str, executor: Executor) -> None:
        """Decide about one model: finished, failed before, the same as another, or to be run."""
        model, domain = self.folder / path, self.domains.texts(path)
        options = self.template
        try:
            key = job_key(model, domain, options.mean, options.std, options.options)
        except OSError as error:
            reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
            self._keep(Row(path, "", Status.FAILED, reason, domain=domain))
            return
        before = self.store.by_path.get(path)
        if before is not None and before.key == key and self._counts(before):
            self._keep(replace(before, finished_before=True))
            return
        job = replace(self.template, model=str(model), path=path, key=key, domain=domain)
        if key in self.waiting:
            self.waiting[key].append(job)
            return
        self._submit(job, executor)

    def _counts(self, row: Row) -> bool:
        """Whether a row of an earlier run need not be made again."""
        if row.early:
            return False
        return row.intact(self.output) if row.status.good else not self.retry

    def _submit(self, job: Job, executor: Executor) -> None:
        """Run a job, or copy the result that an identical model has."""
        same = self.store.result_of(job.key)
        if same is not None and same.path != job.path and same.intact(self.output):
            job = replace(job, copy_of=same.path)
        else:
            self.waiting[job.key] = []
        try:
            future = executor.submit(run_guarded, job)
        except RuntimeError as error:
            raise _broken(error) from error
        self.running[future] = job
        future.add_done_callback(self.finished.put)

    def _take(self, future: Future[Row | None], executor: Executor) -> None:
        """Keep the outcome of a job, and let those that waited for it go on."""
        job = self.running.pop(future)
        row = _outcome(future, job)
        twins = [] if job.copy_of else self.waiting.pop(job.key, [])
        if row is None and not self.asked:
            raise EnvironmentFailure(
                f"A worker does not see {job.run}.", hint="All workers need the two folders under the same names."
            )
        if row is None:
            return
        if job.copy_of and row.status.good:
            first = self.store.by_path[job.copy_of]
            row = replace(
                first,
                path=row.path,
                seconds=row.seconds,
                processor=row.processor,
                peak=row.peak,
                worker=row.worker,
                files=row.files,
                same_as=job.copy_of,
            )
        self._keep(row)
        for twin in twins:
            if row.status.good and not row.early:
                self._submit(twin, executor)
            elif not row.early:
                self._keep(replace(row, path=twin.path, seconds=0.0, processor=0.0, files={}, same_as=row.path))

    def _keep(self, row: Row) -> None:
        self.rows[row.path] = row
        if not row.finished_before:
            self.store.append(row)
        self.watcher(len(self.rows), len(self.paths), row)
        if time.monotonic() - self.written >= _SUMMARY_SECONDS:
            before = time.monotonic()
            self._write()
            self.written = time.monotonic() + (time.monotonic() - before) / _SUMMARY_SHARE

    def _write(self) -> Summary:
        summary = Summary(
            rows=[self.rows[path] for path in self.paths if path in self.rows],
            found=len(self.paths),
            seconds=time.monotonic() - self.started,
            folder=str(self.folder),
            notes=tuple(self.notes),
        )
        summary.write(self.output)
        return summary


def _outcome(future: Future[Row | None], job: Job) -> Row | None:
    """The row of a job.

    Raises:
        EnvironmentFailure: It is not the model's fault that there is none.
    """
    try:
        return future.result()
    except Exception as error:
        if type(error).__name__ == "KilledWorker":  # Dask's word, after several workers died over the same task
            return Row(job.path, job.key, Status.FAILED, "the workers it ran on died, one after the other")
        raise _broken(error) from error


def _broken(error: BaseException) -> EnvironmentFailure:
    what = str(error) or type(error).__name__
    return EnvironmentFailure(
        f"The work broke off: {what.splitlines()[0]}", hint="Run the same command again: what is finished stays."
    )
