"""Exact counts: subtrees of the depth-first walk in parallel, kept on disk as they finish, an interval at any time."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnxprune.errors import InputError
from onnxprune.regions.affine import merged
from onnxprune.regions.network import Pattern, RegionNetwork
from onnxprune.regions.order import leaning_first
from onnxprune.regions.pace import Pace
from onnxprune.regions.upper import Remaining
from onnxprune.regions.walker import TOLERANCE, Definition, Walker
from onnxprune.workers import Workers

SUBTREES = 24
"""Subtrees per process, so that none waits long for the last one."""


@dataclass(frozen=True)
class Count:
    """How many regions there are.

    Attributes:
        lower: At least so many.
        upper: At most so many.
        definition: What counts as a region.
        tolerance: Thinner regions are not seen.
        doubts: Decisions that depend on the tolerance.
        programmes: Linear programmes solved.
        seconds: Wall time.
    """

    lower: int
    upper: int
    definition: Definition
    tolerance: float
    doubts: int
    programmes: int
    seconds: float

    @property
    def exact(self) -> bool:
        """Whether the walk came to its end."""
        return self.lower == self.upper

    @property
    def tolerance_sensitive(self) -> bool:
        """Whether a tolerance 1000 times smaller might find more; otherwise every decision is proved to hold there."""
        return self.doubts > 0


@dataclass(frozen=True)
class _Subtree:
    prefix: Pattern
    leaves: int
    upper: int
    doubts: int
    programmes: int
    finished: bool


def count_exactly(
    network: RegionNetwork,
    definition: Definition = "cells",
    *,
    tolerance: float = TOLERANCE,
    jobs: int = 1,
    executor: Executor | None = None,
    budget: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
    store: Path | str | None = None,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Count:
    """Count the regions of a network over its domain.

    Args:
        network: The network.
        definition: "cells": patterns whose open cell meets the domain; "patterns": non-empty sets of g > 0 and
            g <= 0; "affine": cells, merged where they touch and have the same affine map of the outputs.
        tolerance: Least slack in a region, as a share of the half-range of a pre-activation over the box.
        jobs: Processes.
        executor: Takes the place of own processes.
        budget: Seconds.
        stopped: Asked often; once true, the interval found so far is returned.
        store: A file to which finished subtrees are appended; what it holds is not counted again.
        progress: Told how many subtrees are done, and of how many.

    Returns:
        An interval; a single number unless the budget ran out. For "affine" it is known at the end only.

    Raises:
        InputError: The domain is empty, or the store belongs to another count.
    """
    began = time.time()
    given, network = network, leaning_first(network)
    walker = Walker(network, definition, tolerance)
    parts = SUBTREES * jobs if jobs > 1 or store is not None or executor is not None else 1
    prefixes = _frontier(walker, parts, began + budget)
    before = (walker.doubts, walker.programmes)
    journal = _Journal(store, walker)
    known = {prefix: found for prefix in prefixes if (found := journal.found.get(prefix)) is not None}
    todo = [prefix for prefix in prefixes if prefix not in known]
    bounds = Remaining(network, closed=definition == "patterns")
    results = {prefix: _Subtree(prefix, 1, max(1, bounds.bound(prefix)), 0, 0, False) for prefix in todo} | known
    progress(len(known), len(prefixes))
    if todo:
        halt = stopped if jobs == 1 and executor is None else None
        work = partial(_subtree, network, definition, tolerance, began + budget, halt)
        with Workers(jobs, executor) as workers:
            for index, found in workers.run(
                work, todo, stopped=lambda: stopped() or time.time() > began + budget + _grace(jobs)
            ):
                results[todo[index]] = found
                journal.add(found)
                progress(sum(r.finished for r in results.values()), len(prefixes))
    lower, upper = sum(r.leaves for r in results.values()), sum(r.upper for r in results.values())
    doubts = before[0] + sum(r.doubts for r in results.values())
    programmes = before[1] + sum(r.programmes for r in results.values())
    upper = max(lower, min(upper, bounds.bound(())))
    count = Count(lower, upper, definition, tolerance, doubts, programmes, time.time() - began)
    if definition != "affine":
        return count
    pieces = merged(given, tolerance, lambda: stopped() or time.time() > began + budget) if count.exact else None
    least, most = (1, upper) if pieces is None else (pieces, pieces)
    return replace(count, lower=least, upper=most, seconds=time.time() - began)


def _grace(jobs: int) -> float:
    """Processes look at the clock themselves; they are given a moment to say what they have."""
    return 0.0 if jobs == 1 else 2.0


def _frontier(walker: Walker, wanted: int, deadline: float) -> list[Pattern]:
    """All nodes at the first depth that has enough of them, or at the last one reached in time."""
    found: list[Pattern] = [()]
    for floor in range(1, walker.depth + 1):
        if len(found) >= wanted or time.time() > deadline:
            break
        walker.move(())
        rows, done = walker.collect(floor, most=64 * wanted)
        if not done:
            break
        found = [tuple(int(bit) for bit in row) for row in rows]
    return found


def _subtree(
    network: RegionNetwork,
    definition: Definition,
    tolerance: float,
    deadline: float,
    stopped: Callable[[], bool] | None,
    prefix: Pattern,
) -> _Subtree:
    """Count below a node until the deadline."""
    walker = Walker(network, definition, tolerance)
    walker.move(prefix)
    start, leaves, done, pace = walker.programmes, 0, False, Pace()
    while not done:
        found, done = pace.count(walker)
        leaves += found
        if not done and (time.time() > deadline or (stopped is not None and stopped())):
            break
    still = walker.open_nodes()
    bounds = Remaining(network, closed=definition == "patterns")
    upper = min(leaves + sum(bounds.bound(node) for node in still), bounds.bound(prefix))
    leaves += len(still)
    return _Subtree(prefix, leaves, max(leaves, upper), walker.doubts, walker.programmes - start, done)


class _Journal:
    """Finished subtrees, one line of JSON each, below a line that says what is counted."""

    def __init__(self, path: Path | str | None, walker: Walker) -> None:
        self.path = None if path is None else Path(path)
        self.found: dict[Pattern, _Subtree] = {}
        if self.path is None:
            return
        head = {"network": _digest(walker.network), "definition": walker.definition, "tolerance": walker.tolerance}
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.exists() else ""
        lines = text.splitlines(keepends=True)
        first = json.dumps(head) + "\n"
        if len(text) < len(first) and first.startswith(text):  # new, or killed while it was begun
            self.path.write_text(first, encoding="utf-8")
            return
        if _parsed(lines[0]) != head:
            raise InputError(f"'{self.path}' holds another count.", hint="Take another file, or remove this one.")
        self._read(lines[1:])
        if not text.endswith("\n"):  # a run was killed while it wrote
            self.path.write_text("".join(line for line in lines if line.endswith("\n")), encoding="utf-8")

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            entry = _parsed(line)
            if line.endswith("\n") and entry and {"prefix", "count", "doubts"} <= entry.keys():
                prefix, count = tuple(int(bit) for bit in str(entry["prefix"])), int(entry["count"])
                self.found[prefix] = _Subtree(prefix, count, count, int(entry["doubts"]), 0, True)

    def add(self, found: _Subtree) -> None:
        """Append a subtree that was walked to its end."""
        if self.path is None or not found.finished:
            return
        entry = {"prefix": "".join(map(str, found.prefix)), "count": found.leaves, "doubts": found.doubts}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _digest(network: RegionNetwork) -> str:
    found = hashlib.sha256()
    for array in (network.low, network.high, network.rows, network.limits):
        found.update(array.tobytes())
    for layer in network.layers:
        found.update(str(layer.weights.shape).encode() + layer.weights.tobytes() + layer.bias.tobytes())
    return found.hexdigest()
