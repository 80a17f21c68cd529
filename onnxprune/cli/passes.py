"""``onnxprune passes``."""

from __future__ import annotations

import argparse
import dataclasses


def parser(prog: str) -> argparse.ArgumentParser:
    """Options of the command."""
    return argparse.ArgumentParser(
        prog=prog,
        usage=prog,
        description="List the rewrite passes in their default order, those of installed plug-ins included.",
        epilog=f"example:\n  {prog}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(options: argparse.Namespace) -> int:
    """Print a table."""
    from rich.table import Table  # noqa: PLC0415 # quick --help

    from onnxprune.pass_registry import available  # noqa: PLC0415
    from onnxprune.report.table import console  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for column in ("pass", "exactness", "default", "what it does"):
        table.add_column(column, overflow="fold")
    for name, cls in available().items():
        fields = ",".join(f.name for f in dataclasses.fields(cls))  # type: ignore[arg-type] # passes are dataclasses
        first = (cls.__doc__ or "").strip().splitlines()[0]
        default = "yes" if cls.order is not None else "on request"
        table.add_row(f"{name}{{{fields}}}" if fields else name, cls.exactness.value, default, first)
    console().print(table)
    return 0
