"""One worker process: how it starts, what it is told, what it answers, how it ends."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar

from onnxprune.errors import EnvironmentFailure

T = TypeVar("T")
R = TypeVar("R")

PORTABLE = "Use a function of an importable module and plain data, or jobs=1."
THREADS = ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "BLIS_NUM", "NUMEXPR_NUM", "VECLIB_MAXIMUM")
"""With _THREADS at their ends, the variables that libraries for linear algebra read when they load."""
_KILL_SECONDS = 5.0


class WorkerProcess:
    """A process of our own, seen from its parent.

    Attributes:
        ready: Whether it has ever answered.
        task: Index of the task it is at, None when it is free.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True, name="onnxprune worker")
        try:
            with _one_thread(), _without_interrupts(), _loadable_main():
                self._process.start()
        except OSError:
            self._connection.close()
            raise
        finally:
            theirs.close()
        self._code: bytes | None = None
        self.ready = False
        self.task: int | None = None

    @property
    def busy(self) -> bool:
        """Whether it has a task."""
        return self.task is not None

    @property
    def handles(self) -> tuple[Any, int]:
        """What to wait for: its messages and its end."""
        return self._connection, self._process.sentinel

    def give(self, index: int, code: bytes, task: bytes) -> bool:
        """Hand over a task, and the function where it does not have it yet; False when it is dead."""
        try:
            self._connection.send((None if self._code is code else code, task))
        except OSError:
            return False
        self._code, self.task = code, index
        return True

    def receive(self) -> bytes | None:
        """Its message, that it is ready or the outcome of its task; it is free then. None when it is dead."""
        try:
            message = self._connection.recv_bytes() if self._connection.poll() else None
        except (EOFError, OSError):
            return None
        if message is not None:
            self.ready, self.task = True, None
        return message

    def hang_up(self) -> None:
        """Let it end by itself once it has no task."""
        self._connection.close()

    def end(self, patience: float = 0.0) -> str:
        """End it, after ``patience`` seconds to do so by itself, and say how it ended."""
        self.hang_up()
        self._process.join(patience)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join(_KILL_SECONDS)
        code = self._process.exitcode
        if code is not None:
            self._process.close()
        return _cause(code)


def _cause(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def packed(thing: object, what: str) -> bytes:
    """A function or a task on its way to another process.

    Raises:
        EnvironmentFailure: It cannot be pickled.
    """
    try:
        return pickle.dumps(thing, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # a class may raise anything while it is pickled
        raise _not_portable(what, error) from error


def unpacked(message: bytes, index: int) -> Any:
    """The result in a worker's message; an exception of the function is raised.

    Raises:
        EnvironmentFailure: Function, task or result did not get from one process to the other.
    """
    try:
        outcome = pickle.loads(message)
    except Exception as error:
        raise _not_portable(f"The result of task {index}", error) from error
    if isinstance(outcome, _Stuck):
        raise EnvironmentFailure(f"Task {index} {outcome.reason}.", hint=PORTABLE)
    return result_of(outcome)


def _not_portable(what: str, error: Exception) -> EnvironmentFailure:
    return EnvironmentFailure(f"{what} cannot be sent to another process ({error}).", hint=PORTABLE)


def call(function: Callable[[T], R], task: T) -> R | _Raised:
    """The result, or the exception as a value: what an executor itself raises is its own failure then."""
    try:
        return function(task)
    except BaseException as error:
        return _Raised(error)


def result_of(outcome: Any) -> Any:
    """Undo `call`."""
    if isinstance(outcome, _Raised):
        raise outcome.error
    return outcome


class WorkerTraceback(Exception):
    """Where in another process an exception was raised; stands as its cause."""


class _Raised:
    """An exception of the function; in another process it has its traceback as its cause."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        error = self.error
        text = "".join(traceback.format_exception(error))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # a foreign class may raise anything while it is pickled
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return _rebuilt, (error, text)


def _rebuilt(error: BaseException, text: str) -> _Raised:
    error.__cause__ = WorkerTraceback(f"\n{text}")
    return _Raised(error)


class _Stuck(NamedTuple):
    """Why a task or its result did not get from one process to the other."""

    reason: str


def _serve(connection: Connection[Any, Any]) -> None:
    """Life of a worker process: one task after the other until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_follow_parent, daemon=True).start()
    function: Any = None
    with contextlib.suppress(EOFError, OSError):
        connection.send_bytes(b"ready")
        while True:
            code, task = connection.recv()
            try:
                function = pickle.loads(code) if code is not None else function
                argument = pickle.loads(task)
            except Exception as error:
                answer = pickle.dumps(_Stuck(f"cannot be loaded in another process ({error})"))
            else:
                answer = _answer(call(function, argument))
            connection.send_bytes(answer)


def _answer(outcome: object) -> bytes:
    try:
        return pickle.dumps(outcome, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return pickle.dumps(_Stuck(f"has a result that cannot be sent to another process ({error})"))


def _follow_parent() -> None:
    """End this process when its parent was killed, even in the middle of a task."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """What is started inside uses one thread for linear algebra: libraries read these variables when they load."""
    names = [f"{name}_THREADS" for name in THREADS]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started inside begins with Ctrl-C held back, so that none hits it before it is ready for one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker  # noqa: PLC0415 - not on Windows

    resource_tracker.ensure_running()  # its first start would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _loadable_main() -> Iterator[None]:
    """A program read from standard input has a file name that names no file: a new process is not to look for it."""
    main = sys.modules["__main__"]
    name = getattr(main, "__file__", None)
    if name is None or os.path.exists(name):
        yield
        return
    main.__file__ = None
    try:
        yield
    finally:
        main.__file__ = name
