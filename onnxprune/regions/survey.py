"""Nodes that bend, without their rows: what bounds the regions of networks too large to count, and of maxima.

Within a region of all earlier nodes a node's inputs are affine in the inputs of the network, so that its units cut the
region by planes: one for each rectifier, one for each pair of candidates of a maximum. On d dimensions P planes cut
out at most sum_{j <= d} C(P, j) regions (Zaslavsky 1975).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.operators.interval import Array
from onnxprune.operators.relaxation import Choices, Pieces
from onnxprune.regions.network import MOST_UNITS
from onnxprune.regions.plan import AFFINE
from onnxprune.regions.reading import Reading
from onnxprune.regions.upper import binomial_sums, montufar
from onnxprune.regions.walker import Definition

FINEST = 4096
"""Units of a network beyond which the number of those that are on is not followed from stage to stage."""
MOST_WORK = 1_000_000
"""Units times directions beyond which meeting one region takes minutes."""


@dataclass(frozen=True)
class Stage:
    """One node that bends.

    Attributes:
        name: Of the pre-activation, or of the maximum.
        width: Entries of its output.
        active: Units that stay on the upper side of their knot; of a maximum: whose largest entry is always the same.
        inactive: Units that stay on the lower side.
        open: Per unit that may switch, in how many ways it can be (2 for a rectifier).
        ways: The same for all units.
        gated: Whether units that are off are constant behind it, as behind Relu.
        plain: Whether it reads the stage before (or, the first, the inputs) and nothing else.
        maximum: Whether it picks the largest or smallest of some entries.
        direct: Whether it reads the inputs of the network.
    """

    name: str
    width: int
    active: int
    inactive: int
    open: tuple[int, ...]
    ways: tuple[int, ...]
    gated: bool
    plain: bool
    maximum: bool
    direct: bool


def survey(reading: Reading, *, include_output: bool = False) -> tuple[Stage, ...]:
    """The nodes of a model that bend, front to back; signs of outputs only if they are asked for."""
    net, plan, stages = reading.net, reading.plan, list[Stage]()
    sources: dict[str, frozenset[str]] = {name: frozenset({""}) for name in net.inputs}  # "" stands for the inputs
    before = ""
    ends = len(net.graph.nodes) - (0 if include_output else len(reading.outputs))
    for position, node in enumerate(net.graph.nodes[:ends]):
        kind = plan.kinds.get(position)
        if kind is None:
            continue
        reads = frozenset().union(*(sources.get(tensor.name, frozenset()) for tensor in node.inputs))
        for tensor in node.outputs:
            sources[tensor.name] = reads if kind == AFFINE else frozenset({tensor.name})
        if isinstance(kind, Pieces):
            stages.append(_rectifier(reading, node, kind, (reads == {before}, "" in reads)))
        elif isinstance(kind, Choices):
            stages.append(_maximum(reading, node, kind, (reads == {before}, "" in reads)))
        else:
            continue
        before = node.outputs[0].name
    return tuple(stages)


def without_rows(stages: Sequence[Stage]) -> str:
    """Why a network is not written out as rows; empty where it can be."""
    maximum = next((stage for stage in stages if stage.maximum), None)
    if maximum is not None:
        return f"'{maximum.name}' is a maximum: its linear regions are bounded, not counted"
    free = sum(len(stage.open) for stage in stages)
    return f"{free} units may switch, too many to count; the limit is {MOST_UNITS}" if free > MOST_UNITS else ""


def too_much_work(stages: Sequence[Stage], dimension: int) -> str:
    """Why regions are not met one by one; empty where they can be."""
    free = sum(len(stage.open) for stage in stages)
    directions = min(dimension, sum(len(stage.open) for stage in stages if stage.direct))
    if free * directions <= MOST_WORK:
        return ""
    return f"{free} units may switch in {directions} directions, too much work to meet a single region"


def bounds_of(stages: Sequence[Stage], dimension: int, definition: Definition) -> dict[str, int | None]:
    """Upper bounds by name; those from the widths hold for cells of networks without shortcuts."""
    closed, plain = definition == "patterns", all(stage.plain for stage in stages) and definition != "patterns"
    rectified = not any(stage.maximum for stage in stages)
    return {
        "trivial": ways(stages),
        "montufar": montufar(dimension, [stage.width for stage in stages]) if plain and rectified else None,
        "serra": most_cells(dimension, stages, everything=True) if plain else None,
        "empirical": ways(stages) if closed else min(ways(stages), most_cells(dimension, stages)),
    }


def ways(stages: Sequence[Stage]) -> int:
    """All combinations of what each unit can be."""
    return math.prod(math.prod(stage.open) for stage in stages)


def most_cells(inputs: int, stages: Sequence[Stage], *, everything: bool = False) -> int:
    """An upper bound on the regions, R(l, d) = sum_{j <= min(d, u_l)} C(P_l, j) R(l + 1, dimension behind).

    P_l planes belong to the u_l units that may switch. Behind Relu the dimension is at most the number of units that
    are on, as in Theorem 1 of Serra, Tjandraatmadja and Ramalingam (2018), which is not followed in huge networks;
    behind maxima it is at most their number, as in Theorem 10 there.

    Args:
        inputs: Dimension of the domain.
        stages: The nodes that bend.
        everything: Let all units switch, whatever is proved about them.
    """
    coarse = sum(len(stage.ways) for stage in stages) > FINEST

    @cache
    def below(number: int, dimension: int) -> int:
        if number == len(stages):
            return 1
        stage = stages[number]
        d = dimension if stage.plain else inputs
        chosen = stage.ways if everything else stage.open
        planes, always = sum(k * (k - 1) // 2 for k in chosen), 0 if everything else stage.active
        most = min(d, len(chosen))
        sums = binomial_sums(planes, most)
        if coarse or not stage.gated:
            return sums[most + 1] * below(number + 1, min(d, stage.width))
        found, first = 0, 0
        for j in range(most + 1):
            on = always + len(chosen) - j
            if j == most or min(d, on) != min(d, on - 1):  # the dimension behind changes with the next one
                found += (sums[j + 1] - sums[first]) * below(number + 1, min(d, on))
                first = j + 1
        return found

    return below(0, inputs)


def _rectifier(reading: Reading, node: gs.Node, kind: Pieces, reads: tuple[bool, bool]) -> Stage:
    net, name = reading.net, node.inputs[0].name
    shape = net.shape(name) or ()
    found = net.flat(reading.bounds, name)
    size = math.prod(shape)
    low, high = found if found is not None else (np.full(size, -np.inf), np.full(size, np.inf))
    off = on = free = 0
    for knot, bend in zip(kind.knots, kind.bends, strict=True):
        at, used = (np.broadcast_to(values, shape).reshape(-1) for values in (knot, bend))
        below, above = (high <= at) & (used != 0), (low >= at) & (high > at) & (used != 0)
        off, on = off + int(below.sum()), on + int(above.sum())
        free += int((used != 0).sum()) - int(below.sum()) - int(above.sum())
    gated = len(kind.knots) == 1 and not np.any(kind.slope)
    return Stage(name, size, on, off, (2,) * free, (2,) * (on + off + free), gated, reads[0], False, reads[1])


def _maximum(reading: Reading, node: gs.Node, kind: Choices, reads: tuple[bool, bool]) -> Stage:
    """A candidate that is always below another one cannot be picked."""
    low, high = (np.concatenate(ends) for ends in zip(*(_ends(reading, t) for t in node.inputs), strict=True))
    if not kind.largest:
        low, high = -high, -low
    present = kind.indices >= 0
    best = np.where(present, low[kind.indices], -np.inf).max(axis=1)
    able = (present & (high[kind.indices] >= best[:, None])).sum(axis=1)
    free: NDArray[np.int64] = able[able > 1]
    count, everything = len(kind.indices), present.sum(axis=1)
    return Stage(
        node.outputs[0].name, count, count - len(free), 0, tuple(free.tolist()), tuple(everything.tolist()), False,
        reads[0], True, reads[1],
    )  # fmt: skip


def _ends(reading: Reading, tensor: gs.Tensor) -> tuple[Array, Array]:
    if isinstance(tensor, gs.Constant):
        values = np.asarray(tensor.values, dtype=np.float64).reshape(-1)
        return values, values
    found, size = reading.net.flat(reading.bounds, tensor.name), reading.net.size(tensor.name) or 0
    return found if found is not None else (np.full(size, -np.inf), np.full(size, np.inf))
