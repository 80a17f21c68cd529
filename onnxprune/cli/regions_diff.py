"""``onnxprune regions diff A B``."""

from __future__ import annotations

import argparse

from onnxprune.cli.common import (
    add_domain_options,
    check_report,
    count,
    jobs,
    progress,
    read_domain,
    written_report,
)
from onnxprune.cli.interrupt import finishing
from onnxprune.cli.regions import add_work_options

EXAMPLE = """example:
  onnxprune regions diff model.onnx smaller.onnx --domain 0:1"""


def parser(prog: str) -> argparse.ArgumentParser:
    """Options of the command."""
    result = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} A B --domain D [options]",
        description="Say whether model B has the linear regions of model A.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("first", metavar="A", help="an ONNX model, such as the original")
    result.add_argument("second", metavar="B", help="another one, such as the compressed one")
    add_domain_options(result)
    group = result.add_argument_group("work")
    group.add_argument("--most", type=jobs, default=20_000, metavar="N", help="cells matched at most (20000)")
    group.add_argument("--seed", type=count, default=0, metavar="N", help="of sample points (default 0)")
    add_work_options(group)
    return result


def run(options: argparse.Namespace) -> int:
    """Compare two models."""
    import json  # noqa: PLC0415 # quick --help
    import sys  # noqa: PLC0415
    from dataclasses import asdict  # noqa: PLC0415

    from onnxprune.graph.files import load  # noqa: PLC0415
    from onnxprune.regions.diff import compare  # noqa: PLC0415
    from onnxprune.regions.network import RegionNetwork  # noqa: PLC0415
    from onnxprune.regions.warm import warm_up  # noqa: PLC0415

    check_report(options.report, options.first, options.second)
    sources = [load(options.first), load(options.second)]
    with progress(options.quiet, options.verbose) as step, finishing() as stopped:
        step("reading the networks")
        networks = [RegionNetwork.of_model(s.model, read_domain(options, s)) for s in sources]
        warm_up(step)
        step("matching cells")
        found = compare(
            networks[0], networks[1], budget=options.budget, most=options.most, seed=options.seed, stopped=stopped
        )
    text = json.dumps({**asdict(found), "same": found.same, "line": found.line()}, indent=2) + "\n"
    with written_report(text, options.report):
        if not options.quiet:
            print(found.line(), file=sys.stderr if options.report == "-" else sys.stdout)
    return 0
