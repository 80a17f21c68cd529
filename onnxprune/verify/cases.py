"""Case distinctions that cover the domain: sub-boxes of an input, and phases of units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.reasons import Rejected

Floats = NDArray[np.float64]
Phase = tuple[str, int, bool]
"""A pre-activation, one of its entries, and whether it is at least 0 (else at most 0)."""


@dataclass(frozen=True)
class Cuts:
    """A tree of cuts through a box, the parts below a cut first, depth first.

    Attributes:
        source: The input that is cut.
        axes: Per node of the tree the entry of the input that is cut, -1 for a leaf.
        places: Per node where it is cut.
    """

    source: str
    axes: NDArray[np.int64]
    places: Floats

    def leaves(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Ends of the sub-boxes, shape (leaves, entries); together they are the box.

        Raises:
            Rejected: It is no tree.
        """
        found: list[tuple[Floats, Floats]] = []
        todo = [(low, high)]
        for axis, place in zip(self.axes.tolist(), self.places.tolist(), strict=True):
            if not todo:
                raise Rejected("a tree of cuts has nodes that belong to nothing")
            least, most = todo.pop()
            if axis < 0:
                found.append((least, most))
                continue
            if axis >= len(least) or not least[axis] <= place <= most[axis]:
                raise Rejected(f"a cut of {self.source} at {place} lies outside its box")
            left, right = most.copy(), least.copy()
            left[axis] = right[axis] = place
            todo += [(right, most), (least, left)]
        if todo:
            raise Rejected("a tree of cuts does not cover the box")
        return np.array([pair[0] for pair in found]), np.array([pair[1] for pair in found])


def covers(leaves: Sequence[Sequence[Phase]]) -> bool:
    """Whether every input belongs to one of some cases, each given by phases that hold in it."""
    todo = [[tuple(leaf) for leaf in leaves]]
    steps = 0
    while todo:
        cases, steps = todo.pop(), steps + 1
        if not cases or steps > 10 * len(leaves) + 10:
            return False
        if any(not case for case in cases):
            continue
        tensor, entry, _ = cases[0][0]
        for active in (True, False):
            todo.append([
                tuple(phase for phase in case if phase[:2] != (tensor, entry))
                for case in cases
                if (tensor, entry, not active) not in case
            ])  # fmt: skip
    return True
