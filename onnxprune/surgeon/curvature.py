"""What a change of the weights costs to second order: the Gauss-Newton matrix, seen through random probes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxprune.surgeon.matching import CHUNK, Matching, Values


def signs(objective: Matching, samples: int, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Cotangents of the taps: independent signs times square roots of the scales.

    Their pull-back r has ``E[r r'] = G``, the Gauss-Newton matrix of the objective, so that ``E[(r'd)^2] = d' G d``
    for every change d (Hutchinson, 1990).

    Args:
        objective: The objective.
        samples: Number of samples.
        rng: Draws the signs.
    """
    found = {}
    for name, scale in objective.scales.items():
        sign = rng.integers(0, 2, size=(samples, *objective.shapes[name]), dtype=np.int8) * np.float32(2)
        found[name] = (sign - np.float32(1)) * np.float32(np.sqrt(scale / samples))
    return found


def group_costs(
    objective: Matching,
    values: Values,
    groups: dict[str, NDArray[np.int64]],
    size: int,
    probes: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """What setting all weights of a group to zero costs: ``d'Gd / 2`` with ``d`` the weights of the group.

    Args:
        objective: The objective.
        values: Where the Jacobian is taken.
        groups: Per weight tensor the group of every weight (-1: none).
        size: Number of groups.
        probes: Number of probes; each sees :data:`CHUNK` samples.
        rng: Draws them.

    Returns:
        Shape (size,).
    """
    found = np.zeros(size)
    for _ in range(probes):
        index = rng.permutation(len(objective.data))[:CHUNK]
        row = objective.derivatives.pull(objective.data.take(index).inputs, values, signs(objective, len(index), rng))
        moved = np.zeros(size)
        for name, group in groups.items():
            inside = group >= 0
            change = (row[name] * values[name])[inside].astype(np.float64)
            moved += np.bincount(group[inside], weights=change, minlength=size)
        found += 0.5 * moved**2 / probes
    return found
