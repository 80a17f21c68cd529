"""``onnxprune zoo DIR OUT_DIR``."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli.common import (
    add_check_options,
    add_goal_options,
    add_pass_options,
    add_proof_options,
    jobs,
    numbers,
    shared_options,
    tolerance,
)
from onnxprune.cli.interrupt import finishing

if TYPE_CHECKING:
    from onnxprune.zoo.campaign import Watcher
    from onnxprune.zoo.job import Limits
    from onnxprune.zoo.rows import Row

EXAMPLE = """example:
  onnxprune zoo models smaller --jobs 4 --domains domains.json --budget 10

The same command again goes on where a killed one stood."""
_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def memory(text: str) -> int:
    """``4GB``, ``512MiB``: bytes; 0: no limit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]i?b)", text.lower())
    if text == "0":
        return 0
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"'{text}' is not an amount of memory such as 4GB or 512MiB")
    return int(float(match[1]) * _UNITS[match[2]])


def parser(prog: str) -> argparse.ArgumentParser:
    """Options of the command."""
    result = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} DIR OUT_DIR [options]",
        description="Optimize every model below DIR in a process of its own; results and summaries go to OUT_DIR.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("folder", metavar="DIR", help=argparse.SUPPRESS)
    result.add_argument("output", metavar="OUT_DIR", help=argparse.SUPPRESS)
    group = result.add_argument_group("models")
    group.add_argument("--include", action="append", default=[], metavar="GLOB", help="only these (default *.onnx)")
    group.add_argument("--exclude", action="append", default=[], metavar="GLOB", help="but not these")
    group.add_argument("--jobs", type=jobs, default=1, metavar="N", help="models at the same time (default 1)")
    group.add_argument("--limit-seconds", type=tolerance, default=600.0, metavar="S", help="per model; 0: none")
    group.add_argument(
        "--limit-memory", type=memory, metavar="4GB", help="per model; 0: none (default: this machine's / jobs)"
    )
    group.add_argument("--retry", action="store_true", help="run again what failed before")
    group.add_argument("--cluster", metavar="ADDRESS", help="work on a Dask cluster: tcp://host:port")
    domain = result.add_argument_group("domain (default: every finite input)")
    domain.add_argument("--domain", action="append", default=[], metavar="D", help="of all models, as for optimize")
    domain.add_argument("--domains", metavar="FILE", help='per model, in JSON: {"faces/*.onnx": "0:1", ...}')
    domain.add_argument("--mean", type=numbers, metavar="M,M,M", help="per channel: boxes are in pixels ...")
    domain.add_argument("--std", type=numbers, metavar="S,S,S", help="... and models get (pixel - mean) / std")
    work = result.add_argument_group("work")
    add_goal_options(work)
    add_pass_options(work)
    add_check_options(work)
    add_proof_options(result.add_argument_group("proof (with a domain)"))
    result.add_argument("--quiet", "-q", action="store_true", help="print nothing but errors")
    result.add_argument("--verbose", "-v", action="store_true", help="say what becomes of every model")
    return result


def run(options: argparse.Namespace) -> int:
    """Run the zoo and sum up; 1 when a model failed, 130 when some were not run."""
    from onnxprune.zoo import DomainRules, optimize_all  # noqa: PLC0415 # quick --help
    from onnxprune.zoo.table import print_zoo  # noqa: PLC0415

    rules = DomainRules.read(options.domains, options.domain) if options.domains else DomainRules(tuple(options.domain))
    with ExitStack() as stack:
        executor = None
        if options.cluster:
            from onnxprune.zoo.cluster import connected, executor_of  # noqa: PLC0415 # an extra

            client = stack.enter_context(connected(options.cluster))
            output = Path(options.output)
            output.mkdir(parents=True, exist_ok=True)
            executor = executor_of(client, Path(options.folder), output)
        stopped = stack.enter_context(finishing())
        summary = optimize_all(
            options.folder,
            options.output,
            domain=rules,
            mean=options.mean,
            std=options.std,
            include=options.include,
            exclude=options.exclude,
            jobs=options.jobs,
            limits=_limits(options),
            executor=executor,
            retry=options.retry,
            watcher=stack.enter_context(_watching(options.quiet, options.verbose)),
            stopped=stopped,
            align=options.align,
            goal=options.goal,
            **shared_options(options),
        )
    if not options.quiet:
        print_zoo(summary, every=options.verbose)
        print(f"written: {Path(options.output, 'summary.html')} (.csv, .json)")
    if summary.left:
        print(f"onnxprune: {summary.left} models are left; the same command goes on.", file=sys.stderr)
        return 130
    return 1 if summary.failed else 0


def _limits(options: argparse.Namespace) -> Limits:
    """Limits of each model; here every job may by default use its share of the machine's memory."""
    import psutil  # noqa: PLC0415 # quick --help

    from onnxprune.zoo.job import Limits  # noqa: PLC0415

    memory = options.limit_memory
    if memory is None and not options.cluster:
        memory = psutil.virtual_memory().total // options.jobs
    return Limits(options.limit_seconds or None, memory or None)


@contextmanager
def _watching(quiet: bool, verbose: bool) -> Iterator[Watcher]:
    """A bar on a terminal; a line per model with ``--verbose``; nothing otherwise."""
    if verbose:
        start = time.perf_counter()
        yield lambda done, total, row: print(
            f"[{time.perf_counter() - start:7.2f} s] {done}/{total} {_told(row)}", file=sys.stderr
        )
        return
    if quiet or not sys.stderr.isatty():
        yield lambda done, total, row: None
        return
    from rich.console import Console  # noqa: PLC0415 # only where something is shown
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.table import Column  # noqa: PLC0415

    last = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), last)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking for models", total=None)
        yield lambda done, total, row: bar.update(task, completed=done, total=total, description=_told(row))


def _told(row: Row) -> str:
    return f"{row.status.value}: {row.path}" + (f" ({row.reason})" if row.reason else "")
