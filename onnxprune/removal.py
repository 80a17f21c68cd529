"""Removing a set of components: the rewrite, its deviation, and the report, shared by the passes that remove."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups, Reader
from onnxprune.graph.rewrite import Fold, Rewrite, apply, spare_last
from onnxprune.pass_api import PassReport
from onnxprune.removable import Removable, Status


def remove_by_status(graph: Graph, facts: Facts, status: Status) -> PassReport:
    """Remove every component of this status that is not protected."""
    chosen = (facts.removable.status == status) & facts.groups.removable & ~facts.held
    if not chosen.any():
        return PassReport()
    rewrite, deviations = removal(facts.groups, facts.removable, chosen)
    return execute(graph, facts, rewrite, deviations)


def removal(groups: ChannelGroups, found: Removable, chosen: NDArray[np.bool_]) -> tuple[Rewrite, dict[str, float]]:
    """The rewrite that removes the chosen components, and its proved deviation at each edited tensor."""
    chosen = spare_last(groups, chosen)
    rewrite = Rewrite(remove={int(c) for c in np.flatnonzero(chosen)})
    deviations: dict[str, float] = {}
    for number, (reader, reading) in enumerate(zip(groups.readers, found.readings, strict=True)):
        gone = chosen[reader.components]
        folded = gone & (reading.status != Status.UNUSED)
        rewrite.folds += [Fold(number, int(c), float(reading.value[c])) for c in np.flatnonzero(folded)]
        moved = _moved(reader, np.where(folded, reading.radius, 0.0))
        if moved:
            deviations[reader.layer.writes[0]] = moved
    return rewrite, deviations


def _moved(reader: Reader, radius: NDArray[np.float64]) -> float:
    if not radius.any():
        return 0.0
    return float((reader.layer.absolute_columns() @ radius).max()) * (1 + 1e-9)


def execute(graph: Graph, facts: Facts, rewrite: Rewrite, deviations: dict[str, float] | None = None) -> PassReport:
    """Carry out a removal and report it; nothing happens when there is nothing to remove."""
    if not rewrite.remove:
        return PassReport()
    components = sorted(rewrite.remove)
    anywhere = facts.removable_anywhere.status[components]
    domain = bool((anywhere > facts.removable.status[components]).any())
    applied = apply(graph, facts.groups, rewrite)
    return PassReport(
        modified=True,
        removed=applied.removed,
        needed_domain=domain,
        deviations=deviations or {},
        rounding=applied.rounding,
        values_kept=True,
        kept=applied.kept,
        moved=applied.moved,
    )
