"""States of units where an activation was passed, and whether the claims of a certificate cover them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.certificate import METHODS, STATES, Claims
from onnxprune.verify.meanings import meaning
from onnxprune.verify.reasons import Rejected
from onnxprune.verify.relation import Side, Walk, constant, touch

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """Rows of a pre-activation in one state, with bounds and margins."""

    state: str
    units: Indices
    bounds: Floats
    margins: Floats


def states(side: Side, walk: Walk) -> list[Found]:
    """States of the rows that an activation of the original does not share with the optimized model."""
    count = len(walk.kept) + len(walk.handed) + len(walk.gone)
    node = next(n for n in side.net.readers[walk.source] if walk.result in n.outputs)
    told = meaning(side.given(node))
    low, high = side.rows(walk.source, walk.axis, count).floats()
    results = side.rows(walk.result, walk.axis, count)
    least, most = results.floats()
    threshold = told.straight[0] if told is not None and told.straight is not None else np.inf
    found = [Found("active", walk.handed, low[walk.handed], low[walk.handed] - threshold)]
    slack = touch(low, high)
    inactive = np.zeros(count, dtype=bool)
    inactive[walk.gone] = (high <= threshold + slack)[walk.gone] & np.isfinite(threshold)
    still = np.zeros(count, dtype=bool)
    still[walk.gone] = constant(results)[walk.gone] & ~inactive[walk.gone]
    unread = np.zeros(count, dtype=bool)
    unread[walk.gone] = ~inactive[walk.gone] & ~still[walk.gone]
    for state, mask, bounds, margins in (
        ("inactive", inactive, high, threshold - high),
        ("constant", still, most - least, np.zeros(count)),
        ("unread", unread, np.zeros(count), np.zeros(count)),
    ):
        rows = np.flatnonzero(mask)
        found.append(Found(state, rows, bounds[rows], margins[rows]))
    return [item for item in found if len(item.units)]


def check_claims(claims: Sequence[Claims], found: Mapping[str, list[Found]]) -> None:
    """Compare claims with what was found.

    Args:
        claims: Of the certificate.
        found: By the tensor behind an activation.

    Raises:
        Rejected: A claim is wrong, or one is missing.
    """
    seen: set[tuple[str, int]] = set()
    for claim in claims:
        if claim.state not in STATES or claim.method not in METHODS or claim.trust not in ("certified", "solver"):
            raise Rejected(f"a claim on {claim.tensor} has an unknown state, method or trust")
        if not len(claim.units) == len(claim.bounds) == len(claim.margins):
            raise Rejected(f"a claim on {claim.tensor} has not one bound and margin per unit")
        proved = next((item for item in found.get(claim.result, []) if item.state == claim.state), None)
        for unit, bound, margin in zip(
            claim.units.tolist(), claim.bounds.tolist(), claim.margins.tolist(), strict=True
        ):
            where = np.flatnonzero(proved.units == unit) if proved is not None else np.zeros(0, np.int64)
            if proved is None or not len(where):
                raise Rejected(f"unit {unit} of {claim.tensor} is not {claim.state}, as a claim says")
            if (claim.result, unit) in seen:
                raise Rejected(f"unit {unit} of {claim.tensor} has two claims")
            seen.add((claim.result, unit))
            _check_numbers(claim, unit, bound, margin, proved, int(where[0]))
    for result, items in found.items():
        for item in items:
            for unit in item.units.tolist():
                if (result, unit) not in seen:
                    raise Rejected(f"unit {unit} in front of {result} is gone or merged, and no claim says why")


def _check_numbers(claim: Claims, unit: int, bound: float, margin: float, proved: Found, at: int) -> None:
    real, room = float(proved.bounds[at]), float(proved.margins[at])
    slack = 1e-6 * max(abs(real), abs(room), 1e-30)
    good = bound >= real - 1e-12 * abs(real) if claim.state != "active" else bound <= real + 1e-12 * abs(real)
    if not good or not np.isfinite(bound):
        raise Rejected(f"unit {unit} of {claim.tensor}: a bound of {bound} is claimed, {real} is proved")
    if not abs(bound - real) <= slack or not abs(margin - room) <= slack:
        raise Rejected(f"unit {unit} of {claim.tensor}: the claimed bound or margin is not the one that is proved")
