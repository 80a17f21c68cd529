"""Counts, bounds and estimates side by side: ``python -m tests.benchmarks.regions.run mnist.npz --out DIR``.

Networks of 22 units in two layers are trained on MNIST, some for each split, and every method has the same time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

import onnxprune
from onnxprune.errors import InputError

from .pictures import plot, plot_networks
from .table import Row, markdown, read_csv, row_of, write_csv
from .training import Layers, digits, to_model, train

HERE = Path(__file__).parent
SPLITS = "1-21 2-20 4-18 6-16 8-14 11-11 14-8 18-4 21-1"
METHODS = ("exact", "probe", "parity")
SLOW = ("mip",)
"""Methods for the first network of each split only."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    images, labels = digits(options.data)
    path = options.out / "results.csv"
    rows = read_csv(path)
    methods = [*options.methods.split(","), *SLOW, *(["relucent"] if options.relucent else [])]
    for seed, split in product(range(options.seeds), options.splits.split()):
        done = {row.method for row in rows if (row.split, row.seed) == (split, seed)}
        todo = [m for m in methods if m not in done and (seed == 0 or m not in (*SLOW, "relucent"))]
        widths = [int(n) for n in split.split("-")]
        layers = train(images, labels, widths, epochs=options.epochs, seed=seed) if todo else []
        for method in todo:
            if method == "relucent":
                row = with_relucent(split, layers[:-1], options.relucent, options.budget, options.out)
            else:
                row = with_onnxprune(split, seed, layers, method, options.budget)
            rows.append(row)
            write_csv(rows, path)
            told = row.count or row.lower95 or row.found
            print(f"{split}, seed {seed}, {method}: {row.status}, {told}, {row.seconds} s", file=sys.stderr)
    order = {split: number for number, split in enumerate(options.splits.split())}
    rows = sorted((row for row in rows if row.split in order), key=lambda row: (order[row.split], row.seed))
    text = markdown(rows)
    (options.out / "results.md").write_text(text, encoding="utf-8")
    plot(rows, options.out / "results.png")
    plot_networks(rows, options.out / "networks.png")
    print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.regions.run", description=__doc__)
    parser.add_argument("data", type=Path, metavar="MNIST.npz", help="holds x_train and y_train")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the results go")
    parser.add_argument("--splits", default=SPLITS, help=f"units per layer (default {SPLITS})")
    parser.add_argument("--methods", default=",".join(METHODS), help="methods of onnxprune")
    parser.add_argument("--seeds", type=int, default=10, help="networks per split (default 10)")
    parser.add_argument("--relucent", type=Path, metavar="PYTHON", help="interpreter of an environment with relucent")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds per measurement (default 60)")
    parser.add_argument("--epochs", type=int, default=3, help="of training (default 3)")
    return parser


def with_onnxprune(split: str, seed: int, layers: Layers, method: str, budget: float) -> Row:
    """One method of ours."""
    began = time.process_time()
    try:
        report = onnxprune.count_regions(to_model(layers), "0:1", method=method, budget=budget, seed=seed)  # type: ignore[arg-type]
    except InputError as error:
        return Row(split, method, "refused" if "too many" in error.what else error.what, seed)
    return row_of(split, seed, method, report, time.process_time() - began)


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
    return replace(row, found=told["count"], count=told["count"], seconds=told["seconds"], cpu=told["cpu"])


if __name__ == "__main__":
    sys.exit(main())
