"""What is known about the number of linear regions, as JSON and as lines for a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

SCHEMA = 1
DEFINITIONS = {
    "cells": "activation patterns whose open cell meets the domain",
    "patterns": "activation patterns that occur, lower-dimensional ones included",
    "affine": "cells, adjacent ones with the same affine map merged",
}
BOUNDS = {
    "trivial": "2 per unstable unit",
    "montufar": "Montufar 2017, from the widths",
    "serra": "Serra 2018, from the widths",
    "empirical": "Serra 2020, from the unstable units and ranks here",
}
LONGEST = 10**300
"""Whole numbers beyond are no longer written out: few readers of JSON take them."""


class RegionReport(Mapping[str, Any]):
    """A report; its keys are stable.

    Args:
        content: What was found.
        notes: What a reader should know besides, such as why something was not counted.
    """

    def __init__(self, content: Mapping[str, Any], notes: tuple[str, ...] = ()) -> None:
        self.content: dict[str, Any] = {"schema": SCHEMA, **content}
        self.notes = notes

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def to_json(self) -> str:
        """The report as JSON; whole numbers too long for other readers become text such as "1.07e301"."""
        return json.dumps(_short(self.content), indent=2) + "\n"

    def lines(self) -> list[str]:
        """One line per number, each with what stands behind it."""
        what = self.content["definition"]
        states = {s: sum(layer[s] for layer in self.content["layers"]) for s in ("unstable", "active", "inactive")}
        lines = [
            f"{what}: {DEFINITIONS[what]}",
            f"units: {states['unstable']} unstable, {states['active']} always on, {states['inactive']} always off "
            f"(proved, {len(self.content['layers'])} layers)",
        ]
        for name, value in self.content["bounds"].items():
            if value is not None:
                lines.append(f"at most {number(value)} (proved; {BOUNDS[name]})")
        lines += self._counted(what)
        estimate = self.content["estimate"]
        if estimate is not None:
            if estimate["value"] is not None:
                error = "unknown" if estimate["stderr"] is None else number(estimate["stderr"])
                lines.append(f"about {number(estimate['value'])} (estimate, standard error {error}; no bound)")
            if estimate["lower95"] is not None:
                lines.append(f"at least {number(estimate['lower95'])} (95 %: holds for 19 of 20 seeds or more)")
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def _counted(self, what: str) -> list[str]:
        exact, lower, upper = (self.content[key] for key in ("exact", "lower", "upper"))
        if exact is None:
            lines = [f"at least {number(lower)} (proved: met by the search)"] if lower > 1 else []
            if upper is not None and upper not in self.content["bounds"].values():
                lines.append(f"at most {number(upper)} (proved: met, and bounds of what is left)")
            return lines
        if lower < (upper or lower):  # a solver's count proves no upper bound
            return [f"{number(exact)} {what} (by the solver's word, up to its tolerances)"]
        text = f"{number(exact)} {what} (exact)"
        if self.content["tolerance_sensitive"]:
            text += "; cells as thin as rounding were met, another tolerance may give another count"
        return [text]


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(part) for name, part in value.items()}
    return number(value) if isinstance(value, int) and value > LONGEST else value


def number(value: float) -> str:
    """A count with separators, or in powers of ten where it is long."""
    if isinstance(value, int) and abs(value) < 10**15:
        return f"{value:,}"
    if isinstance(value, int):
        exponent = math.floor(math.log10(value))
        mantissa = 10 ** (math.log10(value) - exponent)
        return f"{math.floor(100 * mantissa) / 100:.2f}e{exponent}"
    return f"{value:,.0f}" if 100 <= abs(value) < 1e9 else f"{value:.3g}"
