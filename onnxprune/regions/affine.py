"""Cells that touch and have the same affine map of the outputs, taken as one region."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from onnxprune.errors import InputError
from onnxprune.operators.interval import Array
from onnxprune.regions.layers import AffineMap
from onnxprune.regions.network import Pattern, RegionNetwork
from onnxprune.regions.walker import TOLERANCE, Walker

MOST_CELLS = 200_000
"""Cells that are listed at most."""
SAME = 1e-9
"""Relative difference up to which two maps count as the same."""


def merged(network: RegionNetwork, tolerance: float = TOLERANCE) -> int:
    """Number of connected unions of cells with one affine map each; connected means: through common facets.

    Raises:
        InputError: The outputs are unknown, or there are too many cells to list.
    """
    if network.readout is None:
        raise InputError("The outputs are no affine map of the units.", hint='Count "cells" instead.')
    walker = Walker(network, "cells", tolerance)
    rows, done = walker.collect(most=MOST_CELLS)
    if not done:
        raise InputError(f"More than {MOST_CELLS} cells: they cannot be merged.", hint='Count "cells" instead.')
    cells = [tuple(int(bit) for bit in row) for row in rows]
    maps = [network.affine_maps(cell) for cell in cells]
    outputs = np.array([_flat(output) for _, output in maps])
    leader = list(range(len(cells)))
    for group in _alike(outputs):
        for at, first in enumerate(group):
            for second in group[at + 1 :]:
                one, other = _leader(leader, first), _leader(leader, second)
                same = _close(outputs[first], outputs[second])
                if one != other and same and _touch(network, cells, (maps[first][0], maps[second][0]), (first, second)):
                    leader[one] = other
    return len({_leader(leader, index) for index in range(len(cells))})


def _flat(output: AffineMap | None) -> Array:
    return np.zeros(0) if output is None else np.concatenate([output.matrix.reshape(-1), output.shift])


def _close(one: Array, other: Array) -> bool:
    return bool(np.abs(one - other).max(initial=0.0) <= SAME * (1.0 + np.abs(one).max(initial=0.0)))


def _alike(outputs: Array) -> list[list[int]]:
    """Groups whose maps may be the same: they are close along one random direction."""
    direction = np.random.default_rng(0).normal(size=outputs.shape[1])
    along = outputs @ direction
    width = SAME * (1.0 + np.abs(outputs).max(initial=0.0)) * np.abs(direction).sum()
    groups: list[list[int]] = []
    order = np.argsort(along)
    for place, index in enumerate(order.tolist()):
        if place and along[index] - along[order[place - 1]] <= width:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _leader(leader: list[int], index: int) -> int:
    while leader[index] != index:
        leader[index] = leader[leader[index]]
        index = leader[index]
    return index


def _touch(
    network: RegionNetwork, cells: list[Pattern], gates: tuple[AffineMap, AffineMap], pair: tuple[int, int]
) -> bool:
    """Whether two cells share a facet: one plane on which all units vanish that differ, with room in it."""
    first, second = (np.array(cells[index]) for index in pair)
    differ = np.flatnonzero(first != second)
    plane: Array | None = None
    for gate in gates:
        for row in np.hstack([gate.matrix, gate.shift[:, None]])[differ]:
            size = float(np.abs(row).max(initial=0.0))
            if size <= 1e-12:
                continue
            unit = row / np.linalg.norm(row)
            if plane is None:
                plane = unit
            elif min(np.abs(unit - plane).max(), np.abs(unit + plane).max()) > 1e-9:
                return False
    if plane is None:
        return False
    radius, centre = (network.high - network.low) / 2, (network.high + network.low) / 2
    rows, limits = [np.hstack([network.rows, np.zeros((len(network.rows), 1))])], [network.limits]
    signs = np.where(first == 1, 1.0, -1.0)
    for gate in gates:
        spread = np.abs(gate.matrix) @ radius
        keep = (first == second) & (spread > 1e-12 * (1.0 + np.abs(gate.shift)))
        scaled = signs[keep] / spread[keep]
        rows.append(np.hstack([-scaled[:, None] * gate.matrix[keep], np.ones((int(keep.sum()), 1))]))
        limits.append(scaled * gate.shift[keep])
    span = float(np.abs(plane[:-1]) @ radius)
    if abs(plane[:-1] @ centre + plane[-1]) > span:
        return False
    objective = np.append(np.zeros(len(centre)), -1.0)
    ends = [*zip(network.low.tolist(), network.high.tolist(), strict=True), (-1.0, 1.0)]
    result = linprog(
        objective, np.vstack(rows), np.concatenate(limits), np.append(plane[:-1], 0.0)[None], -plane[-1:], ends
    )
    return bool(result.status == 0 and result.x is not None and result.x[-1] > TOLERANCE)
