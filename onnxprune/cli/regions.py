"""``onnxprune regions IN``."""

from __future__ import annotations

import argparse
import sys

from onnxprune.cli.common import (
    add_domain_options,
    check_report,
    choice,
    count,
    jobs,
    progress,
    read_domain,
    tolerance,
    written_report,
)
from onnxprune.cli.interrupt import finishing

PARTS = ("diff", "slice")
"""Words after ``regions`` that are commands of their own."""
EXAMPLE = """example:
  onnxprune regions model.onnx --domain 0:1

also:
  onnxprune regions diff A B --domain 0:1             did a rewrite keep the regions?
  onnxprune regions slice IN --through A B C -o FILE  draw them on a plane
"""


def parser(prog: str) -> argparse.ArgumentParser:
    """Options of the command."""
    result = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} IN --domain D [options]",
        description="Count or bound the linear regions of a piecewise-linear model over a box.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("model", metavar="IN", help="the ONNX model to read (a model called diff: ./diff)")
    add_domain_options(result)
    group = result.add_argument_group("regions")
    choice(group, "--method", ("auto", "bounds", "exact", "mip", "parity", "probe"), "how they are found")
    choice(group, "--definition", ("cells", "patterns", "affine"), "what counts as one")
    group.add_argument("--include-output", action="store_true", help="let the signs of the outputs cut, too")
    group.add_argument("--jobs", type=jobs, default=1, metavar="N", help="processes that count (default 1)")
    group.add_argument("--seed", type=count, default=0, metavar="N", help="of what is random (default 0)")
    choice(group, "--solver", ("highs", "cbc", "gurobi"), "for integer programmes")
    group.add_argument("--store", metavar="FILE", help="keep finished parts here; a later run goes on from them")
    add_work_options(result.add_argument_group("work"))
    return result


def add_work_options(group: argparse._ArgumentGroup, *, report: bool = True) -> None:
    """Options of all commands about linear regions."""
    group.add_argument("--budget", type=tolerance, default=60.0, metavar="S", help="seconds of work (default 60)")
    if report:
        group.add_argument("--report", metavar="R.json", help="write the report (- for standard output)")
    group.add_argument("--quiet", "-q", action="store_true", help="print nothing but errors")
    group.add_argument("--verbose", "-v", action="store_true", help="say what is being done")


def run(options: argparse.Namespace) -> int:
    """Count, print, and write the report."""
    from onnxprune.graph.files import load  # noqa: PLC0415 # quick --help
    from onnxprune.regions.count import count_regions  # noqa: PLC0415

    check_report(options.report, options.model)
    check_report(options.store, options.model, option="--store")
    source = load(options.model)
    with progress(options.quiet, options.verbose) as step, finishing() as stopped:
        report = count_regions(
            source.model,
            read_domain(options, source),
            method=options.method,
            definition=options.definition,
            include_output=options.include_output,
            budget=options.budget,
            jobs=options.jobs,
            seed=options.seed,
            solver=options.solver,
            store=options.store,
            progress=step,
            stopped=stopped,
        )
    with written_report(report.to_json(), options.report):
        if not options.quiet:
            print("\n".join(report.lines()), file=sys.stderr if options.report == "-" else sys.stdout)
    return 0
