"""How many regions an architecture can have at least: networks of folds that attain a known number.

Each group of k >= 3 units of a hidden layer folds one coordinate of [0, 1]^n0 so that k + 1 intervals are mapped onto
[0, 1]; the last layer then cuts every copy of the cube (Montufar et al. 2014, Theorem 5; with all k + 1 pieces for
k >= 3 Serra, Tjandraatmadja, Ramalingam 2018, Theorem 7).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from onnxprune.errors import InputError
from onnxprune.operators.interval import Array

LEAST_FOLDS = 3
"""Units that fold an interval; fewer cannot be rid of a flat or half-used piece."""


def architecture_lower_bound(inputs: int, widths: Sequence[int]) -> int:
    """Regions that some network of this shape has: prod (floor(n_l / n_0) + 1)^n_0 times sum_j C(n_L, j).

    Raises:
        InputError: A hidden layer has fewer than 3 units per input: the formula does not apply.
    """
    _check(inputs, widths)
    folds: int = math.prod((width // inputs + 1) ** inputs for width in widths[:-1])
    return folds * sum(math.comb(widths[-1], j) for j in range(inputs + 1))


def folding_network(inputs: int, widths: Sequence[int], seed: int = 0) -> list[tuple[Array, Array]]:
    """Weights and biases of a network with exactly that many regions on [0, 1]^inputs.

    Units that are left over in a hidden layer are off everywhere.

    Args:
        inputs: Number of inputs.
        widths: Units per layer.
        seed: Of the planes of the last layer.

    Raises:
        InputError: See :func:`architecture_lower_bound`.
    """
    _check(inputs, widths)
    layers = []
    carry, offset = np.eye(inputs), np.zeros(inputs)  # the folded point in terms of the layer before
    for width in widths[:-1]:
        folds = width // inputs
        directions, knots, readout, shift = _fold(folds)
        spare = width - folds * inputs
        into = np.vstack([np.kron(np.eye(inputs), directions[:, None]), np.zeros((spare, inputs))])
        bias = np.concatenate([np.tile(-directions * knots, inputs), -np.ones(spare)])
        layers.append((into @ carry, into @ offset + bias))
        carry = np.hstack([np.kron(np.eye(inputs), readout[None]), np.zeros((inputs, spare))])
        offset = np.full(inputs, shift)
    planes, bias = _planes(inputs, widths[-1], seed)
    layers.append((planes @ carry, planes @ offset + bias))
    return layers


def _check(inputs: int, widths: Sequence[int]) -> None:
    if inputs < 1 or not widths or any(width < LEAST_FOLDS * inputs for width in widths[:-1]) or widths[-1] < 1:
        raise InputError(
            f"No construction is known for {inputs} inputs and layers of {', '.join(map(str, widths))} units.",
            hint=f"Hidden layers but the last need {LEAST_FOLDS} units per input or more.",
        )


def _fold(units: int) -> tuple[Array, Array, Array, float]:
    """Directions, knots and weights such that [0, 1] is folded ``units`` times, every piece onto [0, 1].

    Slopes alternate in sign. Units 2 and 3 look to the left: the slopes of the first pieces then agree if that of
    piece 3 is the sum of those of pieces 0 and 1.
    """
    steep = units + 0.5
    slopes = np.full(units + 1, steep)
    slopes[LEAST_FOLDS] *= 2.0
    knots = np.cumsum(1.0 / slopes)[:-1]
    signed = slopes * (-1.0) ** np.arange(units + 1)
    weights = np.diff(signed)
    left = np.zeros(units, dtype=bool)
    left[1:LEAST_FOLDS] = True
    shift = -float(weights[left] @ knots[left])
    return np.where(left, -1.0, 1.0), knots, weights, shift


def _planes(inputs: int, count: int, seed: int) -> tuple[Array, Array]:
    """Planes in general position with all vertices well inside the cube; of some tries the one least degenerate."""
    rng = np.random.default_rng(seed)
    best: tuple[float, Array, Array] | None = None
    chosen = [list(rows) for rows in itertools.islice(itertools.combinations(range(count), min(inputs, count)), 2000)]
    for _ in range(50):
        normals = rng.normal(size=(count, inputs))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        offsets = (rng.permutation(count) + 1.0) / (count + 1.0) - 0.5 + rng.uniform(-0.1, 0.1, count) / (count + 1.0)
        if inputs > count:
            return normals, 1e-3 * offsets - normals.sum(axis=1) / 2
        systems = normals[chosen]
        if np.abs(np.linalg.det(systems)).min() < 1e-9:
            continue
        vertices = np.linalg.solve(systems, -offsets[chosen][..., None])[..., 0]
        scale = 0.45 / np.abs(vertices).max()
        gaps = np.abs(vertices @ normals.T + offsets)
        for rows, gap in zip(chosen, gaps, strict=True):
            gap[rows] = np.inf
        margin = float(gaps.min(initial=1.0)) * scale
        if best is None or margin > best[0]:
            best = (margin, normals, scale * offsets - normals.sum(axis=1) / 2)
    if best is None:
        raise InputError(f"{count} planes in general position were not found.", hint="Take fewer units.")
    return best[1], best[2]
