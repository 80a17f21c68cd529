"""Options and output shared by the commands that look at a model."""

from __future__ import annotations

import argparse
import math
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.domain import Domain
    from onnxprune.graph.files import Source
    from onnxprune.pipeline import Progress
    from onnxprune.report import Report


def numbers(text: str) -> list[float]:
    """Comma-separated numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of numbers such as .485,.456,.406") from None


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``input=1,3,224,224``."""
    name, _, sizes = text.rpartition("=")
    try:
        dims = tuple(int(part) for part in sizes.split(","))
    except ValueError:
        dims = ()
    if not name or not dims or min(dims) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form input=1,3,224,224")
    return name, dims


def count(text: str) -> int:
    """A whole number that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number >= 0")
    return int(text)


def jobs(text: str) -> int:
    """A positive whole number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number >= 1")
    return int(text)


def tolerance(text: str) -> float:
    """A finite number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number >= 0")
    return value


def align(text: str) -> str | int:
    """``auto`` or a positive multiple."""
    if text == "auto":
        return text
    if text.isdecimal() and int(text) in (1, 4, 8, 16):
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not one of auto, 1, 4, 8, 16")


def add_domain_options(parser: argparse.ArgumentParser) -> None:
    """Options that say on which inputs the result must be equal."""
    group = parser.add_argument_group("domain (default: every finite input)")
    group.add_argument(
        "--domain",
        action="append",
        default=[],
        metavar="D",
        help="0:1, name=0:1, box.npz or spec.vnnlib; repeatable",
    )
    group.add_argument("--around", metavar="X.npy", help="a box around this point ...")
    group.add_argument("--radius", type=float, metavar="R", help="... of this radius")
    group.add_argument("--mean", type=numbers, metavar="M,M,M", help="per channel: the box is in pixels ...")
    group.add_argument("--std", type=numbers, metavar="S,S,S", help="... and the model gets (pixel - mean) / std")


def choice(group: argparse._ArgumentGroup, name: str, values: Sequence[str], what: str) -> None:
    """An option that takes one of a few words, the first by default."""
    text = f"{what}: {', '.join(values[:-1])} or {values[-1]}"
    group.add_argument(name, choices=values, default=values[0], metavar=name[2].upper(), help=text)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options of how the work is done and checked."""
    group = parser.add_argument_group("work")
    add_pass_options(group)
    group.add_argument("--keep", action="append", default=[], metavar="NODE", help="remove no unit of this layer")
    group.add_argument("--data", metavar="X.npz", help="real inputs to validate on, one array per input")
    group.add_argument(
        "--shape",
        action="append",
        type=shape,
        default=[],
        metavar="IN=1,3,H,W",
        help="sizes of dynamic dimensions to run with",
    )
    add_check_options(group)
    proof = parser.add_argument_group("proof (with a domain)")
    add_proof_options(proof)
    proof.add_argument("--jobs", type=jobs, default=1, metavar="N", help="processes that solve at once (default 1)")
    add_report_options(parser)
    parser.add_argument("--quiet", "-q", action="store_true", help="print nothing but errors")
    parser.add_argument("--verbose", "-v", action="store_true", help="list every layer and step")


def add_report_options(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Where reports are written."""
    group.add_argument("--report", metavar="R.json", help="write the report (- for standard output)")
    group.add_argument("--html", metavar="R.html", help="write the report as a page for a browser")


def add_pass_options(group: argparse._ArgumentGroup) -> None:
    """Which passes run."""
    group.add_argument("--passes", metavar="A,B{K=V}", help="run these passes only, in this order")
    group.add_argument("--skip", action="append", default=[], metavar="PASS", help="leave a pass out")


def add_goal_options(group: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """What the result is to be good at."""
    group.add_argument("--align", type=align, default="auto", metavar="N", help="channel counts: auto, 1, 4, 8 or 16")
    group.add_argument(
        "--goal", choices=("latency", "size"), default="latency", metavar="G", help="latency (default) or size"
    )


def add_check_options(group: argparse._ArgumentGroup) -> None:
    """How results are run and compared."""
    group.add_argument("--tolerance", type=tolerance, metavar="T", help="allowed error relative to the output range")
    group.add_argument(
        "--seed", type=count, default=0, metavar="N", help="of the inputs used for validation (default 0)"
    )
    group.add_argument("--provider", metavar="P", help="execution provider: cpu (default), cuda, ...")
    group.add_argument("--threads", type=count, default=0, metavar="N", help="threads for latency measurements")
    group.add_argument("--custom-ops", action="append", default=[], metavar="LIB", help="library with custom operators")


def add_proof_options(group: argparse._ArgumentGroup) -> None:
    """How units are proved stable."""
    group.add_argument("--budget", type=tolerance, default=30.0, metavar="S", help="seconds of search (default 30)")
    choice(group, "--method", ("cascade", "leo", "single"), "how units are proved stable")
    choice(group, "--trust", ("solver", "certified"), "whether a solver's word counts")
    choice(group, "--solver", ("highs", "cbc", "gurobi"), "for linear and MIP problems")
    group.add_argument("--solver-check", action="store_true", help="have another solver confirm every proof of one")
    choice(group, "--rule", ("product", "rows"), "how stably active units are merged")
    group.add_argument("--forget", action="store_true", help="neither read nor keep claims of earlier runs")


def read_domain(options: argparse.Namespace, source: Source) -> Domain:
    """The domain the options describe."""
    from onnxprune.domain import Domain, around, parse_domain  # noqa: PLC0415 # keeps --help quick
    from onnxprune.errors import InputError  # noqa: PLC0415
    from onnxprune.samples import input_specs  # noqa: PLC0415

    specs = input_specs(source.model)
    if (options.mean or options.std) and not options.domain:
        raise InputError("--mean and --std need a pixel box.", hint="Add --domain 0:1, for example.")
    box = parse_domain(options.domain, specs, mean=options.mean, std=options.std) if options.domain else None
    if options.around is None and options.radius is None:
        return box or Domain.everything()
    if options.around is None or options.radius is None:
        raise InputError("--around and --radius go together.", hint="--around x.npy --radius 0.02")
    return around(options.around, options.radius, specs, clip=box)


def read_data(path: str | None) -> dict[str, Any] | None:
    """Arrays of an .npz file.

    Raises:
        InputError: It is missing or not an .npz file.
    """
    import numpy as np  # noqa: PLC0415 # keeps --help quick

    from onnxprune.errors import InputError  # noqa: PLC0415

    if path is None:
        return None
    try:
        with open(path, "rb") as file:  # np.load would leave a damaged file open
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.lib.npyio.NpzFile):
                return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise InputError(f"No such file: {path}", hint="--data takes an .npz file with one array per input.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        pass  # the same as a file with a single array
    raise InputError(
        f"{path} is not an .npz file of plain arrays.", hint="Write it with numpy.savez(path, input=array)."
    )


def run_options(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of :class:`onnxprune.optimizer.Options` the command line sets."""
    return shared_options(options) | {
        "keep": options.keep,
        "data": read_data(options.data),
        "shapes": dict(options.shape),
        "jobs": options.jobs,
    }


def shared_options(options: argparse.Namespace) -> dict[str, Any]:
    """Those of them that do not depend on the model."""
    return {
        "passes": options.passes,
        "skip": [name for text in options.skip for name in text.split(",") if name],
        "tolerance": options.tolerance,
        "seed": options.seed,
        "provider": options.provider,
        "threads": options.threads,
        "custom_ops": options.custom_ops,
        "budget": options.budget,
        "method": options.method,
        "trust": options.trust,
        "solver": options.solver,
        "solver_check": options.solver_check,
        "rule": options.rule,
        "remember": not options.forget,
    }


@contextmanager
def progress(quiet: bool, verbose: bool) -> Iterator[Progress]:
    """A spinner with the current step on a terminal; lines with ``--verbose``; nothing otherwise."""
    if verbose:
        start = time.perf_counter()
        yield lambda text: print(f"[{time.perf_counter() - start:7.2f} s] {text}", file=sys.stderr)
        return
    if quiet or not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console  # noqa: PLC0415 # only where something is shown
    from rich.progress import Progress as Bar  # noqa: PLC0415
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.table import Column  # noqa: PLC0415

    step = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = (SpinnerColumn(), TimeElapsedColumn(table_column=Column(min_width=7)), step)
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading the model", total=None)
        yield lambda text: bar.update(task, description=text)


def check_report(target: str | None, *taken: str | Path, option: str = "--report") -> None:
    """Refuse, before any work is done, a report that could not be written or would overwrite a model.

    Raises:
        InputError: The folder is missing or not writable, or the path is taken.
    """
    from onnxprune.errors import InputError  # noqa: PLC0415
    from onnxprune.graph.files import check_writable  # noqa: PLC0415

    if target is None or target == "-":
        return
    check_writable(Path(target))
    if any(Path(target).resolve() == Path(other).resolve() for other in taken):
        raise InputError(f"{option} {target} would overwrite a model.", hint="Give it a name of its own.")


def check_reports(options: argparse.Namespace, *taken: str | Path) -> None:
    """:func:`check_report` for ``--report``, ``--html`` and ``--certificate``.

    Raises:
        InputError: One of them could not be written, or would overwrite a model or another one.
    """
    from onnxprune.errors import InputError  # noqa: PLC0415

    named: dict[Path, str] = {}
    for option in ("--report", "--html", "--certificate"):
        target = getattr(options, option[2:], None)
        if target == "-" and option != "--report":
            raise InputError(f"{option} takes the name of a file.", hint="Only --report - prints.")
        check_report(target, *taken, option=option)
        if target is not None and target != "-":
            first = named.setdefault(Path(target).resolve(), option)
            if first != option:
                raise InputError(f"{option} and {first} name the same file: {target}", hint="Give each its own name.")


@contextmanager
def written_reports(report: Report, options: argparse.Namespace) -> Iterator[None]:
    """Write what ``--report`` and ``--html`` ask for, when the block ends well, as :func:`written_report` does."""
    page = report.to_html() if options.html else ""
    with written_report(report.to_json(), options.report), written_report(page, options.html):
        yield


@contextmanager
def written_report(text: str, target: str | None) -> Iterator[None]:
    """Write a report where ``--report`` says, when the block ends well; a full disk shows before it begins."""
    from onnxprune.graph.files import atomic  # noqa: PLC0415

    if target is None or target == "-":
        yield
        if target:
            print(text, end="")
        return
    with atomic(Path(target)) as temporary:
        temporary.write_text(text, encoding="utf-8")
        yield
