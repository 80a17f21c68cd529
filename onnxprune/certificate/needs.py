"""What has to be proved anew: entries of pre-activations that have to be on one side of a threshold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.forward import Given
from onnxprune.verify.meanings import meaning
from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval
from onnxprune.verify.sides import Side, Walk, touch
from onnxprune.verify.states import states
from onnxprune.verify.terms import Indices

Floats = NDArray[np.float64]


class Need(NamedTuple):
    """Entries of a pre-activation have to be at most (``upper``) or at least a threshold."""

    tensor: str
    upper: bool
    knot: float


def used_by(before: Network, hoped: Mapping[str, Interval], walks: Sequence[Walk]) -> dict[Need, Indices]:
    """What the states of rows rest on that activations of the original were passed with."""
    needs: dict[Need, set[int]] = defaultdict(set)
    side = Side(before, hoped, False)
    for walk in walks:
        node = next(n for n in before.readers[walk.source] if walk.result in n.outputs)
        told = meaning(side.given(node))
        if told is None or told.straight is None:
            continue
        for found in states(side, walk):
            if found.state == "active":
                note(needs, before, walk.source, walk.axis, found.units, told.straight)
            elif found.state == "inactive":
                places = _places(before, walk.source, walk.axis, found.units)
                needs[Need(walk.source, True, told.straight[0])] |= places
    return in_order(needs)


def idle(before: Network, plain: Mapping[str, Interval], hoped: Mapping[str, Interval]) -> dict[Need, Indices]:
    """All entries that never reach the straight range of their activation, as far as intervals do not show that."""
    needs: dict[Need, set[int]] = defaultdict(set)
    for node in before.nodes:
        told = meaning(Given(node, before, hoped, False))
        shape = before.sample(node.inputs[0]) if told is not None and told.straight is not None else None
        if told is None or told.straight is None or shape is None:
            continue
        tensor, knot = node.inputs[0], told.straight[0]
        low, high = (np.broadcast_to(end, shape).reshape(-1) for end in hoped[tensor].floats())
        most = np.broadcast_to(plain[tensor].floats()[1], shape).reshape(-1)
        stays = (high <= knot + touch(low, high)) & (most > knot)
        needs[Need(tensor, True, knot)] |= set(np.flatnonzero(stays).tolist())
    return in_order(needs)


def note(
    needs: dict[Need, set[int]],
    net: Network,
    tensor: str,
    axis: int,
    units: Indices,
    straight: tuple[float, float],
) -> None:
    """Rows that have to stay in the straight range of an activation."""
    for upper, knot in ((False, straight[0]), (True, straight[1])):
        if np.isfinite(knot):
            needs[Need(tensor, upper, knot)] |= _places(net, tensor, axis, units)


def _places(net: Network, tensor: str, axis: int, units: Indices) -> set[int]:
    """Entries of some rows."""
    shape = net.sample(tensor)
    if shape is None:
        return set()
    places = np.moveaxis(np.arange(int(np.prod(shape))).reshape(shape), axis, 0)
    return set(places[units].reshape(-1).tolist())


def active_rows(after: Network, unsure: Mapping[str, set[int]]) -> dict[Need, Indices]:
    """Entries of the optimized model that have to stay where their activation changes nothing."""
    needs: dict[Need, set[int]] = defaultdict(set)
    for tensor, rows in unsure.items():
        shape = after.sample(tensor)
        for reader in after.readers.get(tensor, []):
            told = meaning(Given(reader, after, {}, False))
            if shape is not None and told is not None and told.straight is not None:
                note(needs, after, tensor, min(1, len(shape) - 1), np.array(sorted(rows)), told.straight)
    return in_order(needs)


def in_order(needs: Mapping[Need, set[int]]) -> dict[Need, Indices]:
    """Needs as sorted arrays."""
    found: dict[Need, Indices] = defaultdict(lambda: np.zeros(0, np.int64))
    for need, entries in needs.items():
        if entries:
            found[need] = np.array(sorted(entries), dtype=np.int64)
    return dict(found)
