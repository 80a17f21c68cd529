"""Parallel tasks: every result once, dead processes, stopping, exceptions, executors, nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.workers import Workers

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def square(number: int) -> int:
    return number * number


def slow_when_small(number: int) -> tuple[int, int]:
    time.sleep(0.3 / (1 + number))
    return number, os.getpid()


def die_at(folder: Path, number: int) -> int:
    """Task 2 kills its process the first time, task 4 always; each run leaves a trace."""
    traces = len(list(folder.glob(f"{number}.*")))
    (folder / f"{number}.{traces}").touch()
    if number == 4 or (number == 2 and traces == 0):
        os.kill(os.getpid(), KILL)
        time.sleep(60)
    return number


def sleep_with_trace(folder: Path, seconds: float) -> float:
    (folder / str(os.getpid())).touch()
    time.sleep(seconds)
    return seconds


def surroundings(_: int) -> tuple[int, bool, list[str | None], int]:
    if sys.platform != "win32":
        os.kill(os.getpid(), signal.SIGINT)
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    threads = [os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
    return os.getpid(), ignored, threads, Workers(jobs=4).jobs


class AwkwardError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


class Unreadable:
    def __reduce__(self) -> tuple[Any, ...]:
        return fail, ("cannot come back",)


def fail(kind: str) -> NoReturn:
    if kind == "ours":
        raise InputError("No such thing.", hint="Try another.")
    if kind == "awkward":
        raise AwkwardError("a", "b")
    if kind == "empty":
        raise queue.Empty
    raise ValueError(kind)


def awkward_result(kind: str) -> object:
    return threading.Lock() if kind == "lock" else Unreadable()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # a zombie is dead, only nobody asked yet
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def gone(pids: list[int], seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


@pytest.fixture
def two() -> Iterator[Workers]:
    with Workers(jobs=2) as workers:
        yield workers
    assert not workers._pool
    assert not multiprocessing.active_children()


def test_one_job_runs_here_in_order_and_only_as_far_as_asked() -> None:
    seen: list[int] = []
    with Workers() as workers:
        run = workers.run(lambda task: seen.append(task) or os.getpid(), range(5), stopped=lambda: len(seen) == 3)  # type: ignore[func-returns-value]
        assert next(run) == (0, os.getpid())
        assert seen == [0]
        assert [index for index, _ in run] == [1, 2]
        with pytest.raises(ValueError, match="odd"):
            list(workers.run(fail, ["odd"]))
    with pytest.raises(InputError, match="jobs cannot be 0"):
        Workers(jobs=0)


def test_results_come_as_they_complete_from_processes_that_are_kept(two: Workers) -> None:
    before = dict(os.environ)
    results = list(two.run(slow_when_small, range(8)))
    assert sorted(index for index, _ in results) == list(range(8))
    assert all(index == number for index, (number, _) in results)
    assert [index for index, _ in results] != list(range(8))
    pids = {pid for _, (_, pid) in results}
    assert len(pids) <= 2
    assert os.getpid() not in pids
    assert {pid for _, (_, pid) in two.run(slow_when_small, [9] * 3)} <= pids
    assert list(two.run(square, [])) == []
    assert not two.lost
    assert dict(os.environ) == before
    pid, ignored, threads, nested = next(two.run(surroundings, [0]))[1]
    assert pid in pids
    assert ignored
    assert threads == ["1", "1"]
    assert nested == 1
    two.close()
    assert gone(list(pids))


def test_a_dead_process_costs_only_the_task_that_kills_it_twice(two: Workers, tmp_path: Path) -> None:
    results = dict(two.run(partial(die_at, tmp_path), range(7)))
    assert results == {number: number for number in range(7) if number != 4}
    assert [task for task, _ in two.lost] == [4]
    assert "died twice" in two.lost[0].reason
    runs = {number: len(list(tmp_path.glob(f"{number}.*"))) for number in range(7)}
    assert runs == {number: 2 if number in (2, 4) else 1 for number in range(7)}
    assert dict(two.run(square, range(3))) == {0: 0, 1: 1, 2: 4}
    assert not two.lost


@posix
def test_a_process_killed_from_outside_between_two_runs_is_replaced(two: Workers) -> None:
    pids = {pid for _, (_, pid) in two.run(slow_when_small, range(4))}
    for pid in pids:
        os.kill(pid, KILL)
    assert dict(two.run(square, range(6))) == {number: number**2 for number in range(6)}
    assert not two.lost


def test_stopping_ends_what_runs_within_a_second(two: Workers, tmp_path: Path) -> None:
    assert dict(two.run(square, [1, 2])) == {0: 1, 1: 4}  # processes are up
    started = time.monotonic()
    run = two.run(partial(sleep_with_trace, tmp_path), [60, 60, 60], stopped=lambda: len(list(tmp_path.iterdir())) == 2)
    assert list(run) == []
    assert time.monotonic() - started < 3
    assert gone([int(path.name) for path in tmp_path.iterdir()])
    assert not two.lost
    assert dict(two.run(square, [3])) == {0: 9}


def test_leaving_early_ends_what_runs(two: Workers, tmp_path: Path) -> None:
    for _, seconds in two.run(partial(sleep_with_trace, tmp_path), [0.5, 60, 60]):
        assert seconds == 0.5
        break
    assert len(two._pool) == 1
    run = two.run(partial(sleep_with_trace, tmp_path), [0.5, 60])
    next(run)
    with pytest.raises(RuntimeError, match="not over"):
        next(two.run(square, [1]))
    two.close()
    assert list(run) == []
    assert gone([int(path.name) for path in tmp_path.iterdir()])


def test_closing_between_two_results_ends_the_run(two: Workers) -> None:
    pids = {pid for _, (_, pid) in two.run(slow_when_small, [0, 0])}
    run = two.run(square, range(100))
    next(run)
    time.sleep(0.2)  # by now the other process has answered too
    two.close()
    assert list(run) == []
    assert gone(list(pids))
    assert dict(two.run(square, [5])) == {0: 25}


def test_exceptions_keep_their_type_and_say_where(two: Workers) -> None:
    with pytest.raises(InputError, match="No such thing") as caught:
        list(two.run(fail, ["ours"]))
    assert caught.value.hint == "Try another."
    assert "in fail" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError, match="AwkwardError: ab"):
        list(two.run(fail, ["awkward"]))
    with pytest.raises(ValueError, match="odd"):
        list(two.run(fail, ["odd"]))


def test_what_cannot_travel_is_named(two: Workers) -> None:
    with pytest.raises(EnvironmentFailure, match=r"The function cannot be sent(.|\n)*jobs=1"):
        list(two.run(lambda task: task, [1]))
    with pytest.raises(EnvironmentFailure, match="Task 1 cannot be sent"):
        list(two.run(str, [1, threading.Lock()]))
    with pytest.raises(EnvironmentFailure, match="Task 0 has a result that cannot be sent"):
        list(two.run(awkward_result, ["lock"]))
    with pytest.raises(EnvironmentFailure, match=r"The result of task 0 .*come back"):
        list(two.run(awkward_result, ["unreadable"]))
    with pytest.raises(EnvironmentFailure, match=r"Task 0 cannot be loaded .*come back"):
        list(two.run(str, [Unreadable()]))


def test_large_tasks_and_results_pass(two: Workers) -> None:
    data = os.urandom(5_000_000)
    assert dict(two.run(bytes, [data, data])) == {0: data, 1: data}


def test_threads_of_the_caller() -> None:
    started: list[int] = []
    release = threading.Event()

    def hold(number: int) -> bool:
        started.append(number)
        return release.wait(10)

    with ThreadPoolExecutor(2) as executor:
        with Workers(executor=executor) as workers:
            results = [index for index, _ in workers.run(slow_when_small, range(6))]
            assert sorted(results) == list(range(6)) != results
            with pytest.raises(AwkwardError, match="ab"):
                list(workers.run(fail, ["awkward"]))
            with pytest.raises(queue.Empty):
                list(workers.run(fail, ["empty"]))
            assert list(workers.run(hold, range(50), stopped=lambda: len(started) > 1)) == []
            release.set()
        assert executor.submit(square, 3).result() == 9
        assert len(started) == 2
    with pytest.raises(EnvironmentFailure, match=r"takes no tasks(.|\n)*shut down"):
        list(workers.run(square, [1]))


def test_processes_of_the_caller(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        workers = Workers(executor=executor)
        assert dict(workers.run(square, range(5))) == {number: number**2 for number in range(5)}
        with pytest.raises(InputError, match="No such thing") as caught:
            list(workers.run(fail, ["ours"]))
        assert "in fail" in str(caught.value.__cause__)
        stuck: list[tuple[Callable[[Any], Any], Any]] = [
            (lambda task: task, 1),
            (str, threading.Lock()),
            (awkward_result, "lock"),
        ]
        for function, task in stuck:
            with pytest.raises(EnvironmentFailure, match="cannot run task 0"):
                list(workers.run(function, [task]))
        assert dict(workers.run(square, [4])) == {0: 16}
        results = dict(workers.run(partial(die_at, tmp_path), [4, 5, 6]))
        assert set(results) | {task for task, _ in workers.lost} == {0, 1, 2}
        assert 0 in {task for task, _ in workers.lost}


@pytest.mark.parametrize("feed", ["-c", "-"])
def test_programs_without_a_file(feed: str) -> None:
    program = """
from math import factorial
from onnxprune.workers import Workers
with Workers(jobs=2) as workers:
    print(sorted(workers.run(factorial, range(4))))
    def here(task): return task
    try: list(workers.run(here, [1]))
    except Exception as error: print(type(error).__name__)
"""
    arguments, stdin = ([feed, program], None) if feed == "-c" else ([feed], program)
    done = subprocess.run(
        [sys.executable, *arguments], input=stdin, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.split("\n")[:2] == ["[(0, 1), (1, 1), (2, 2), (3, 6)]", "EnvironmentFailure"], done.stderr
    assert done.returncode == 0
    assert not done.stderr


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from onnxprune.workers import Workers\nprint(list(Workers(jobs=2).run(abs, [1, 2])))\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "EnvironmentFailure: Cannot start a worker process" in done.stderr
    assert "__main__" in done.stderr


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, KILL])
def test_nothing_outlives_a_parent_that_was_killed(number: signal.Signals, tmp_path: Path) -> None:
    program = (
        "import signal, sys; from functools import partial; from pathlib import Path\n"
        "from onnxprune.workers import Workers; from tests.test_workers import sleep_with_trace\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        "list(Workers(jobs=2).run(partial(sleep_with_trace, Path(sys.argv[1])), [60, 60]))"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stderr=subprocess.DEVNULL) as parent:
        deadline = time.monotonic() + 40
        while len(pids := [int(path.name) for path in tmp_path.iterdir()]) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(pids) == 2
        parent.send_signal(number)
        assert parent.wait(20) != 0
        assert gone(pids)


@posix
def test_an_interrupt_while_processes_start_does_not_hurt_them() -> None:
    program = """
import os, signal, threading
from onnxprune.workers import Workers
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(1))
for delay in range(1, 60): threading.Timer(0.01 * delay, os.killpg, (0, signal.SIGINT)).start()
with Workers(jobs=2) as workers:
    print(sorted(workers.run(abs, range(3))), len(seen) > 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False, start_new_session=True
    )
    assert done.stdout == "[(0, 0), (1, 1), (2, 2)] True\n", done.stderr
    assert not done.stderr
