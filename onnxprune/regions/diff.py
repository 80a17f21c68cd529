"""Did a rewrite keep the linear regions? Regions of two networks matched by points deep inside them.

Where both networks can be enumerated, every cell of the one is represented by its deepest point, and the other network
says in which of its cells that point lies. If these two maps are inverse to one another, cells correspond one to one;
the affine maps of corresponding cells are compared, too. Where a network is too large, pairs of nearby points that lie
in the same cell of one network but not of the other are counted: that can show that regions were lost, and never prove
that they were kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxprune.errors import InputError
from onnxprune.operators.interval import Array
from onnxprune.regions.interior import interior
from onnxprune.regions.network import Pattern, RegionNetwork
from onnxprune.regions.walker import Walker

MOST = 20_000
"""Cells up to which networks are enumerated."""
BATCH = 512
PAIRS = 4000
"""Pairs of points where there are too many cells."""


@dataclass(frozen=True)
class Difference:
    """What two networks have in common.

    Attributes:
        count: Cells of either network; None where they were not enumerated.
        matched: Cells that correspond one to one.
        lost: Cells of the first without a counterpart.
        new: Cells of the second without one.
        deviation: Largest difference between the outputs' affine maps on matched cells, at their deepest points and in
            the slopes times the half-widths of the box; None where outputs are not known or do not fit.
        unclear: Cells without a point inside that the check of a linear programme confirms; they are left out.
        pairs: Pairs of points compared instead, and how many of them the networks see differently.
        seconds: Wall time.
    """

    count: tuple[int, int] | None
    matched: int
    lost: int
    new: int
    deviation: float | None
    unclear: int
    pairs: tuple[int, int] | None
    seconds: float

    @property
    def same(self) -> bool | None:
        """Whether the cells correspond one to one; None where that is not known."""
        if self.count is None:
            return False if self.pairs is not None and self.pairs[1] else None
        return None if self.unclear else self.lost == self.new == 0

    def line(self) -> str:
        """What is known, in one sentence."""
        if self.count is None:
            pairs, other = self.pairs or (0, 0)
            if other:
                return f"Regions differ: {other} of {pairs} pairs of nearby points share a cell in one network only."
            return f"Not decided: too many cells to match; {pairs} pairs of nearby points show no difference."
        one, two = self.count
        text = f"{self.matched} cells correspond one to one (exact); {self.lost} of {one} lost, {self.new} of {two} new"
        if self.unclear:
            text += f"; {self.unclear} too thin to represent by a point"
        if self.deviation is not None:
            text += f"; their affine maps differ by at most {self.deviation:.2g}"
        return f"{text}."


def compare(
    first: RegionNetwork,
    second: RegionNetwork,
    *,
    budget: float = np.inf,
    most: int = MOST,
    seed: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> Difference:
    """Compare the cells of two networks over the same domain.

    Args:
        first: Such as the original.
        second: Such as the compressed network.
        budget: Seconds; half of them may go into the enumeration.
        most: Cells up to which the networks are enumerated.
        seed: Of the points.
        stopped: Asked between steps.

    Raises:
        InputError: The inputs do not fit.
    """
    began = time.perf_counter()
    if first.low.shape != second.low.shape or (first.low != second.low).any() or (first.high != second.high).any():
        raise InputError(
            "The two models have different inputs or domains.", hint="Compare a model with its own rewrite."
        )

    def over() -> bool:
        return stopped() or time.perf_counter() - began > budget

    cells = [_cells(network, most, over) for network in (first, second)]
    points = [
        None if found is None else _points(network, found, over)
        for network, found in zip((first, second), cells, strict=True)
    ]
    if points[0] is None or points[1] is None:
        pairs = _pairs(first, second, seed)
        return Difference(None, 0, 0, 0, None, 0, pairs, time.perf_counter() - began)
    return _matched(first, second, points[0], points[1], began)


def _cells(network: RegionNetwork, most: int, over: Callable[[], bool]) -> list[Pattern] | None:
    """All cells; None where they are too many or time is up."""
    if not network.unstable:
        return [()]
    walker, done = Walker(network), False
    found: list[Pattern] = []
    while not done:
        if over() or len(found) > most:
            return None
        rows, done = walker.collect(most=BATCH)
        found += [tuple(row) for row in rows.tolist()]
    return found if len(found) <= most else None


def _points(
    network: RegionNetwork, cells: list[Pattern], over: Callable[[], bool]
) -> dict[Pattern, Array | None] | None:
    """The deepest point of every cell; None for a cell in which none is confirmed."""
    found: dict[Pattern, Array | None] = {}
    for cell in cells:
        if over():
            return None
        inside = interior(network, cell) if cell else (network.low / 2 + network.high / 2, 1.0)
        good = inside is not None and inside[1] > 0 and network.pattern_at(inside[0]) == cell
        found[cell] = inside[0] if inside is not None and good else None
    return found


def _matched(
    first: RegionNetwork,
    second: RegionNetwork,
    ones: dict[Pattern, Array | None],
    twos: dict[Pattern, Array | None],
    began: float,
) -> Difference:
    there = {cell: second.pattern_at(point) for cell, point in ones.items() if point is not None}
    back = {cell: first.pattern_at(point) for cell, point in twos.items() if point is not None}
    pairs = [(cell, other) for cell, other in there.items() if back.get(other) == cell]
    gaps = [_gap(first, second, *pair, ones[pair[0]]) for pair in pairs]
    known = [gap for gap in gaps if gap is not None]
    return Difference(
        count=(len(ones), len(twos)),
        matched=len(pairs),
        lost=len(there) - len(pairs),
        new=len(back) - len(pairs),
        deviation=max(known) if known and len(known) == len(gaps) else None,
        unclear=len(ones) - len(there) + len(twos) - len(back),
        pairs=None,
        seconds=time.perf_counter() - began,
    )


def _gap(first: RegionNetwork, second: RegionNetwork, one: Pattern, two: Pattern, point: Array | None) -> float | None:
    """How far the outputs' affine maps on two cells are apart."""
    a, b = first.affine_maps(one)[1], second.affine_maps(two)[1]
    if a is None or b is None or point is None or a.shift.shape != b.shift.shape:
        return None
    half = (first.high - first.low) / 2
    slopes = np.abs((a.matrix - b.matrix) * half).max(initial=0.0)
    return float(max(slopes, np.abs(a(point) - b(point)).max(initial=0.0)))


def _pairs(first: RegionNetwork, second: RegionNetwork, seed: int) -> tuple[int, int]:
    """Pairs of nearby points, and how many share a cell in one network only."""
    rng = np.random.default_rng(seed)
    width, step = first.high - first.low, 0.25
    start = first.low + rng.random((PAIRS, len(width))) * width
    if len(first.limits):
        start = start[(start @ first.rows.T <= first.limits).all(axis=1)]
    direction = rng.normal(size=start.shape) * width

    def together(network: RegionNetwork, reach: float) -> Array:
        end = np.clip(start + reach * direction, first.low, first.high)
        return np.asarray(((network.preactivations(start) > 0) == (network.preactivations(end) > 0)).all(axis=1))

    for _ in range(30):  # about half of the pairs shall share a cell
        if not len(start) or together(first, step).mean() >= 0.5:
            break
        step /= 2
    other = together(first, step) != together(second, step)
    return len(start), int(other.sum())
