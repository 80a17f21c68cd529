"""``onnxprune regions slice IN``."""

from __future__ import annotations

import argparse
import sys
import time

from onnxprune.cli.common import add_domain_options, choice, jobs, progress, read_domain, tolerance
from onnxprune.cli.interrupt import finishing
from onnxprune.cli.regions import add_work_options

EXAMPLE = """example:
  onnxprune regions slice model.onnx --through a.npy b.npy c.npy -o slice.svg"""


def parser(prog: str) -> argparse.ArgumentParser:
    """Options of the command."""
    result = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} IN --through A B C -o PICTURE [options]",
        description="Draw the linear regions on the plane through three inputs, exactly.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("model", metavar="IN", help="the ONNX model to read")
    result.add_argument(
        "--through",
        nargs=3,
        required=True,
        metavar=("A", "B", "C"),
        help="three inputs: .npy files (.npz for models with several inputs)",
    )
    result.add_argument("-o", "--output", required=True, metavar="PICTURE", help="slice.svg, slice.png or slice.html")
    group = result.add_argument_group("picture")
    choice(group, "--colour", ("cell", "class"), "a colour per region, or per largest output")
    group.add_argument("--margin", type=tolerance, default=0.25, metavar="M", help="room around the points (0.25)")
    group.add_argument("--most", type=jobs, default=200_000, metavar="N", help="regions drawn at most (200000)")
    add_work_options(group, report=False)
    add_domain_options(result)
    return result


def run(options: argparse.Namespace) -> int:
    """Cut the plane and draw it."""
    from pathlib import Path  # noqa: PLC0415 # quick --help

    from onnxprune.bounds.static import StaticGraph  # noqa: PLC0415
    from onnxprune.graph.files import check_writable, load  # noqa: PLC0415
    from onnxprune.regions.plane import read_point  # noqa: PLC0415
    from onnxprune.regions.reading import prepared  # noqa: PLC0415
    from onnxprune.regions.slice import slice_network  # noqa: PLC0415
    from onnxprune.regions.slice_picture import check_picture, summary, write_picture  # noqa: PLC0415

    check_picture(options.output)
    check_writable(Path(options.output))
    source = load(options.model)
    net = StaticGraph(prepared(source.model))
    domain = read_domain(options, source)
    points = [read_point(path, net) for path in options.through]
    end = time.perf_counter() + options.budget
    with progress(options.quiet, options.verbose) as step, finishing() as stopped:
        step("cutting the plane")
        found = slice_network(
            net,
            points,
            domain if domain.restricts else None,
            margin=options.margin,
            most=options.most,
            stopped=lambda: stopped() or time.perf_counter() > end,
        )
        step(f"drawing {len(found.regions)} regions")
        names = [Path(path).stem for path in options.through]
        write_picture(found, options.output, colour=options.colour, names=names)
    if not options.quiet:
        print(f"{summary(found)} (exact, up to rounding)")
        print(f"written: {options.output}", file=sys.stdout)
    return 0
