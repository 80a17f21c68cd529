"""Steps of a certificate: bounds on entries of a tensor, each with what proves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.cases import Cuts, Phase

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
METHODS = ("interval", "linear", "split", "lp", "mip")
"""Kinds of evidence, from none to much: none beyond intervals, a walk back, sub-boxes, duals, cases (or a solver)."""


@dataclass(frozen=True)
class Constraint:
    """``sum of coefficient * input[index] <= bound``: what the domain demands beside its boxes."""

    terms: tuple[tuple[str, int, float], ...]
    bound: float


@dataclass(frozen=True)
class Multipliers:
    """Chosen multipliers, for some entries of activations' inputs; for all others the rule chooses.

    Attributes:
        units: Entries, by tensor.
        values: Shape (bounds, entries), by tensor.
        constraints: Per bound and constraint of the domain, not negative.
    """

    units: Mapping[str, Indices] = field(default_factory=dict)
    values: Mapping[str, Floats] = field(default_factory=dict)
    constraints: Floats | None = None

    def some(self, rows: slice) -> dict[str, tuple[Indices, Floats]]:
        """Those of some of the bounds."""
        return {name: (units, self.values[name][rows]) for name, units in self.units.items()}


@dataclass(frozen=True)
class Leaf:
    """One case: phases that hold in it, and multipliers that prove the bounds there."""

    phases: tuple[Phase, ...] = ()
    multipliers: Multipliers = Multipliers()

    @property
    def plain(self) -> bool:
        """Whether this is no case, and the rule chooses all multipliers."""
        return not self.phases and not self.multipliers.units and self.multipliers.constraints is None


@dataclass(frozen=True)
class Step:
    """Bounds on entries of one tensor, and what proves them.

    Attributes:
        tensor: Its name.
        upper: Whether they are upper bounds.
        entries: Of one sample, flat.
        bounds: Per entry.
        trust: "certified", or "solver" where nothing proves them.
        rule: Default choice of multipliers, a key of ``RULES``.
        leaves: Cases that cover the domain; one without phases where there are no cases.
        cuts: Sub-boxes that cover the domain; ``rule`` plays no part then.
    """

    tensor: str
    upper: bool
    entries: Indices
    bounds: Floats
    trust: str = "certified"
    rule: str = "adaptive"
    leaves: tuple[Leaf, ...] = (Leaf(),)
    cuts: Cuts | None = None

    @property
    def method(self) -> str:
        """What kind of evidence this is, see :data:`METHODS`."""
        if self.trust == "solver" or len(self.leaves) > 1:
            return "mip"
        if self.cuts is not None:
            return "split"
        return "linear" if all(leaf.plain for leaf in self.leaves) else "lp"
