"""Pruning methods side by side: ``python -m tests.benchmarks.surgeon.run MODELS DATA --out DIR [GROUP ...]``.

Finished results are found again in ``DIR/rows.jsonl``; ``DIR/table.md`` and ``DIR/table.csv`` hold the means.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .cases import GROUPS, METHODS, SEEDS, cases
from .measurement import Bench
from .pruning_table import append, key_of, markdown, read, write_csv


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_intermixed_args(arguments)  # groups may follow the options
    unknown = sorted(set(options.groups) - set(GROUPS))
    if unknown:
        parser.error(f"no group {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "rows.jsonl"
    bench, began = Bench(options.models, options.data), time.monotonic()
    done = {key_of(row) for row in read(path)}
    for case in cases(options.groups or list(GROUPS), options.methods, options.seeds):
        if case.key in done:
            continue
        if time.monotonic() - began > options.limit_seconds:
            print("The time is up; the same command goes on where it ended.", file=sys.stderr)
            break
        row = bench.measured(case)
        append(path, row)
        told = f"{row['accuracy']:.2f} %, cosine {row['cosine']:.4f}, {row['processor_seconds']:.1f} s"
        print(f"{case.key}: {told}", file=sys.stderr, flush=True)
    rows = read(path)
    text = markdown(rows)
    (options.out / "table.md").write_text(text, encoding="utf-8")
    write_csv(rows, options.out / "table.csv")
    print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.surgeon.run", description=__doc__)
    parser.add_argument(
        "models", type=Path, metavar="MODELS", help="folder of mlpnet_mnist.onnx, resnet20_cifar10.onnx"
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of mnist.npz and cifar10.npz")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)}; all")
    parser.add_argument("--out", type=Path, required=True, help="where the results go")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="default 0 1 2")
    parser.add_argument(
        "--limit-seconds", type=float, default=float("inf"), help="start no further result after so long"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
