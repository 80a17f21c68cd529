"""``onnxprune prune IN OUT``."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli.common import add_report_options, check_reports, choice, count, progress, written_reports
from onnxprune.cli.interrupt import finishing

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxprune.pipeline import Progress
    from onnxprune.surgeon.options import PruneOptions

EXAMPLE = """example:
  onnxprune prune model.onnx sparse.onnx --data calibration.npz --sparsity 0.9
  onnxprune prune model.onnx faster.onnx --data calibration.npz --structure units --macs 0.5
"""


def number(text: str) -> float:
    """Any finite number; what it may be is said by the options of the work."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number such as 0.5")
    return value


def parser(prog: str) -> argparse.ArgumentParser:
    """Options of the command."""
    result = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} IN OUT --data X.npz --sparsity 0.9 [options]",
        description="Remove weights or units that nearly cancel, refit the rest to data. Changes the function.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("model", metavar="IN", help="the ONNX model to read")
    result.add_argument("output", metavar="OUT", help="where to write the result (--sweep: a folder)")
    result.add_argument(
        "--data", required=True, metavar="X.npz", help="samples, an array per input (labels: classes); file or folder"
    )
    amount = result.add_argument_group("how much")
    amount.add_argument("--structure", default="weights", metavar="S", help="weights (default), units, or N:M, say 2:4")
    amount.add_argument("--sparsity", type=number, metavar="X", help="share of the weights that goes")
    amount.add_argument("--macs", type=number, metavar="X", help="share of the multiply-adds that may be left")
    amount.add_argument("--params", type=number, metavar="X", help="share of the parameters that may be left")
    amount.add_argument("--latency", type=number, metavar="X", help="share of the latency that may be left (units)")
    amount.add_argument(
        "--sweep", metavar="A:B[:N]", help="N (6) sparsities from A to B (units: shares of multiply-adds)"
    )
    amount.add_argument("--keep", action="append", default=[], metavar="NODE", help="leave this layer as it is")
    amount.add_argument("--align", type=count, default=8, metavar="N", help="unit counts: multiples of 1, 4, 8 or 16")
    work = result.add_argument_group("work")
    choice(work, "--method", ("surgeon", "cbs", "chita", "magnitude"), "how weights are chosen and refitted")
    work.add_argument("--blocks", type=count, default=0, metavar="N", help="cbs: prove N blocks of the choice by MILP")
    work.add_argument("--labels", action="store_true", help="fit to the classes in the data, too, not to IN alone")
    work.add_argument("--samples", type=count, default=10_000, metavar="N", help="samples used at most (10000)")
    work.add_argument("--budget", type=number, default=600.0, metavar="S", help="seconds of refitting (600)")
    work.add_argument("--seed", type=count, default=0, metavar="N", help="of all that is random (default 0)")
    work.add_argument("--provider", metavar="P", help="execution provider: cpu (default), cuda, ...")
    work.add_argument("--threads", type=count, default=0, metavar="N", help="threads of ONNX Runtime")
    output = result.add_argument_group("output")
    output.add_argument("--task", choices=("classify",), metavar="T", help="classify: report agreement and accuracy")
    choice(output, "--store", ("dense", "sparse"), "how zeros are stored")
    add_report_options(output)
    output.add_argument("--dry-run", action="store_true", help="do everything but write the model")
    output.add_argument("--quiet", "-q", action="store_true", help="print nothing but errors")
    output.add_argument("--verbose", "-v", action="store_true", help="list every layer and step")
    return result


def run(options: argparse.Namespace) -> int:
    """Read, prune, write, report."""
    return _sweep(options) if options.sweep is not None else _prune(options)


def _prune(options: argparse.Namespace) -> int:
    from onnxprune.graph.files import check_spares_data, check_writable, load, save  # noqa: PLC0415 # quick --help
    from onnxprune.report.prune_table import print_pruned  # noqa: PLC0415
    from onnxprune.surgeon.prune import prune_source  # noqa: PLC0415

    _settings(options, lambda _: None, lambda: False)  # refuses what cannot be meant before anything is read
    output = Path(options.output)
    _check_paths(options, output)
    if not options.dry_run:
        check_writable(output)
    check_reports(options, options.model, output)
    source = load(options.model)
    if not options.dry_run:
        check_spares_data(source, output)
    with (
        progress(options.quiet, options.verbose) as step,
        finishing("the last finished stage") as stopped,
    ):
        result = prune_source(source, options.data, _settings(options, step, stopped))
    with written_reports(result.report, options):
        if not options.dry_run:
            save(result.model, output, external=bool(source.external))
    if not options.quiet:
        print_pruned(
            result.report.content,
            written=None if options.dry_run else str(output),
            layers=options.verbose,
            file=sys.stderr if options.report == "-" else sys.stdout,
        )
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from onnxprune.errors import InputError  # noqa: PLC0415 # quick --help
    from onnxprune.graph.files import load  # noqa: PLC0415
    from onnxprune.report.prune_table import print_curve  # noqa: PLC0415
    from onnxprune.surgeon.curve import levels, prepared, sweep, varied  # noqa: PLC0415

    given = [f"--{name}" for name in ("sparsity", "macs", "params", "latency") if getattr(options, name) is not None]
    given += ["--dry-run"] if options.dry_run else []
    given += ["--report"] if options.report else []
    given += ["--html"] if options.html else []
    if given:
        raise InputError(f"--sweep cannot be combined with {', '.join(given)}.", hint="Leave it out.")
    chosen = levels(options.sweep, options.structure)
    setattr(options, varied(options.structure), chosen[0])
    _settings(options, lambda _: None, lambda: False)  # refuses what cannot be meant before anything is read
    folder = prepared(Path(options.output))
    _check_paths(options, folder)
    source = load(options.model)

    with (
        progress(options.quiet, options.verbose) as step,
        finishing("the points that are finished") as stopped,
    ):
        curve = sweep(source, options.data, _settings(options, step, stopped), chosen, folder)
    if not options.quiet:
        print_curve(curve, folder=str(folder), file=sys.stdout)
    return 0


def _settings(options: argparse.Namespace, step: Progress, stopped: Callable[[], bool]) -> PruneOptions:
    from onnxprune.surgeon.options import PruneOptions  # noqa: PLC0415 # quick --help

    return PruneOptions(
        sparsity=options.sparsity,
        macs=options.macs,
        params=options.params,
        latency=options.latency,
        structure=options.structure,
        method=options.method,
        classify=options.task == "classify",
        labels=options.labels,
        blocks=options.blocks,
        keep=options.keep,
        samples=options.samples,
        budget=options.budget,
        align=options.align,
        sparse=options.store == "sparse",
        seed=options.seed,
        provider=options.provider,
        threads=options.threads,
        progress=step,
        stopped=stopped,
    )


def _check_paths(options: argparse.Namespace, output: Path) -> None:
    """Refuse, before any work is done, to overwrite what was read.

    Raises:
        InputError: The output is the model or the data.
    """
    from onnxprune.errors import InputError  # noqa: PLC0415 # quick --help

    for role, path in (("model", options.model), ("data", options.data)):
        if output.resolve() == Path(path).resolve():
            raise InputError(f"OUT is the {role} that is read: {path}", hint="Pruning loses something: keep it.")
