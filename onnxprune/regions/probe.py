"""Estimates by random descents (Knuth 1975), and lower bounds that hold with a stated probability.

A descent takes one side at every cut that has two, with some probability; the product of the inverse probabilities
has the number of regions N as its expectation. By Markov's inequality it exceeds c N with probability 1 / c at most,
so that the k-th smallest of m values bounds N from below up to a factor from the exact binomial tail.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import betaincinv

from onnxprune.errors import InputError
from onnxprune.operators.interval import Array
from onnxprune.regions.network import RegionNetwork
from onnxprune.regions.order import leaning_last
from onnxprune.regions.upper import Remaining
from onnxprune.regions.walker import TOLERANCE, Definition, Walker

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95)
"""Order statistics that share the error probability; which is best depends on how much the values scatter."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """What random descents say about the number of regions.

    Attributes:
        mean: Unbiased estimate; nan where time ended within the first descent.
        standard_error: Of the mean, from the scatter of the values; nan for a single one.
        lower: There are at least so many regions, with probability ``confidence``.
        confidence: Of ``lower``; 0 where fewer descents were made than planned: ``lower`` is 1 then.
        values: Of the single descents, shape (descents,).
        seconds: Wall time.
    """

    mean: float
    standard_error: float
    lower: int
    confidence: float
    values: Array
    seconds: float


def probe_regions(
    network: RegionNetwork,
    definition: Definition = "cells",
    *,
    probes: int = 600,
    confidence: float = 0.95,
    seed: int = 0,
    weighted: bool = True,
    exact_below: int = 0,
    tolerance: float = TOLERANCE,
    budget: float = math.inf,
    stopped: Callable[[], bool] = lambda: False,
) -> Estimate:
    """Estimate the number of regions.

    Args:
        network: The network.
        definition: "cells" or "patterns".
        probes: Descents; the bound needs all of them.
        confidence: Of the lower bound.
        seed: Of the choices.
        weighted: Take sides in proportion to an upper bound on what is below each, not evenly.
        exact_below: Count instead of guess once so few units are left.
        tolerance: See :func:`~onnxprune.regions.exact.count_exactly`.
        budget: Seconds.
        stopped: Asked at every unit.

    Raises:
        InputError: Fewer than one probe, a confidence outside (0, 1), or regions merged by their map.
    """
    if definition == "affine":
        raise InputError("Regions merged by their affine map cannot be estimated.", hint='Take "cells".')
    if probes < 1 or not 0 < confidence < 1:
        raise InputError("An estimate needs 1 probe or more and a confidence between 0 and 1.")
    began = time.monotonic()
    network = leaning_last(network)
    walker, bounds = Walker(network, definition, tolerance), Remaining(network, closed=definition == "patterns")
    rng = np.random.default_rng(seed)
    share = cache(lambda prefix: _share(bounds, prefix)) if weighted else lambda _: 0.5
    values: list[float] = []

    def over() -> bool:
        return stopped() or time.monotonic() - began > budget

    while len(values) < probes:
        value = _descend(walker, rng, share, exact_below, over)
        if value is None:
            break
        values.append(value)
    found = np.array(values)
    lower = lower_bound(found, confidence) if len(found) == probes else 1
    error = float(found.std(ddof=1) / math.sqrt(len(found))) if len(found) > 1 else math.nan
    trust = confidence if len(found) == probes else 0.0
    mean = float(found.mean()) if len(found) else math.nan
    return Estimate(mean, error, lower, trust, found, time.monotonic() - began)


def lower_bound(values: Array, confidence: float = 0.95) -> int:
    """The best of some order statistics, each divided by its factor; all hold together with this probability.

    Args:
        values: Independent, at least 0, each with expectation N.
        confidence: Probability that N is at least the result.
    """
    ordered, best = np.sort(values), 1.0
    for quantile in QUANTILES:
        rank = min(len(values), int(quantile * len(values)) + 1)
        best = max(best, ordered[rank - 1] * markov_factor(len(values), rank, (1 - confidence) / len(QUANTILES)))
    return math.ceil(best * (1 - 1e-9))


def markov_factor(count: int, rank: int, risk: float) -> float:
    """The largest q with N >= q * (rank-th smallest of ``count`` values) but for a probability ``risk``.

    If N < q X then ``count - rank + 1`` values or more exceed N / q, each with probability q at most; the binomial
    tail P[Bin(m, q) >= j] is the incomplete beta function I_q(j, m - j + 1).
    """
    above = count - rank + 1
    return float(betaincinv(above, rank, risk))


def _share(bounds: Remaining, prefix: tuple[int, ...]) -> float:
    """Probability of the side that is on."""
    on, off = bounds.bound((*prefix, 1)), bounds.bound((*prefix, 0))
    return min(0.95, max(0.05, on / (on + off)))


def _descend(
    walker: Walker,
    rng: np.random.Generator,
    share: Callable[[tuple[int, ...]], float],
    exact_below: int,
    over: Callable[[], bool],
) -> float | None:
    """One value; None where time was over before."""
    walker.move(())
    value = 1.0
    for unit in range(walker.depth):
        if over():
            return None
        if walker.depth - unit <= exact_below:
            walker.stay()
            return value * walker.count()[0]
        prefix = walker.prefix
        sides = walker.sides()
        if len(sides) == 2:
            on = share(prefix)
            side = int(rng.random() < on)
            value /= on if side else 1.0 - on
            if side != sides[0]:
                walker.cross()
    return value
