"""Cells that touch and have the same affine map of the outputs, taken as one region."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import linprog

from onnxprune.errors import InputError
from onnxprune.operators.interval import Array
from onnxprune.regions.layers import AffineMap
from onnxprune.regions.network import Pattern, RegionNetwork
from onnxprune.regions.walker import TOLERANCE, Walker

MOST_CELLS = 200_000
"""Cells that are listed at most."""
BATCH = 4096
SAME = 1e-9
"""Relative difference up to which two maps count as the same."""


def merged(
    network: RegionNetwork, tolerance: float = TOLERANCE, stopped: Callable[[], bool] = lambda: False
) -> int | None:
    """Number of connected unions of cells with one affine map each; connected means: through common facets.

    Args:
        network: The network.
        tolerance: See :func:`~onnxprune.regions.exact.count_exactly`.
        stopped: Asked between steps; None is returned once it says so.

    Raises:
        InputError: The outputs are unknown, or there are too many cells to list.
    """
    if network.readout is None:
        raise InputError("The outputs are no affine map of the units.", hint='Count "cells" instead.')
    walker, cells, done = Walker(network, "cells", tolerance), list[Pattern](), False
    while not done:
        if stopped():
            return None
        rows, done = walker.collect(most=BATCH)
        cells += [tuple(row) for row in rows.tolist()]
        if len(cells) > MOST_CELLS:
            raise InputError(f"More than {MOST_CELLS} cells: they cannot be merged.", hint='Count "cells" instead.')
    leader = list(range(len(cells)))
    groups = _alike(network, cells, stopped)
    if groups is None:
        return None
    for group in groups:
        for at, first in enumerate(group):
            for second in group[at + 1 :]:
                if stopped():
                    return None
                one, other = _leader(leader, first), _leader(leader, second)
                if one != other and _joined(network, cells[first], cells[second]):
                    leader[one] = other
    return len({_leader(leader, index) for index in range(len(cells))})


def _joined(network: RegionNetwork, first: Pattern, second: Pattern) -> bool:
    """Whether two cells have the same map and touch."""
    maps = [network.affine_maps(cell) for cell in (first, second)]
    one, other = (_flat(output) for _, output in maps)
    same = np.abs(one - other).max(initial=0.0) <= SAME * (1.0 + np.abs(one).max(initial=0.0))
    return bool(same) and _touch(network, (first, second), (maps[0][0], maps[1][0]))


def _flat(output: AffineMap | None) -> Array:
    return np.zeros(0) if output is None else np.concatenate([output.matrix.reshape(-1), output.shift])


def _alike(network: RegionNetwork, cells: list[Pattern], stopped: Callable[[], bool]) -> list[list[int]] | None:
    """Groups whose maps, too long to be kept, may be the same: they are close along one random direction."""
    along, largest = np.zeros(len(cells)), 0.0
    direction = np.zeros(0)
    for index, cell in enumerate(cells):
        if stopped():
            return None
        output = _flat(network.affine_maps(cell)[1])
        if not index:
            direction = np.random.default_rng(0).normal(size=len(output))
        along[index], largest = output @ direction, max(largest, float(np.abs(output).max(initial=0.0)))
    width = SAME * (1.0 + largest) * np.abs(direction).sum()
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


def _touch(network: RegionNetwork, cells: tuple[Pattern, Pattern], gates: tuple[AffineMap, AffineMap]) -> bool:
    """Whether two cells share a facet: one plane on which all units vanish that differ, with room in it."""
    first, second = (np.array(cell) for cell in cells)
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
