"""States of units where an activation was passed, and whether the claims of a certificate cover them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.certificate import Claims
from onnxprune.verify.compare_rows import UNBOUNDED
from onnxprune.verify.meanings import meaning
from onnxprune.verify.reasons import Rejected
from onnxprune.verify.sides import Side, Walk, constant, touch
from onnxprune.verify.steps import METHODS, Step

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


ALIKE = 1e-6
"""Share of the size of a pre-activation by which claimed bounds and margins may be off."""
ROUNDING = 1e-12
"""Share by which they may say more than is proved: sums come out differently elsewhere, and nothing rests on them."""
Kind = tuple[str, str]
"""A method and its trust."""


@dataclass(frozen=True)
class Found:
    """Rows of a pre-activation in one state.

    Attributes:
        tensor: The pre-activation.
        state: As in :class:`~onnxprune.verify.certificate.Claims`.
        units: Its rows.
        bounds: Per unit.
        margins: Per unit.
        sizes: How large each can be.
        kinds: What its state rests on.
    """

    tensor: str
    state: str
    units: Indices
    bounds: Floats
    margins: Floats
    sizes: Floats
    kinds: tuple[Kind, ...] = ()

    def only(self, which: NDArray[np.bool_]) -> Found:
        """Some of the rows."""
        return replace(
            self,
            units=self.units[which],
            bounds=self.bounds[which],
            margins=self.margins[which],
            sizes=self.sizes[which],
            kinds=tuple(kind for kind, chosen in zip(self.kinds, which.tolist(), strict=True) if chosen),
        )


def states(side: Side, walk: Walk) -> list[Found]:
    """States of the rows that an activation of the original does not share with the optimized model."""
    count = len(walk.kept) + len(walk.handed) + len(walk.gone)
    node = next(n for n in side.net.readers[walk.source] if walk.result in n.outputs)
    told = meaning(side.given(node))
    low, high = side.rows(walk.source, walk.axis, count).floats()
    results = side.rows(walk.result, walk.axis, count)
    least, most = results.floats()
    threshold = told.straight[0] if told is not None and told.straight is not None else np.inf
    plain = side.plain(walk.source, walk.axis, count).floats()
    size = np.maximum(np.abs(plain[0]), np.abs(plain[1]))
    active = Found(
        walk.source, "active", walk.handed, low[walk.handed], low[walk.handed] - threshold, size[walk.handed]
    )
    found = [active]
    slack = touch(*plain)  # rounding is that of what was added up, even where little is left of it
    inactive = np.zeros(count, dtype=bool)
    fixed = constant(results)
    flat = most - least <= np.maximum(slack, touch(least, most))
    inactive[walk.gone] = (flat & (high <= threshold + slack))[walk.gone] & np.isfinite(threshold)
    still = np.zeros(count, dtype=bool)
    still[walk.gone] = fixed[walk.gone] & ~inactive[walk.gone]
    unread = np.zeros(count, dtype=bool)
    unread[walk.gone] = ~inactive[walk.gone] & ~still[walk.gone]
    for state, mask, bounds, margins in (
        ("inactive", inactive, high, threshold - high),
        ("constant", still, most - least, np.zeros(count)),
        ("unread", unread, np.zeros(count), np.zeros(count)),
    ):
        rows = np.flatnonzero(mask)
        found.append(Found(walk.source, state, rows, bounds[rows], margins[rows], size[rows]))
    return [item for item in found if len(item.units)]


def with_kinds(found: list[Found], walk: Walk, certified: Side, steps: Sequence[Step]) -> list[Found]:
    """The same with what each state rests on.

    Args:
        found: States of an activation's rows.
        walk: The activation.
        certified: The original with the bounds that hold without a solver's word.
        steps: Evidence for bounds on it.
    """
    count = len(walk.kept) + len(walk.handed) + len(walk.gone)
    shape = certified.net.sample(walk.source)
    rank = np.zeros(count, dtype=np.int64)
    for step in steps:
        if step.tensor == walk.source and step.trust == "certified" and shape is not None:
            rows = np.unique(np.unravel_index(step.entries, shape)[walk.axis])
            rank[rows] = np.maximum(rank[rows], METHODS.index(step.method))
    sure = {item.state: set(item.units.tolist()) for item in states(certified, walk)}
    low, high = certified.rows(walk.source, walk.axis, count).floats()
    slack = touch(low, high)
    result = []
    for item in found:
        kinds: list[Kind] = []
        for unit, bound, margin in zip(item.units.tolist(), item.bounds.tolist(), item.margins.tolist(), strict=True):
            threshold = bound - margin
            proved = (
                low[unit] >= threshold - slack[unit] if item.state == "active" else unit in sure.get(item.state, ())
            )
            kinds.append(
                ("none", "certified")
                if item.state == "unread"
                else (METHODS[rank[unit]], "certified")
                if proved
                else ("mip", "solver")
            )
        result.append(replace(item, kinds=tuple(kinds)))
    return result


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
        if not claim.units.shape == claim.bounds.shape == claim.margins.shape:
            raise Rejected(f"a claim on {claim.tensor} has not one bound and margin per unit")
        proved = next((item for item in found.get(claim.result, []) if item.state == claim.state), None)
        if proved is not None and proved.tensor != claim.tensor:
            raise Rejected(f"{claim.result} is not computed from {claim.tensor}, as a claim says")
        for number, unit in enumerate(claim.units.tolist()):
            where = np.flatnonzero(proved.units == unit) if proved is not None else np.zeros(0, np.int64)
            if proved is None or not len(where):
                raise Rejected(f"unit {unit} of {claim.tensor} is not {claim.state}, as a claim says")
            if (claim.result, unit) in seen:
                raise Rejected(f"unit {unit} of {claim.tensor} has two claims")
            seen.add((claim.result, unit))
            _check_numbers(claim, number, proved, int(where[0]))
    for result, items in found.items():
        for item in items:
            for unit in item.units.tolist():
                if (result, unit) not in seen:
                    raise Rejected(f"unit {unit} in front of {result} is gone or merged, and no claim says why")


def _check_numbers(claim: Claims, number: int, proved: Found, at: int) -> None:
    unit, bound, margin = int(claim.units[number]), float(claim.bounds[number]), float(claim.margins[number])
    real, room = float(proved.bounds[at]), float(proved.margins[at])
    slack = ALIKE * max(abs(real), min(float(proved.sizes[at]), UNBOUNDED))
    beyond = real - bound if claim.state != "active" else bound - real
    good = beyond <= ROUNDING / ALIKE * slack
    if not good or not abs(bound - real) <= slack or not abs(margin - room) <= slack:
        raise Rejected(
            f"unit {unit} of {claim.tensor}: a bound of {bound} and a margin of {margin} are claimed, "
            f"{real} and {room} are proved"
        )
    if (claim.method, claim.trust) != proved.kinds[at]:
        raise Rejected(
            f"unit {unit} of {claim.tensor} rests on {' '.join(proved.kinds[at])}, not on {claim.method} {claim.trust}"
        )
