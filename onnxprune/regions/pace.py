"""How much to do between two looks at the clock, where a programme takes microseconds or a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from onnxprune.regions.walker import Walker

Found = TypeVar("Found")

MOMENT = 0.05
"""Seconds between two looks at the clock, about."""
MOST = 1 << 16
"""Programmes between them."""


class Pace:
    """Walks on for a moment at a time, whatever a programme costs."""

    def __init__(self) -> None:
        self._programmes = 1

    def count(self, walker: Walker, most: int = MOST) -> tuple[int, bool]:
        """:meth:`Walker.count` for about a moment, and for so many programmes at most."""
        return self.walk(walker, walker.count, most)

    def walk(self, walker: Walker, work: Callable[[int], Found], most: int = MOST) -> Found:
        """Work that a walker does for a given number of programmes, for about a moment."""
        before, began = walker.programmes, time.perf_counter()
        found = work(min(most, self._programmes))
        spent, solved = time.perf_counter() - began, walker.programmes - before
        if spent < MOMENT / 2:
            self._programmes = min(MOST, 2 * self._programmes)
        elif solved:
            self._programmes = max(1, int(solved * MOMENT / spent))
        return found
