"""Independent tasks in parallel: in this process, in processes of our own, or on an executor of the caller's."""

from __future__ import annotations

import multiprocessing
import queue
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.worker_process import PORTABLE, WorkerProcess, call, packed, result_of, unpacked

T = TypeVar("T")
R = TypeVar("R")
Stopped = Callable[[], bool]

_POLL_SECONDS = 0.2
_CLOSE_SECONDS = 1.0
_MOST_FAILED_STARTS = 3  # in a row
_MOST_ON_WINDOWS = 30  # it waits for 63 handles at most, and each process has two


class Lost(NamedTuple):
    """A task that was given up, and why."""

    task: int
    reason: str


class Workers:
    """Runs independent tasks and hands over results as they complete.

    With ``jobs=1`` tasks run in this process, in order. With more they run in processes of their own: started
    with "spawn" (solvers keep state that a fork would copy) when first needed, kept from run to run, deaf to
    Ctrl-C, and with one thread for linear algebra each. A script that uses several jobs needs the usual
    ``if __name__ == "__main__":``. Inside such a process ``jobs`` counts as 1.

    When a process dies (out of memory, say) its task runs again, alone and in a fresh process, after all others;
    a task whose process dies twice is given up and listed in `lost`. A given executor is never shut down; it
    replaces dead processes itself, or what it leaves unfinished is listed.

    Attributes:
        lost: Tasks of the latest run that were given up.
    """

    def __init__(self, jobs: int = 1, executor: Executor | None = None) -> None:
        if jobs < 1:
            raise InputError(f"jobs cannot be {jobs}.", hint="It is 1 or more.")
        most = 1 if multiprocessing.current_process().daemon else _MOST_ON_WINDOWS if sys.platform == "win32" else jobs
        self.jobs: int = min(jobs, most)
        self.executor = executor
        self.lost: list[Lost] = []
        self._pool: list[WorkerProcess] = []
        self._capacity = self.jobs
        self._failed_starts = 0
        self._running = False
        self._closed = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End all processes that were started here, and with them a run that is not over."""
        self._closed = True
        self._end_all()

    def run(
        self, function: Callable[[T], R], tasks: Sequence[T], *, stopped: Stopped = lambda: False
    ) -> Iterator[tuple[int, R]]:
        """Call ``function`` on every task and yield (index of the task, result), in order of completion.

        Once ``stopped()`` is true nothing new is started. What runs then is ended within a second in processes
        of our own, left to itself on an executor, and awaited in this process. Closing the iterator does the
        same. An exception of the function ends the run and is raised here.

        Raises:
            EnvironmentFailure: Function, task or result cannot be sent to another process; no process can be
                started; the executor takes no tasks.
            RuntimeError: An earlier run is not over; or the function's exception cannot be sent.
        """
        if self._running:
            raise RuntimeError("An earlier run of these workers is not over: exhaust or close its iterator first.")
        self.lost, self._capacity, self._failed_starts = [], self.jobs, 0
        self._running, self._closed = True, False

        def over() -> bool:
            return self._closed or stopped()

        try:
            if self.executor is not None:
                yield from self._on_executor(self.executor, function, tasks, over)
            elif self.jobs == 1:
                yield from _here(function, tasks, over)
            else:
                yield from self._in_processes(function, tasks, over)
        finally:
            self._running = False

    def _in_processes(self, function: Callable[[T], R], tasks: Sequence[T], over: Stopped) -> Iterator[tuple[int, R]]:
        code = packed(function, "The function")
        died: dict[int, str] = {}
        yield from self._batch(code, tasks, range(len(tasks)), died, over)
        for index in list(died):
            if over():
                return
            died.clear()
            self._end_all()  # memory may be what it lacked
            yield from self._batch(code, tasks, [index], died, over)
            self.lost += [Lost(task, f"its process died twice ({reason})") for task, reason in died.items()]

    def _batch(
        self, code: bytes, tasks: Sequence[T], indices: Sequence[int], died: dict[int, str], over: Stopped
    ) -> Iterator[tuple[int, Any]]:
        """Run some tasks; ``died`` receives those whose process died, with the cause."""
        waiting = deque(indices)
        try:
            while (waiting or any(worker.busy for worker in self._pool)) and not over():
                self._assign(code, tasks, waiting)
                self._start(len(waiting))
                for worker in self._heard():
                    if worker not in self._pool:
                        continue  # closed by the caller between two results
                    index, message = worker.task, worker.receive()
                    if message is None:
                        self._bury(worker, died, over)
                        continue
                    self._failed_starts = 0
                    if index is not None:
                        yield index, unpacked(message, index)
        finally:
            self._abandon()

    def _assign(self, code: bytes, tasks: Sequence[T], waiting: deque[int]) -> None:
        for worker in self._pool:
            if waiting and worker.ready and not worker.busy:
                task = packed(tasks[waiting[0]], f"Task {waiting[0]}")
                if worker.give(waiting[0], code, task):
                    waiting.popleft()

    def _start(self, waiting: int) -> None:
        """Start as many processes as there is work for."""
        starting = sum(not worker.ready for worker in self._pool)
        for _ in range(min(self._capacity - len(self._pool), waiting - starting)):
            try:
                self._pool.append(WorkerProcess())
            except OSError as error:
                self._make_do(error.strerror or str(error))

    def _make_do(self, why: str) -> None:
        """A process could not be started: use those there are, or try again."""
        if any(worker.ready for worker in self._pool):
            self._capacity = len(self._pool)
            return
        self._failed_starts += 1
        if self._failed_starts == _MOST_FAILED_STARTS:
            raise EnvironmentFailure(
                f"Cannot start a worker process: {why}.",
                hint="A script keeps its work below `if __name__ == '__main__':` to use several jobs. Or use jobs=1.",
            )

    def _heard(self) -> list[WorkerProcess]:
        """Processes that say something or died, after a short wait at most."""
        by_handle = {handle: worker for worker in self._pool for handle in worker.handles}
        ready = wait(list(by_handle), _POLL_SECONDS) if by_handle else []
        return list(dict.fromkeys(by_handle[handle] for handle in ready))

    def _bury(self, worker: WorkerProcess, died: dict[int, str], over: Stopped) -> None:
        self._pool.remove(worker)
        cause = worker.end(_CLOSE_SECONDS)
        if worker.task is not None:
            died[worker.task] = cause
        elif not worker.ready and not over():
            self._make_do(cause)

    def _abandon(self) -> None:
        """End the processes that are still at work, and only those."""
        for worker in [worker for worker in self._pool if worker.busy]:
            self._pool.remove(worker)
            worker.end()

    def _end_all(self) -> None:
        idle = [worker for worker in self._pool if worker.ready and not worker.busy]
        for worker in idle:
            worker.hang_up()
        deadline = time.monotonic() + _CLOSE_SECONDS
        while self._pool:
            worker = self._pool.pop()
            worker.end(max(0.0, deadline - time.monotonic()) if worker in idle else 0.0)

    def _on_executor(
        self, executor: Executor, function: Callable[[T], R], tasks: Sequence[T], over: Stopped
    ) -> Iterator[tuple[int, R]]:
        died: dict[int, str] = {}
        yield from _submitted(executor, function, tasks, range(len(tasks)), died, over)
        for index in list(died):
            if over():
                return
            died.clear()
            yield from _submitted(executor, function, tasks, [index], died, over)
            self.lost += [Lost(task, f"the executor lost it twice ({reason})") for task, reason in died.items()]


def _here(function: Callable[[T], R], tasks: Sequence[T], over: Stopped) -> Iterator[tuple[int, R]]:
    for index, task in enumerate(tasks):
        if over():
            return
        yield index, function(task)


def _submitted(
    executor: Executor,
    function: Callable[[T], R],
    tasks: Sequence[T],
    indices: Sequence[int],
    died: dict[int, str],
    over: Stopped,
) -> Iterator[tuple[int, Any]]:
    """Run some tasks on an executor; ``died`` receives those that it lost, with the cause."""
    finished: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
    futures: dict[Future[Any], int] = {}
    try:
        for index in indices:
            if over():
                return
            try:
                future = executor.submit(call, function, tasks[index])
            except BrokenExecutor as error:
                died[index] = str(error)
                continue
            except RuntimeError as error:
                raise EnvironmentFailure(f"The executor takes no tasks ({error}).", hint="Is it shut down?") from error
            futures[future] = index
            future.add_done_callback(finished.put)
        while futures and not over():
            try:
                future = finished.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            index = futures.pop(future)
            try:
                outcome = future.result()
            except Exception as error:  # not the function's: `call` returns those
                died[index] = _loss(error, index)
                continue
            yield index, result_of(outcome)
    finally:
        for future in futures:
            future.cancel()


def _loss(error: BaseException, index: int) -> str:
    """Why an executor lost a task.

    Raises:
        EnvironmentFailure: It could never have run it.
    """
    if isinstance(error, BrokenExecutor | CancelledError) or type(error).__name__ == "KilledWorker":  # Dask's word
        return str(error) or type(error).__name__
    raise EnvironmentFailure(f"The executor cannot run task {index} ({error!r}).", hint=PORTABLE) from error
