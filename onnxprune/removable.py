"""Which components can go, given bounds: unread, always zero, or constant (some at the price of a carrier)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from onnxprune.bounds.interval import Bounds
from onnxprune.graph.groups import ChannelGroups, Reader

ABSORBED = 2.0**-40
"""A channel counts as constant when its variation moves each output of the next layer by less than this share of
what that output can be made of: the bias and, per input, its weight times its size (at most 1, since the size of an
unbounded input says nothing). That is far below half a unit in the last place of float32."""


class Status(IntEnum):
    """What is known of a channel where a layer reads it, or of a component over all its readers."""

    UNUSED = 0
    INACTIVE = 1
    CONSTANT = 2
    CARRIED = 3
    NEEDED = 4


@dataclass(frozen=True)
class Reading:
    """Per input channel of one reader: status, value where constant, and how far it may be from it."""

    status: NDArray[np.int8]
    value: NDArray[np.float64]
    radius: NDArray[np.float64]


@dataclass(frozen=True)
class Removable:
    """Status of every component, and the readings it rests on (one per reader)."""

    status: NDArray[np.int8]
    readings: tuple[Reading, ...]


def classify(groups: ChannelGroups, bounds: Bounds) -> Removable:
    """Decide for every component whether it can go.

    A component can go when nothing locks it and every layer that reads one of its channels either gives it
    zero weights or sees a constant there; what happens in between does not matter.
    """
    readings = tuple(_read(reader, bounds) for reader in groups.readers)
    status = np.zeros(groups.count, dtype=np.int8)
    for reader, reading in zip(groups.readers, readings, strict=True):
        np.maximum.at(status, reader.components, reading.status)
    status[~groups.removable] = Status.NEEDED
    return Removable(status, readings)


def _read(reader: Reader, bounds: Bounds) -> Reading:
    layer = reader.layer
    name, axis = layer.reads
    low, high = bounds.channel(name, axis, layer.n_in)
    with np.errstate(over="ignore", invalid="ignore"):
        value = low / 2 + high / 2
        value = np.where(low == high, low, value)
        radius = np.where(low == high, 0.0, np.nextafter(np.maximum(high - value, value - low), np.inf))
        absolute = layer.absolute_columns()
        size = np.minimum(np.maximum(np.abs(low), np.abs(high)), 1.0)
        scale = absolute @ size + (np.abs(layer.bias) if layer.bias is not None else 0.0)
        moved = (absolute * radius[None, :] <= ABSORBED * scale[:, None]).all(axis=0)
    constant = (radius == 0.0) | (moved & np.isfinite(radius))
    zero = constant & (value == 0.0) & (radius == 0.0)
    foldable = layer.bias is not None
    status = np.full(layer.n_in, Status.NEEDED, dtype=np.int8)
    if foldable:
        status[constant] = Status.CONSTANT if layer.uniform else Status.CARRIED
    if not layer.uniform:
        # the padding is zero: a value too small to be felt is as good as zero at the border
        felt = (absolute * (np.abs(value) + radius)[None, :] > ABSORBED * scale[:, None]).any(axis=0)
        status[constant & ~felt & foldable] = Status.CONSTANT
        negligible = constant & ~felt
        radius = np.where(negligible, np.abs(value) + radius, radius)
        value = np.where(negligible, 0.0, value)
    status[zero] = Status.INACTIVE
    status[absolute.sum(axis=0) == 0.0] = Status.UNUSED
    return Reading(status, value, radius)
