"""Which removable units to keep so that channel counts are multiples of 4, 8 or 16."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnxprune.graph.graph import label
from onnxprune.graph.groups import ChannelGroups

MULTIPLES = (1, 4, 8, 16)
METADATA_KEY = "onnxprune.align"
REJECTED = 0
"""Recorded where every smaller variant was measured slower, so that a second run changes nothing."""

Kept = dict[str, NDArray[np.int64]]
"""Per layer the indices (in the tidied model) of the units that stay."""


def protect(groups: ChannelGroups, kept: Kept, multiple: int) -> dict[str, frozenset[int]]:
    """Units to keep after all, so that every layer's count is rounded up to a multiple.

    Args:
        groups: Channel groups of the tidied model.
        kept: What stayed when everything removable was removed.
        multiple: Counts are rounded up to it, but never beyond what the layer had.

    Returns:
        Indices of the units that stay per layer; units of one component stay together.
    """
    layers = {label(units.node): units.components for units in groups.units}
    members: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for name, components in layers.items():
        for index, component in enumerate(components):
            members[int(component)].append((name, index))
    stays = {name: np.isin(np.arange(len(c)), kept.get(name, np.arange(len(c)))) for name, c in layers.items()}
    growing = True
    while growing:  # layers that share channels push one another up
        growing = False
        for name, components in layers.items():
            target = min(-(-int(stays[name].sum()) // multiple) * multiple, len(components))
            for index, component in enumerate(components):
                if int(stays[name].sum()) >= target:
                    break
                if not stays[name][index]:
                    growing = True
                    for other, place in members[int(component)]:
                        stays[other][place] = True
    return {name: frozenset(int(i) for i in np.flatnonzero(mask)) for name, mask in stays.items()}


def translate(protected: Mapping[str, frozenset[int]], kept: Kept) -> dict[str, frozenset[int]]:
    """Protected units in the numbering of a model from which some units are gone already."""
    return {
        name: frozenset(int(i) for i in np.flatnonzero(np.isin(kept[name], list(indices)))) if name in kept else indices
        for name, indices in protected.items()
    }
