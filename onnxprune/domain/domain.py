"""The set of inputs on which a promise holds: every finite input, a box, a box with linear constraints."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.domain.rounding import decimal_text, finite_range
from onnxprune.domain.sampling import draw
from onnxprune.domain.types import FREE, Array, Box, Constraint, InputSpec, SampleKind

_TRIES = 100


@dataclass(frozen=True, eq=False)
class Domain:
    """A set of inputs, in real numbers: boxes by input name and linear constraints across them.

    Inputs without a box take every finite value of their type. An input that a constraint mentions has a box
    of full shape, be it infinite. Build domains with `parse_domain` and `around`, which check them.
    """

    boxes: Mapping[str, Box] = field(default_factory=dict)
    constraints: tuple[Constraint, ...] = ()
    origin: str = "everything finite"

    @staticmethod
    def everything() -> Domain:
        """Every finite input."""
        return Domain()

    @property
    def restricts(self) -> bool:
        """Whether anything finite is left out."""
        finite = (np.isfinite(ends).any() for box in self.boxes.values() for ends in (box.lower, box.upper))
        return bool(self.constraints) or any(finite)

    def bounds(self, spec: InputSpec) -> tuple[Array, Array]:
        """Bounds on an input, its type's range included: no axes, or the input's rank with axes full or 1."""
        low, high = finite_range(spec.dtype) or (-math.inf, math.inf)
        box = self.boxes.get(spec.name, FREE)
        return np.asarray(np.maximum(box.lower, low)), np.asarray(np.minimum(box.upper, high))

    def contains(self, data: Mapping[str, NDArray[Any]]) -> bool:
        """Whether all data lie inside, decided exactly."""
        return not self.violations(data)

    def violations(self, data: Mapping[str, NDArray[Any]]) -> list[str]:
        """A sentence for each input that leaves its box or is not finite; else for each broken constraint.

        Arrays may have samples along a leading axis.
        """
        found = []
        for name, values in data.items():
            if finite_range(values.dtype) is not None:
                excess = self._excess(name, values.astype(np.float64))
                if count := np.count_nonzero(excess > 0):
                    what = f"{count} of {excess.size} values of input '{name}'"
                    found.append(f"{what} lie outside the domain, by up to {excess.max():.3g}.")
        checkable = [c for c in self.constraints if not found and all(name in data for name, _, _ in c.terms)]
        for constraint in checkable:
            totals = sum(self._column(data, name, index) * Fraction(c) for name, index, c in constraint.terms)
            if count := sum(total > Fraction(constraint.bound) for total in totals):
                terms = " + ".join(f"{c:g} {name}[{index}]" for name, index, c in constraint.terms)
                found.append(f"{count} of {len(totals)} samples break {terms} <= {constraint.bound:g}.")
        return found

    def sample(
        self,
        specs: Sequence[InputSpec],
        shapes: Mapping[str, tuple[int, ...]],
        rng: np.random.Generator,
        kind: SampleKind = "uniform",
    ) -> dict[str, NDArray[Any]]:
        """Draw one value for every input, inside the boxes after rounding to the input's type.

        A float without a bound stays within 1 (now and then 10) of zero or of its other bound; free integers
        of more than one byte are 0 or 1, since most are indices. "center" and "corner" refer to this window.
        Linear constraints are met by rejection: after 100 failures the last draw, inside the boxes only, is
        returned, so ask `contains` where it matters.
        """
        for _ in range(_TRIES):
            feeds = {spec.name: draw(spec, self.bounds(spec), shapes[spec.name], rng, kind) for spec in specs}
            if not self.constraints or self.contains(feeds):
                break
        return feeds

    def to_metadata(self) -> dict[str, str]:
        """One text per input for the model's metadata; equal texts mean equal domains.

        `parse_domain` reads "lower:upper" back as the same box: rounded inward here, outward there.
        """
        texts = {f"onnxprune.domain.{name}": _metadata(box) for name, box in self.boxes.items()}
        if self.constraints:
            digest = hashlib.sha256(repr(self.constraints).encode()).hexdigest()
            texts["onnxprune.domain"] = f"{len(self.constraints)} linear constraints, sha256:{digest}"
        return texts

    def describe(self) -> str:
        """One line for a terminal."""
        parts = []
        for name, box in list(self.boxes.items())[:3]:
            fixed = f" ({box.fixed} of {box.lower.size} fixed)" if box.fixed else ""
            parts.append(f"{name} in {box.lower.min():.6g}:{box.upper.max():.6g}{fixed}")
        if len(self.boxes) > 3:
            parts.append(f"{len(self.boxes) - 3} more inputs bounded")
        if self.constraints:
            parts.append(f"linear constraints: {len(self.constraints)}")
        return "; ".join(parts) or "every finite input"

    def to_json(self) -> dict[str, Any]:
        """For reports; a side without a bound is None."""
        kind = "box+constraints" if self.constraints else "box" if self.boxes else "everything"
        inputs = {
            name: {
                "lower": _finite(box.lower.min()),
                "upper": _finite(box.upper.max()),
                "free": box.lower.size - box.fixed,
                "fixed": box.fixed,
            }
            for name, box in self.boxes.items()
        }
        return {"kind": kind, "inputs": inputs, "constraints": len(self.constraints), "origin": self.origin}

    def _excess(self, name: str, values: Array) -> Array:
        """How far each value lies outside its bounds; negative inside, infinite for what is not finite."""
        box = self.boxes.get(name, FREE)
        with np.errstate(invalid="ignore", over="ignore"):
            excess = np.maximum(box.lower - values, values - box.upper)
        return np.where(np.isfinite(values), excess, math.inf)

    def _column(self, data: Mapping[str, NDArray[Any]], name: str, index: int) -> NDArray[Any]:
        """One entry of every sample, as exact fractions."""
        box = self.boxes.get(name, FREE)
        rows = data[name].reshape(-1, box.lower.size if box.lower.ndim else data[name].size)
        return np.array([Fraction(float(value)) for value in rows[:, index]], dtype=object)


def _metadata(box: Box) -> str:
    low, high = float(box.lower.min()) + 0.0, float(box.upper.max()) + 0.0  # -0.0 becomes 0.0
    hull = f"{decimal_text(low, ROUND_CEILING)}:{decimal_text(high, ROUND_FLOOR)}"
    if low == high:
        hull = f"{Decimal(low)}:{Decimal(high)}"
    if (box.lower == low).all() and (box.upper == high).all():
        return hull
    digest = hashlib.sha256(repr(box.lower.shape).encode())
    for ends in (box.lower, box.upper):
        digest.update((ends + 0.0).astype("<f8").tobytes())
    return f"sha256:{digest.hexdigest()} of lower and upper, hull {hull}"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
