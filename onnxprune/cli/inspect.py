"""``onnxprune inspect IN``."""

from __future__ import annotations

import argparse
import sys

from onnxprune.cli.common import (
    add_domain_options,
    add_run_options,
    check_reports,
    progress,
    read_domain,
    run_options,
    written_reports,
)
from onnxprune.cli.interrupt import finishing

EXAMPLE = """example:
  onnxprune inspect model.onnx --domain 0:1"""


def parser(prog: str) -> argparse.ArgumentParser:
    """Options of the command."""
    result = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} IN [options]",
        description="Say per layer what could go and, for the rest, why it stays. Writes no model.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("model", metavar="IN", help="the ONNX model to read")
    add_domain_options(result)
    add_run_options(result)
    return result


def run(options: argparse.Namespace) -> int:
    """Optimize in memory and print the layers."""
    from onnxprune.graph.files import load  # noqa: PLC0415 # quick --help
    from onnxprune.optimizer import optimize_source  # noqa: PLC0415
    from onnxprune.options import Options  # noqa: PLC0415
    from onnxprune.report.table import print_layers, print_operators  # noqa: PLC0415

    check_reports(options, options.model)
    source = load(options.model)
    with progress(options.quiet, options.verbose) as step, finishing() as stopped:
        settings = Options(align=1, goal="size", progress=step, stopped=stopped, **run_options(options))
        result = optimize_source(source, read_domain(options, source), settings)
    with written_reports(result.report, options):
        if not options.quiet:
            file = sys.stderr if options.report == "-" else sys.stdout
            print_layers(result.report.content, budget=options.budget, file=file)
            print_operators(source.model, file=file)
            print("optimize may keep some to round channel counts up; --goal size takes them all", file=file)
    return 0
