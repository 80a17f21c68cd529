"""A zoo on a Dask cluster: the connection, and whether its workers can do the work."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from onnxprune.errors import EnvironmentFailure, InputError

_CONNECT_SECONDS = 15


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """A client of the Dask scheduler at an address such as ``tcp://host:8786``, or in a scheduler file.

    Raises:
        InputError: Dask is not installed, or the address cannot be meant.
        EnvironmentFailure: Nobody answers there.
    """
    try:
        client_of: Any = import_module("distributed").Client
    except ImportError:
        raise InputError(
            "--cluster needs Dask's scheduler.", hint="Install it: pip install 'onnxprune[cluster]'"
        ) from None
    try:
        given = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
        client = client_of(**given, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise EnvironmentFailure(
            f"No Dask scheduler answers at {address} ({_first_line(error)}).",
            hint="Start one: dask scheduler; and workers: dask worker tcp://HOST:8786",
        ) from None
    try:
        yield client
    finally:
        client.close()


def executor_of(client: Any, *folders: Path) -> Executor:
    """The executor of a client whose present workers have this version and see these folders.

    Raises:
        EnvironmentFailure: One of them does not.
    """
    try:
        answers = client.run(_survey, [str(folder.resolve()) for folder in folders])
    except Exception as error:  # whatever a worker without onnxprune raises
        raise EnvironmentFailure(
            f"A worker cannot run onnxprune ({_first_line(error)}).", hint="Install the same version on every worker."
        ) from None
    for worker, (found, missing) in sorted(answers.items()):
        if found != version("onnxprune"):
            raise EnvironmentFailure(
                f"Worker {worker} has onnxprune {found}, not {version('onnxprune')}.",
                hint="Install the same version on every worker.",
            )
        if missing:
            raise EnvironmentFailure(
                f"Worker {worker} does not see {missing[0]}.",
                hint="All workers need both folders under the same names: use a shared file system.",
            )
    executor: Executor = client.get_executor()
    return executor


def _survey(folders: list[str]) -> tuple[str, list[str]]:
    """What a worker says of itself: its version, and the folders that it does not see."""
    return version("onnxprune"), [folder for folder in folders if not Path(folder).is_dir()]


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
