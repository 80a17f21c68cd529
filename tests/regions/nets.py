"""Networks whose linear regions are known by a formula."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.regions import RegionNetwork
from onnxprune.regions.lower_architecture import folding_network

Array = NDArray[np.float64]


def planes(weights: Array, bias: Array, low: float, high: float) -> RegionNetwork:
    """One layer over a cube."""
    ends = np.ones(np.asarray(weights).shape[1])
    return RegionNetwork.of_layers([(weights, bias)], low * ends, high * ends)


def general_position(count: int, dimension: int, seed: int = 0) -> RegionNetwork:
    """Planes in general position with all their vertices inside the box, which is checked."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(count, dimension))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    bias = rng.uniform(-1, 1, size=count)
    chosen = [list(rows) for rows in itertools.combinations(range(count), dimension)]
    vertices = np.array([np.linalg.solve(weights[rows], -bias[rows]) for rows in chosen])
    for rows, vertex in zip(chosen, vertices, strict=True):
        others = np.setdiff1d(np.arange(count), rows)
        assert np.abs(weights[others] @ vertex + bias[others]).min(initial=1.0) > 1e-6
    return planes(weights, bias, -2 * np.abs(vertices).max(), 2 * np.abs(vertices).max())


def zigzag(units: int, depth: int) -> RegionNetwork:
    """``depth`` layers of ``units`` fold [0, 1]: (units + 1)^depth pieces."""
    return RegionNetwork.of_layers(folding_network(1, [units] * depth), [0.0], [1.0])


def folded(inputs: int, widths: Sequence[int]) -> RegionNetwork:
    """The construction behind the lower bound of an architecture."""
    return RegionNetwork.of_layers(folding_network(inputs, widths), np.zeros(inputs), np.ones(inputs))


def grid() -> RegionNetwork:
    return planes(np.eye(6), np.full(6, -0.5), 0, 1)


def two_planes_per_axis() -> RegionNetwork:
    return planes(np.repeat(np.eye(3), 2, axis=0), np.tile([-0.3, -0.6], 3), 0, 1)


def three_lines() -> RegionNetwork:
    return planes(np.array([[1.0, 0], [0, 1], [1, 1]]), np.zeros(3), -1, 1)


def braid(count: int) -> RegionNetwork:
    """Planes x_i = x_j: one region for every order of the coordinates."""
    rows = [np.eye(count)[i] - np.eye(count)[j] for i, j in itertools.combinations(range(count), 2)]
    return planes(np.array(rows), np.zeros(len(rows)), -1, 1)


def resonance(dimension: int) -> RegionNetwork:
    """Planes with every non-zero 0/1 vector as normal."""
    rows = [row for row in itertools.product((0.0, 1.0), repeat=dimension) if any(row)]
    return planes(np.array(rows), np.zeros(len(rows)), -1, 1)


def stable_and_not() -> RegionNetwork:
    """Four regions: two lines cut the square, two units never switch."""
    return planes(np.array([[1.0, 1], [1, -1], [-1, -1], [1, 0]]), np.array([3.0, 0, -3, -0.25]), 0, 1)


def touching() -> RegionNetwork:
    """One region: the line touches the square in a corner."""
    return planes(np.array([[1.0, 1]]), np.array([-2.0]), 0, 1)


def repeated() -> RegionNetwork:
    """Four regions: three units share a line, one is constant."""
    weights = np.array([[1.0, 0], [2, 0], [-1, 0], [0, 0], [0, 1]])
    return planes(weights, np.array([-0.5, -1, 0.5, 1, -0.5]), 0, 1)


def fold(bias: float) -> RegionNetwork:
    """|x - 1/2| + bias behind two units: 4 regions for bias -1/4, 2 for 0."""
    return RegionNetwork.of_layers([([[1.0], [-1.0]], [-0.5, 0.5]), ([[1.0, 1.0]], [bias])], [0.0], [1.0])


def mirrored() -> RegionNetwork:
    """Units x and -x: cells 2, patterns 3."""
    return RegionNetwork.of_layers([([[1.0], [-1.0]], [0.0, 0.0])], [-1.0], [1.0])


def random_layers(
    rng: np.random.Generator, inputs: int, widths: Sequence[int], *, bias: float = 0.5
) -> list[tuple[Array, Array]]:
    """Gaussian weights and biases."""
    layers, before = [], inputs
    for width in widths:
        layers.append((rng.normal(size=(width, before)) / np.sqrt(before), bias * rng.normal(size=width)))
        before = width
    return layers


def random_network(rng: np.random.Generator, inputs: int, widths: Sequence[int], *, bias: float = 0.5) -> RegionNetwork:
    """A random network over [-1, 1]^inputs."""
    return RegionNetwork.of_layers(random_layers(rng, inputs, widths, bias=bias), -np.ones(inputs), np.ones(inputs))
