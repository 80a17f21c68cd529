"""The order in which units are decided: any within a layer gives the same regions, but not the same work.

A unit that leans to one side is implied by the others more often. A walk through all regions meets fewest nodes when
such units come first, near the root, where one programme rules out a side for everything below. A random descent
scatters least when they come last: early choices then split the regions evenly, late ones change little.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators.interval import Array
from onnxprune.regions.interior import ranges
from onnxprune.regions.network import RegionNetwork


def leaning_first(network: RegionNetwork) -> RegionNetwork:
    """The same network; in each layer units come first whose proved range is mostly on one side of 0."""
    return _reordered(network, -_lean(network))


def leaning_last(network: RegionNetwork) -> RegionNetwork:
    """The same network; in each layer units come first whose proved range has 0 in its middle."""
    return _reordered(network, _lean(network))


def _lean(network: RegionNetwork) -> Array:
    """How far the middle of each range is from 0, as a share of its half-width, shape (unstable,)."""
    if not network.unstable:
        return np.zeros(0)
    low, high = ranges(network)
    return np.abs(high + low) / (high - low)


def _reordered(network: RegionNetwork, key: Array) -> RegionNetwork:
    """Units of each layer by rising key; equal ones stay in their order."""
    columns: NDArray[np.int64] = np.arange(len(network.low))
    layers, at = [], 0
    for layer in network.layers:
        order = np.argsort(key[at : at + layer.size], kind="stable")
        weights = layer.weights[:, columns][order]
        layers.append(replace(layer, unstable=layer.unstable[order], weights=weights, bias=layer.bias[order]))
        columns = np.concatenate([columns, len(columns) + order])
        at += layer.size
    readout = network.readout
    if readout is not None:
        readout = readout[0][:, columns[: readout[0].shape[1]]], readout[1]
    return replace(network, layers=tuple(layers), readout=readout)
