"""Counts, bounds and estimates side by side: ``python -m tests.benchmarks.regions.run mnist.npz --out DIR``.

Networks of 22 units in two layers are trained on MNIST, one for each split, and every method has the same time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import onnxprune
from onnxprune.errors import InputError

from .table import Row, markdown, plot, read_csv, row_of, write_csv
from .training import Layers, digits, to_model, train

HERE = Path(__file__).parent
SPLITS = "1-21 2-20 4-18 6-16 8-14 11-11 14-8 18-4 21-1"
METHODS = ("exact", "probe", "parity", "mip")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    images, labels = digits(options.data)
    path = options.out / "results.csv"
    rows = read_csv(path)
    for split in options.splits.split():
        layers = train(images, labels, [int(n) for n in split.split("-")], epochs=options.epochs)
        for method in (*options.methods.split(","), *(["relucent"] if options.relucent else [])):
            if any((row.split, row.method) == (split, method) for row in rows):
                continue
            if method == "relucent":
                row = with_relucent(split, layers[:-1], options.relucent, options.budget, options.out)
            else:
                row = with_onnxprune(split, layers, method, options.budget)
            rows.append(row)
            write_csv(rows, path)
            print(f"{split} {method}: {row.status}, {row.count or row.lower95}, {row.seconds} s", file=sys.stderr)
    text = markdown(rows)
    (options.out / "results.md").write_text(text, encoding="utf-8")
    plot(rows, options.out / "results.png")
    print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.regions.run", description=__doc__)
    parser.add_argument("data", type=Path, metavar="MNIST.npz", help="holds x_train and y_train")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the results go")
    parser.add_argument("--splits", default=SPLITS, help=f"units per layer (default {SPLITS})")
    parser.add_argument("--methods", default=",".join(METHODS), help="methods of onnxprune")
    parser.add_argument("--relucent", type=Path, metavar="PYTHON", help="interpreter of an environment with relucent")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds per measurement (default 60)")
    parser.add_argument("--epochs", type=int, default=3, help="of training (default 3)")
    return parser


def with_onnxprune(split: str, layers: Layers, method: str, budget: float) -> Row:
    """One method of ours."""
    try:
        report = onnxprune.count_regions(to_model(layers), "0:1", method=method, budget=budget)  # type: ignore[arg-type]
    except InputError as error:
        return Row(split, method, "refused" if "too many" in error.what else error.what)
    return row_of(split, method, report)


def with_relucent(split: str, hidden: Layers, python: Path, budget: float, folder: Path) -> Row:
    """The peer, in a process of its own that ends with the budget."""
    weights = folder / "layers.npz"
    np.savez(weights, *[array for layer in hidden for array in layer])
    row = Row(split, "relucent")
    try:
        ran = subprocess.run(
            [str(python), str(HERE / "relucent_worker.py"), str(weights)],
            capture_output=True,
            text=True,
            timeout=budget,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return replace(row, status="time", seconds=budget)
    finally:
        weights.unlink()
    if ran.returncode:
        return replace(row, status=ran.stderr.strip().splitlines()[-1][:80] if ran.stderr else "failed")
    told = json.loads(ran.stdout.splitlines()[-1])
    return replace(row, found=told["count"], count=told["count"], seconds=told["seconds"])


if __name__ == "__main__":
    sys.exit(main())
