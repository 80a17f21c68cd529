"""Carrying proved bounds along when a pass has changed the graph, so that no proof is lost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.bounds import Bounds
from onnxprune.bounds.deviation import changes
from onnxprune.graph.graph import Graph
from onnxprune.operators import Interval
from onnxprune.operators.interval import down, up
from onnxprune.pass_api import PassReport


def carried(known: Mapping[str, Interval], report: PassReport, graph: Graph, bounds: Bounds) -> dict[str, Interval]:
    """Bounds that still hold after a pass.

    Args:
        known: Bounds by tensor before it.
        report: What the pass did.
        graph: The graph as it is now.
        bounds: Bounds on its tensors.

    Returns:
        Indices that went are taken out, those that mean something else are unbounded, the rest is widened by what
        the pass may have changed. Nothing where the pass does not say which values it kept.
    """
    if not report.values_kept:
        return {}
    seeds = dict(report.moved)
    for name, amount in report.deviations.items():
        seeds[name] = seeds.get(name, 0.0) + amount
    drift = changes(graph, seeds, bounds) if seeds else {}
    result = {}
    for name, interval in known.items():
        still = _indices(name, interval, report)
        if still is not None and name in graph.types:
            result[name] = _widened(still, drift.get(name, 0.0))
    return result


def _indices(name: str, interval: Interval, report: PassReport) -> Interval | None:
    """Bounds in the new numbering; None where they do not fit the axes that the report speaks of."""
    for (tensor, axis), kept in report.kept.items():
        if tensor == name and interval.ndim:
            if axis >= interval.ndim:
                return None
            if interval.shape[axis] > 1:
                if interval.shape[axis] <= int(kept.max(initial=0)):
                    return None
                interval = interval.map(lambda ends, at=axis, k=kept: np.take(ends, k, axis=at))  # type: ignore[misc]
    for (tensor, axis), places in report.replaced.items():
        if tensor == name:
            if axis >= interval.ndim or interval.shape[axis] == 1:
                return None
            low, high = (np.moveaxis(end.copy(), axis, 0) for end in (interval.lower, interval.upper))
            low[places], high[places] = -np.inf, np.inf
            interval = Interval.of(np.moveaxis(low, 0, axis), np.moveaxis(high, 0, axis))
    return interval


def _widened(interval: Interval, amount: float) -> Interval:
    if amount == 0:
        return interval
    return Interval.of(down(interval.lower - amount), up(interval.upper + amount))
