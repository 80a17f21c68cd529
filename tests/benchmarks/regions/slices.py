"""Slices with their times and pictures: ``python -m tests.benchmarks.regions.slices --out DIR [MODEL IMAGES.npz]``.

A random network 2-64-64 on a square; and a model on the plane through the first three images of ``x_test``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from onnxprune.bounds.static import StaticGraph
from onnxprune.graph.files import load
from onnxprune.graph.kinds import ModelLike
from onnxprune.operators.interval import Array
from onnxprune.regions.reading import prepared
from onnxprune.regions.slice import slice_network
from onnxprune.regions.slice_picture import write_picture

from .training import to_model

SQUARE = [np.array([-3.0, -3.0]), np.array([3.0, -3.0]), np.array([-3.0, 3.0])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.regions.slices", description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, metavar="MODEL", help="a model of images in [0, 1]")
    parser.add_argument("images", nargs="?", type=Path, metavar="IMAGES.npz", help="holds x_test, in 0 to 255")
    parser.add_argument("--out", type=Path, required=True, help="where the pictures go")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    drawn(to_model(random_layers()), SQUARE, 0.0, options.out / "2-64-64")
    if options.model:
        with np.load(options.images) as data:
            points = [image.astype(np.float64).reshape(-1) / 255 for image in data["x_test"][:3]]
        drawn(options.model, points, 0.25, options.out / options.model.stem)
    return 0


def random_layers() -> list[tuple[Array, Array]]:
    """Weights and biases of 2-64-64-10."""
    rng, sizes = np.random.default_rng(0), (2, 64, 64, 10)
    return [
        (rng.normal(size=(after, before)) * np.sqrt(2 / before), 0.3 * rng.normal(size=after))
        for before, after in pairwise(sizes)
    ]


def drawn(model: ModelLike, points: Sequence[Array], margin: float, target: Path) -> None:
    """Cut the plane and draw it, by cell and by class."""
    net = StaticGraph(prepared(load(model).model))
    began = time.process_time()
    found = slice_network(net, points, margin=margin)
    seconds = time.process_time() - began
    print(f"{target.name}: {len(found.regions)} regions in {seconds:.2f} s of processor time", flush=True)
    for colour in ("cell", "class"):
        write_picture(found, f"{target}_{colour}.png", colour=colour, names=["a", "b", "c"])


if __name__ == "__main__":
    sys.exit(main())
