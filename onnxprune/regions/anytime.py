"""An interval around the number of regions that closes: what was counted, and a bound on each open node."""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from onnxprune.regions.network import Pattern, RegionNetwork
from onnxprune.regions.order import leaning_first
from onnxprune.regions.pace import Pace
from onnxprune.regions.upper import Remaining
from onnxprune.regions.walker import TOLERANCE, Definition, Walker

COUNTED_AT_ONCE = 4096
"""Nodes with a bound below this are counted rather than split."""
MOST_OPEN = 20_000
"""Open nodes beyond which the smallest is counted first."""
SLICE = 5000
"""Programmes before a count is set aside."""


@dataclass(frozen=True)
class Interval:
    """What is known at one moment.

    Attributes:
        lower: Regions counted, and one for each open node.
        upper: Regions counted, and the bound of each open node.
        open: Open nodes.
        doubts: Decisions that depend on the tolerance.
        seconds: Since the start.
    """

    lower: int
    upper: int
    open: int
    doubts: int
    seconds: float

    @property
    def exact(self) -> bool:
        """Whether it is a single number."""
        return self.lower == self.upper


def narrow(
    network: RegionNetwork,
    definition: Definition = "cells",
    *,
    tolerance: float = TOLERANCE,
    budget: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Interval]:
    """Intervals that only get narrower; the last one is a single number unless the budget ends first.

    The node with the largest bound is split first. For "affine" only the upper end holds below the first region.

    Args:
        network: The network.
        definition: What counts as a region.
        tolerance: See :func:`~onnxprune.regions.exact.count_exactly`.
        budget: Seconds.
        stopped: Asked between steps.
    """
    began = time.monotonic()
    network = leaning_first(network)
    walker, bounds = Walker(network, definition, tolerance), Remaining(network, closed=definition == "patterns")
    serial = itertools.count()
    nodes: list[tuple[int, int, Pattern]] = []  # a heap, largest bound first
    counted, open_bound, pace = 0, 0, Pace()
    best = [1, bounds.bound(())]

    def push(prefix: Pattern) -> None:
        nonlocal counted, open_bound
        if len(prefix) == walker.depth:
            counted += 1
            return
        bound = bounds.bound(prefix)
        open_bound += bound
        heapq.heappush(nodes, (-bound, next(serial), prefix))

    def state() -> Interval:
        low = 1 if definition == "affine" else counted + len(nodes)
        best[0], best[1] = max(best[0], low), min(best[1], counted + open_bound)
        return Interval(best[0], max(best), len(nodes), walker.doubts, time.monotonic() - began)

    push(())
    yield state()
    while nodes and not stopped() and time.monotonic() - began < budget:
        crowded = len(nodes) > MOST_OPEN
        negative, _, prefix = nodes.pop() if crowded else heapq.heappop(nodes)
        open_bound += negative
        if -negative > COUNTED_AT_ONCE and not crowded:
            for child in _children(walker, prefix):
                push(child)
        else:
            walker.move(prefix)
            found, _ = pace.count(walker, SLICE)
            counted += found
            for child in walker.open_nodes():
                push(child)
        yield state()


def _children(walker: Walker, prefix: Pattern) -> list[Pattern]:
    """The nodes behind the next cut that has two sides, or the single region there is."""
    walker.move(prefix)
    while len(walker.prefix) < walker.depth:
        before = walker.prefix
        sides = walker.sides()
        if len(sides) == 2:
            return [(*before, side) for side in sides]
    return [walker.prefix]
