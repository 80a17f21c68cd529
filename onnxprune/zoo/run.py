"""A zoo from end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxprune.errors import InputError
from onnxprune.zoo.campaign import Campaign, Watcher
from onnxprune.zoo.finding import DomainRules, find_models
from onnxprune.zoo.job import OVER, Job, Limits
from onnxprune.zoo.store import ResultStore, run_folder
from onnxprune.zoo.summary import Summary

_OURS = ("jobs", "executor", "data", "certificate", "progress", "stopped")
"""Options of a single run that mean nothing here, or belong to the zoo."""


def optimize_all(
    folder: str | Path,
    output: str | Path,
    *,
    domain: DomainRules | str | Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    jobs: int = 1,
    limits: Limits | None = None,
    executor: Executor | None = None,
    retry: bool = False,
    watcher: Watcher = lambda done, total, row: None,
    stopped: Callable[[], bool] = lambda: False,
    **options: Any,
) -> Summary:
    """Optimize every model below a folder; the same call again goes on where a killed one stood.

    Results mirror the folder's tree in the output folder, each with its report beside it; a model that fails, in
    whatever way, is a row of the summary and stops no other. Identical models are optimized once and copied.

    Args:
        folder: Where the models are.
        output: Where results go; made if missing. It may lie in ``folder``.
        domain: Texts of the domain of all models, as for :func:`onnxprune.optimize`, or rules that give each
            its own; default: every finite input.
        mean: Per channel, where domains are boxes of pixels.
        std: As ``mean``.
        include: Globs of which one must fit; every ``.onnx`` file by default.
        exclude: Globs of which none may fit.
        jobs: Models at the same time, without an executor.
        limits: Of the process of each model.
        executor: Where jobs run instead, such as ``dask.distributed.Client(...).get_executor()``. Its workers
            must see both folders under the same names. It is not shut down.
        retry: Run again what failed before; otherwise it fails again at once.
        watcher: Called with the numbers of models done and found, and a new row.
        stopped: Asked often; once true, nothing new is started, and what runs ends with what is proved.
        **options: Fields of `onnxprune.options.Options` that are plain data; ``budget`` is at most half of the
            limit of seconds.

    Returns:
        The summary; it stands in the output folder as well.

    Raises:
        InputError: A folder or an option cannot be used, there is no model, or another run is at work.
        EnvironmentFailure: The disk is full, or the executor broke; what is finished stays.
    """
    from onnxprune.options import from_keywords  # noqa: PLC0415 # imports much

    if jobs < 1:
        raise InputError(f"jobs cannot be {jobs}.", hint="It is 1 or more.")
    if unknown := sorted(set(options) & set(_OURS)):
        raise InputError(f"{unknown[0]} is no option of a zoo.", hint="It is one of a single model.")
    from_keywords(options)
    paths, notes = find_models(Path(folder), Path(output), include, exclude)
    if not paths:
        raise InputError(f"There is no model in {folder}.", hint="--include GLOB finds files of other names.")
    limits = limits or Limits()
    if limits.seconds is not None:
        options["budget"] = min(options.get("budget", 30.0), limits.seconds / 2)
    options["custom_ops"] = [str(Path(name).resolve()) for name in options.get("custom_ops", ())]
    output = Path(output).resolve()
    with run_folder(output) as run:
        store = ResultStore(output)
        try:
            template = Job(
                model="",
                path="",
                output=str(output),
                run=str(run),
                key="",
                mean=tuple(mean) if mean else None,
                std=tuple(std) if std else None,
                options=options,
                limits=limits,
                home=str(Path.cwd()),
            )
            campaign = Campaign(Path(folder).resolve(), paths, template, store, _rules(domain), retry=retry)
            campaign.notes += notes
            campaign.watcher, campaign.stopped = watcher, stopped
            with _executing(executor, jobs, run) as chosen:
                return campaign.run(chosen)
        finally:
            store.close()


@contextmanager
def _executing(executor: Executor | None, jobs: int, run: Path) -> Iterator[Executor]:
    """The caller's executor, or threads of our own that each watch one process."""
    if executor is not None:
        yield executor
        return
    threads = ThreadPoolExecutor(jobs)
    try:
        yield threads
    except BaseException:
        (run / OVER).touch()
        raise
    finally:
        threads.shutdown(wait=True, cancel_futures=True)


def _rules(domain: DomainRules | str | Sequence[str] | None) -> DomainRules:
    if isinstance(domain, DomainRules):
        return domain
    return DomainRules.from_mapping({}, [domain] if isinstance(domain, str) else domain or ())
