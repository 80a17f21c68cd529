"""Remove units that output a constant: into the next bias, or onto one carrier channel per padded convolution."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups
from onnxprune.graph.rewrite import Fold, Move
from onnxprune.pass_api import Exactness, PassReport
from onnxprune.removable import Removable, Status
from onnxprune.removal import execute, removal, remove_by_status


@dataclass(frozen=True)
class FoldConstant:
    """Fold constant channels into biases; into zero-padded convolutions through a carrier.

    A zero-padded convolution sees 0 instead of the constant at its border, so its bias cannot take the
    constant over. One constant channel is kept instead and carries the columns of all the others, scaled by
    the ratio of their constants. It pays from two constants on.
    """

    name: ClassVar[str] = "fold_constant"
    exactness: ClassVar[Exactness] = Exactness.ON_DOMAIN
    order: ClassVar[int | None] = 30

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Fold what can go into biases; where nothing (more) can, use carriers."""
        report = remove_by_status(graph, facts, Status.CONSTANT)
        return report if report.modified else _carry(graph, facts)


@dataclass(frozen=True)
class _Bundle:
    """Constant components that the same layers read: all but the carrier can go."""

    carrier: int
    others: tuple[int, ...]


def _carry(graph: Graph, facts: Facts) -> PassReport:
    groups, found = facts.groups, facts.removable
    bundles = _bundles(groups, found, found.status == Status.CARRIED)
    chosen = np.zeros(groups.count, dtype=bool)
    carrier_of: dict[int, int] = {}
    for bundle in bundles:
        for component in bundle.others:
            if not facts.held[component]:
                chosen[component] = True
                carrier_of[component] = bundle.carrier
    if not chosen.any():
        return PassReport()
    rewrite, deviations = removal(groups, found, chosen)
    folds, moves = [], []
    for fold in rewrite.folds:
        reader, reading = groups.readers[fold.reader], found.readings[fold.reader]
        if reading.status[fold.channel] != Status.CARRIED:
            folds.append(fold)
            continue
        carrier = carrier_of[int(reader.components[fold.channel])]
        onto = int(np.flatnonzero(reader.components == carrier)[0])
        factor = fold.value / float(reading.value[onto])
        moves.append(Move(fold.reader, fold.channel, onto, factor))
        wobble = abs(factor) * _wobble(groups, found, fold, onto)
        if wobble:
            edited = reader.layer.writes[0]
            deviations[edited] = deviations.get(edited, 0.0) + wobble
    rewrite.folds, rewrite.moves = folds, moves
    return execute(graph, facts, rewrite, deviations)


def _wobble(groups: ChannelGroups, found: Removable, fold: Fold, onto: int) -> float:
    """How far a carrier that is not perfectly constant moves what the removed channel contributed."""
    radius = float(found.readings[fold.reader].radius[onto])
    if not radius:
        return 0.0
    return radius * float(groups.readers[fold.reader].layer.absolute_columns()[:, fold.channel].max())


def _bundles(groups: ChannelGroups, found: Removable, carried: np.ndarray) -> list[_Bundle]:
    """Bundle components by the layers that need a carrier for them; a carrier needs a non-zero value in each."""
    where: dict[int, dict[int, int]] = defaultdict(dict)
    repeated: set[int] = set()
    for number, (reader, reading) in enumerate(zip(groups.readers, found.readings, strict=True)):
        for channel in np.flatnonzero(carried[reader.components]):
            component = int(reader.components[channel])
            if number in where[component]:
                repeated.add(component)
            where[component][number] = int(channel)
            if reading.status[channel] != Status.CARRIED:
                where[component][number] = -1 - int(channel)
    families: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for component, readers in where.items():
        if component not in repeated:
            families[tuple(sorted(n for n, c in readers.items() if c >= 0))].append(component)
    bundles = []
    for numbers, components in families.items():
        weakest = {c: min(abs(float(found.readings[n].value[where[c][n]])) for n in numbers) for c in components}
        carrier = max(components, key=lambda c: weakest[c])
        others = tuple(c for c in components if c != carrier)
        if others and weakest[carrier] > 0.0:
            bundles.append(_Bundle(carrier, others))
    return bundles
