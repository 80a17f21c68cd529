"""``onnxprune optimize IN OUT``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from onnxprune.cli.common import (
    add_domain_options,
    add_goal_options,
    add_run_options,
    check_reports,
    progress,
    read_domain,
    run_options,
    written_reports,
)
from onnxprune.cli.exporting import Export, add_export_option
from onnxprune.cli.interrupt import finishing

EXAMPLE = """example:
  onnxprune optimize model.onnx smaller.onnx --domain 0:1 --report report.json"""


def parser(prog: str) -> argparse.ArgumentParser:
    """Options of the command."""
    result = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} IN OUT [options]",
        description="Read the ONNX model IN, write to OUT a smaller one that gives the same outputs on the domain.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("model", metavar="IN", help=argparse.SUPPRESS)
    result.add_argument("output", metavar="OUT", help=argparse.SUPPRESS)
    add_domain_options(result)
    add_goal_options(result)
    result.add_argument("--certificate", metavar="C.json", help="write what proves the result, for onnxprune verify")
    result.add_argument("--annotate", action="store_true", help="write into changed layers what went, for Netron")
    result.add_argument("--dry-run", action="store_true", help="do everything but write the model")
    result.add_argument("--fix-shape", action="store_true", help="write the sizes of --shape into the model")
    add_export_option(result)
    add_run_options(result)
    return result


def run(options: argparse.Namespace) -> int:
    """Read, optimize, validate, write, report."""
    from onnxprune.certificate.sealing import sealed  # noqa: PLC0415
    from onnxprune.graph.files import (  # noqa: PLC0415 # quick --help
        check_spares_data,
        check_writable,
        copy_unchanged,
        load,
        save,
    )
    from onnxprune.mobile import with_fixed_sizes  # noqa: PLC0415
    from onnxprune.optimizer import optimize_source  # noqa: PLC0415
    from onnxprune.options import Options  # noqa: PLC0415
    from onnxprune.report.table import print_summary  # noqa: PLC0415

    output = Path(options.output)
    if not options.dry_run:
        check_writable(output)
    export = Export(
        wanted=options.export is not None, output=output, custom_ops=options.custom_ops, dry=options.dry_run
    )
    check_reports(options, options.model, output, *export.files)
    source = load(options.model)
    for path in () if options.dry_run else (output, *export.files):
        check_spares_data(source, path)
    with progress(options.quiet, options.verbose) as step, finishing() as stopped:
        settings = Options(
            align=options.align,
            goal=options.goal,
            fix_shape=options.fix_shape,
            certificate=options.certificate is not None,
            annotate=options.annotate,
            progress=step,
            stopped=stopped,
            **run_options(options),
        )
        fixed = with_fixed_sizes(source.model, settings.shapes) if options.fix_shape else source.model
        domain = read_domain(options, replace(source, model=fixed))
        before = export.usability(source.model)
        result = optimize_source(source, domain, settings)
    report = export.told(result.report, before, result.model)
    check = {"data": settings.data, "shapes": settings.shapes, "tolerance": options.tolerance, "seed": options.seed}
    with written_reports(report, options), export.written(result.model, domain=domain, **check):
        if not options.dry_run:
            model = sealed(result, Path(options.certificate)) if options.certificate else result.model
            if result.modified:
                save(model, output, external=bool(source.external))
            else:
                copy_unchanged(source, output)
    if not options.quiet:
        written = None if options.dry_run else str(output)
        file = sys.stderr if options.report == "-" else sys.stdout
        print_summary(
            report.content,
            modified=result.modified,
            relative=result.outcome.max_relative_error,
            written=written,
            budget=options.budget,
            layers=options.verbose,
            file=file,
        )
        export.print(report, file=file)
    return 0
