"""Regions seen one at a time: whether a pattern is one, and the point deepest inside it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import optimize, sparse

from onnxprune.operators.interval import Array
from onnxprune.regions.network import Pattern, RegionNetwork

Definition = Literal["cells", "patterns"]
FLAT = 1e-12
"""A row whose largest coefficient is below this share of its parts is constant."""


def rows_of(network: RegionNetwork) -> tuple[sparse.csr_array, Array]:
    """Rows of all unstable units over the inputs and all unstable units, with their bias."""
    width = len(network.low) + network.unstable
    rows = [np.pad(layer.weights, ((0, 0), (0, width - layer.weights.shape[1]))) for layer in network.layers]
    return sparse.csr_array(np.concatenate(rows)), np.concatenate([layer.bias for layer in network.layers])


def ranges(network: RegionNetwork) -> tuple[Array, Array]:
    """Proved bounds of all unstable pre-activations, with some room for rounding; below and above 0."""
    low, high = [], []
    blocks = {block.name: block for block in network.blocks.blocks}
    size = np.concatenate([np.maximum(np.abs(network.low), np.abs(network.high)), np.zeros(network.unstable)])
    at = len(network.low)
    for layer in network.layers:
        width = layer.weights.shape[1]
        reach = np.abs(layer.weights) @ size[:width] + np.abs(layer.bias)
        block = blocks.get(layer.name)
        known = block is not None and not layer.output
        least = block.low[layer.unstable] if block is not None and known else -reach
        most = block.high[layer.unstable] if block is not None and known else reach
        room = 1e-9 * np.maximum(1e-9, reach)
        low.append(np.maximum(least, -reach) - room)
        high.append(np.minimum(most, reach) + room)
        size[at : at + layer.size] = high[-1]
        at += layer.size
    return np.concatenate(low), np.concatenate(high)


def slack_of(network: RegionNetwork, pattern: Pattern, definition: Definition = "cells") -> float:
    """How far the best point of a pattern stays away from all of its boundaries; at most 0 where it is no region.

    The slack of each unit counts relative to the largest change that its row can make over the box. A unit that
    is 0 all over the piece counts as inactive. For ``patterns`` inactive units need no slack.

    Args:
        network: The network.
        pattern: Which unstable units are on.
        definition: What counts.
    """
    found = interior(network, pattern, definition)
    return -1.0 if found is None else found[1]


def interior(network: RegionNetwork, pattern: Pattern, definition: Definition = "cells") -> tuple[Array, float] | None:
    """The point with the largest slack, and that slack; None where the pattern is empty."""
    maps, _ = network.affine_maps(pattern)
    half = (network.high - network.low) / 2
    middle = network.low + half
    free = half > 0
    slopes, at = maps.matrix[:, free] * half[free], maps(middle)
    sign = np.where(np.array(pattern) > 0, 1.0, -1.0)
    reach = np.abs(slopes).sum(axis=1)
    flat = reach <= FLAT * np.maximum(_parts(network), 1e-300)
    level = np.where(flat, at, 0.0)
    zero = np.abs(level) <= FLAT * np.maximum(_parts(network), 1e-300)
    if (flat & ~zero & (sign * level < 0)).any() or (flat & zero & (sign > 0)).any():
        return None
    rest = np.flatnonzero(~flat)
    rows = -sign[rest, None] * slopes[rest] / reach[rest, None]
    sides = sign[rest] * at[rest] / reach[rest]
    asks = np.ones(len(rest)) if definition == "cells" else (sign[rest] > 0).astype(np.float64)
    matrix = np.hstack([rows, asks[:, None]])
    if len(network.limits):
        extra = network.rows[:, free] * half[free]
        size = np.maximum(np.abs(extra).sum(axis=1), 1e-300)
        matrix = np.vstack([matrix, np.hstack([extra / size[:, None], np.zeros((len(extra), 1))])])
        sides = np.concatenate([sides, (network.limits - network.rows @ middle) / size])
    count = int(free.sum())
    cost = np.zeros(count + 1)
    cost[-1] = -1.0
    ends = [(-1.0, 1.0)] * count + [(-1.0, 1.0)]
    solved = optimize.linprog(cost, matrix, sides, bounds=ends, method="highs")
    if solved.status != 0 or solved.x is None:
        return None
    point = middle.copy()
    point[free] += half[free] * solved.x[:-1]
    asked = bool(asks.any())
    return np.clip(point, network.low, network.high), float(solved.x[-1]) if asked else 1.0


def _parts(network: RegionNetwork) -> Array:
    """How large the terms of each pre-activation can be, whatever cancels."""
    weights, bias = rows_of(network)
    size = np.concatenate([np.maximum(np.abs(network.low), np.abs(network.high)), ranges(network)[1]])
    return np.asarray(abs(weights) @ size + np.abs(bias), dtype=np.float64)
