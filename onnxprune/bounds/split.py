"""Input splitting: the box is cut into sub-boxes, and every open unit is bounded in all of them.

A bound over the whole box is the worst over the sub-boxes that cover it. Where inputs are few this proves far more
than any bound over the box at once. The sub-box that is worst for most units is cut next, along the input whose
width moves the open units most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.bounds.backward import Backward, Box, Shared, first_lines, second_lines
from onnxprune.bounds.static import StaticGraph
from onnxprune.operators.interval import Array

BATCH = 2**25
"""Coefficients held at once."""


@dataclass(frozen=True)
class Target:
    """Entries of one tensor to bound, and what decides them.

    Attributes:
        tensor: A pre-activation.
        low: Shape (entries,); bounds known so far.
        high: Shape (entries,).
        below: Entries (indices) whose upper bound matters: candidates for never exceeding 0.
        above: Entries whose lower bound matters.
    """

    tensor: str
    low: Array
    high: Array
    below: NDArray[np.int64]
    above: NDArray[np.int64]


@dataclass
class Leaves:
    """Sub-boxes that cover the domain, with bounds per target.

    Attributes:
        low: Shape (leaves, inputs).
        high: Shape (leaves, inputs).
        ends: Per tensor lower and upper bounds, each of shape (leaves, entries).
    """

    low: Array
    high: Array
    ends: dict[str, Box]

    @property
    def count(self) -> int:
        """Number of sub-boxes."""
        return len(self.low)

    def hull(self, tensor: str) -> tuple[Array, Array]:
        """Bounds on a tensor over the whole domain."""
        low, high = self.ends[tensor]
        return low.min(axis=0), high.max(axis=0)


class Splitter:
    """Cuts the box of a graph's only input.

    Args:
        net: The graph.
        source: Name of the input.
        box: Its ends, flat.
        targets: What to bound, from front to back; earlier ones also serve the later ones.
        boxes: Bounds on all tensors over the whole box.
    """

    def __init__(
        self,
        net: StaticGraph,
        source: str,
        box: tuple[Array, Array],
        targets: Sequence[Target],
        boxes: dict[str, Box],
    ) -> None:
        self.net = net
        self.source = source
        self.targets = list(targets)
        self.boxes = boxes
        low, high = box[0][None], box[1][None]
        self.leaves = Leaves(low, high, self._bound(low, high, None))

    def run(self, most: int, stopped: Callable[[], bool]) -> Leaves:
        """Cut until nothing is open, there are ``most`` sub-boxes, or time is up."""
        while self.leaves.count < most and not stopped():
            scores = self._scores()
            wanted = np.flatnonzero(scores > 0)
            if not len(wanted):
                break
            room = min(most - self.leaves.count, max(1, self.leaves.count), self._batch())
            self._cut(wanted[np.argsort(-scores[wanted])][:room])
        return self.leaves

    def _batch(self) -> int:
        widest = max((len(t.low) for t in self.targets), default=1)
        return max(1, BATCH // (4 * widest * widest))

    def _scores(self) -> Array:
        """How much of what is open each sub-box is to blame for."""
        scores = np.zeros(self.leaves.count)
        for target in self.targets:
            low, high = self.leaves.ends[target.tensor]
            for values, units in ((high, target.below), (-low, target.above)):
                over = np.maximum(values[:, units], 0.0)
                worst = over.max(axis=0, initial=0.0)
                # a unit that is nearly proved is worth more than one that is hopeless
                reach = np.maximum(np.abs(target.low[units]), np.abs(target.high[units]))
                scores += (over / np.where(worst > 0, worst + 0.1 * reach, 1.0)).sum(axis=1)
        return scores

    def _cut(self, which: NDArray[np.int64]) -> None:
        low, high = self.leaves.low[which], self.leaves.high[which]
        axis = self._axis(which)
        rows = np.arange(len(which))
        middle = low[rows, axis] / 2 + high[rows, axis] / 2
        left_high, right_low = high.copy(), low.copy()
        left_high[rows, axis] = middle
        right_low[rows, axis] = middle
        new_low, new_high = np.concatenate([low, right_low]), np.concatenate([left_high, high])
        parents = {name: (ends[0][which], ends[1][which]) for name, ends in self.leaves.ends.items()}
        twice = {name: (np.concatenate([a, a]), np.concatenate([b, b])) for name, (a, b) in parents.items()}
        ends = self._bound(new_low, new_high, twice)
        keep = np.ones(self.leaves.count, dtype=bool)
        keep[which] = False
        old = self.leaves
        self.leaves = Leaves(
            np.concatenate([old.low[keep], new_low]),
            np.concatenate([old.high[keep], new_high]),
            {
                name: (
                    np.concatenate([old.ends[name][0][keep], ends[name][0]]),
                    np.concatenate([old.ends[name][1][keep], ends[name][1]]),
                )
                for name in ends
            },
        )

    def _axis(self, which: NDArray[np.int64]) -> NDArray[np.int64]:
        """The input whose width moves most, by the coefficients of the last bounds."""
        width = self.leaves.high[which] - self.leaves.low[which]
        return np.asarray((width * self._influence[None, :]).argmax(axis=1))

    def _bound(self, low: Array, high: Array, parents: dict[str, Box] | None) -> dict[str, Box]:
        """Bounds on all targets in some sub-boxes."""
        boxes: dict[str, Box] = {**self.boxes, self.source: (low, high)}
        found: dict[str, Box] = {}
        shared = Shared()
        count = len(low)
        influence = np.zeros(low.shape[1])
        for target in self.targets:
            known = self.boxes[target.tensor] if parents is None else parents[target.tensor]
            least, most = (np.broadcast_to(end, (count, len(target.low))).copy() for end in known)
            units = np.flatnonzero(((least < 0) & (most > 0)).any(axis=0))
            if len(units):
                rows = np.zeros((2 * len(units), len(target.low)))
                rows[np.arange(len(units)), units] = 1.0
                rows[len(units) + np.arange(len(units)), units] = -1.0
                best = np.full((count, len(rows)), -np.inf)
                for lines in (first_lines, second_lines):
                    walk = Backward.start(self.net, target.tensor, rows, boxes, lines, shared)
                    walk.run()
                    if self.source in walk.open:
                        influence += np.abs(walk.open[self.source]).mean(axis=(0, 1)) / len(self.targets)
                    best = np.maximum(best, walk.lower())
                least[:, units] = np.maximum(least[:, units], best[:, : len(units)])
                most[:, units] = np.minimum(most[:, units], -best[:, len(units) :])
            boxes[target.tensor] = found[target.tensor] = (least, most)
        self._influence = influence
        return found
