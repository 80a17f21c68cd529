"""N:M patterns: n of every m neighbours are kept, and each group's pattern is the best there is given all others.

With all removed weights of a group put back, removing the subset R costs ``1/2 v_R' (S_RR)^-1 v_R``: every pattern of a
group is priced with small matrices that the tableau holds, so only changes of pattern cost an update.
"""

from __future__ import annotations

import time
from itertools import combinations
from math import comb

import numpy as np

from onnxprune.errors import InputError
from onnxprune.surgeon.selection.arrays import Array, Floats, Index, Mask, damped, inverse
from onnxprune.surgeon.selection.refit import refit_cost
from onnxprune.surgeon.selection.swaps import LEAST_GAIN, Improved, never_worse
from onnxprune.surgeon.selection.tableau import Tableau

MOST_PATTERNS = 1000
"""Patterns of a group at most."""


def pattern_removals(size: int, pattern: tuple[int, int]) -> int:
    """How many of ``size`` weights an N:M pattern removes; a shorter last group keeps n as well.

    Args:
        size: Weights per row.
        pattern: ``(n, m)``: n of m are kept.
    """
    kept, span = pattern
    return size // span * (span - kept) + max(0, size % span - kept)


def follows_pattern(mask: Mask, pattern: tuple[int, int]) -> bool:
    """Whether at most n of every m neighbours are kept.

    Args:
        mask: Shape (rows, d), True where kept.
        pattern: ``(n, m)``.
    """
    kept, span = pattern
    padded = np.pad(mask, ((0, 0), (0, -mask.shape[1] % span)))
    return bool((padded.reshape(len(mask), -1, span).sum(axis=2) <= kept).all())


def improve_patterns(
    moments: Floats,
    weights: Floats,
    mask: Mask,
    pattern: tuple[int, int],
    *,
    ridge: float = 1e-6,
    seconds: float = np.inf,
    sweeps: int = 100,
) -> Improved:
    """Give every group its best pattern given all others, over and over until none changes.

    Args:
        moments: Shape (d, d), second moments of the inputs.
        weights: Shape (rows, d).
        mask: Shape (rows, d), the start, with exactly n kept in every full group of m; a shorter last group stays.
        pattern: ``(n, m)``, with at most 1000 patterns per group.
        ridge: Share of the mean of the diagonal of H that is added to it, and counts as part of H.
        seconds: Time limit.
        sweeps: Passes over all groups at most.

    Raises:
        InputError: If the mask does not have the pattern, or there are too many, or the moments are singular.
    """
    began = time.perf_counter()
    kept, span = pattern
    groups = mask.shape[1] // span
    full = mask[:, : groups * span].reshape(len(mask), groups, span)
    if (full.sum(axis=2) != kept).any():
        raise InputError(f"The mask does not keep exactly {kept} of every {span} weights.")
    if (count := comb(span, kept)) > MOST_PATTERNS:
        raise InputError(f"{kept}:{span} has {count:,} patterns per group.", hint="Use a smaller group.")
    choices = np.array(list(combinations(range(span), span - kept)), dtype=np.intp)
    system, old = damped(np.asarray(moments, dtype=np.float64), ridge), np.asarray(weights, dtype=np.float64)
    inverted = inverse(system)
    before = refit_cost(moments, old, mask, ridge=ridge)
    found, moves, finished = mask.copy(), 0, True
    for row in np.argsort(-before, kind="stable").tolist() if choices.shape[1] else []:
        tableau = Tableau(system, old[row : row + 1], mask[row], inverted)
        for _ in range(sweeps):
            done = _sweep(tableau, groups, span, choices)
            moves += done
            late = time.perf_counter() - began > seconds
            if not done or late:
                break
        found[row] = tableau.kept
        finished = finished and not done
        if late:
            break
    return never_worse(moments, old, mask, found, before, moves, finished, ridge)


def _sweep(tableau: Tableau, groups: int, span: int, choices: Index) -> int:
    """One pass: all groups priced at once, then those that gain, best first, each priced again; changes made."""
    every = np.arange(groups)
    costs, now = _prices(tableau, every, span, choices)
    gains = now - costs.min(axis=1)
    done = 0
    for group in np.argsort(-gains, kind="stable").tolist():
        least = LEAST_GAIN * tableau.cost
        if gains[group] <= least:
            break
        costs, now = _prices(tableau, np.array([group]), span, choices)
        best = int(costs[0].argmin())
        if now[0] - costs[0, best] > least:
            wanted = np.ones(span, dtype=np.bool_)
            wanted[choices[best]] = False
            place = np.arange(group * span, (group + 1) * span)
            tableau.move(place[tableau.kept[place] != wanted])
            done += 1
    return done


def _prices(tableau: Tableau, groups: Index, span: int, choices: Index) -> tuple[Array, Array]:
    """Costs of all patterns of some groups above the group being kept whole, and those of the current patterns.

    Args:
        tableau: The row.
        groups: Which.
        span: Weights per group.
        choices: Shape (patterns, removed), positions that a pattern removes.

    Returns:
        Shape (groups, patterns) and (groups,).
    """
    whole, values, now = tableau.released(groups[:, None] * span + np.arange(span))
    small = whole[:, choices[:, :, None], choices[:, None, :]]
    chosen = values[:, choices]
    costs = np.einsum("gpi,gpi->gp", chosen, np.linalg.solve(small, chosen[..., None])[..., 0]) / 2
    return costs, now
