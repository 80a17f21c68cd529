"""``onnxprune operators``."""

from __future__ import annotations

import argparse

COLUMNS = {
    "interval": "bounds",
    "channels": "channels",
    "affine": "affine",
    "relax": "lines",
    "pieces": "pieces",
    "derivative": "slope",
    "choices": "choices",
}
"""Headings of abilities; whatever has ``affine`` has ``adjoint``."""


def parser(prog: str) -> argparse.ArgumentParser:
    """Options of the command."""
    return argparse.ArgumentParser(
        prog=prog,
        usage=prog,
        description="List the operators that are understood; all others are opaque: what they touch stays as it is.",
        epilog=f"example:\n  {prog}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(options: argparse.Namespace) -> int:
    """Print a table of operators and abilities."""
    from rich.table import Table  # noqa: PLC0415 # quick --help

    from onnxprune.operators import abilities, registry  # noqa: PLC0415
    from onnxprune.report.table import console  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    table.add_column("operator")
    for column in COLUMNS.values():
        table.add_column(column)
    for (domain, name), operator in sorted(registry().items()):
        able = abilities(operator)
        full = f"{domain}.{name}" if domain else name
        table.add_row(full, *("yes" if ability in able else "-" for ability in COLUMNS))
    console().print(table)
    return 0
