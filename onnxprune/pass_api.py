"""What a rewrite pass is: a frozen dataclass with a name, an exactness, options, and ``run``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from onnxprune.operators import Axis

if TYPE_CHECKING:
    from onnxprune.facts import Facts
    from onnxprune.graph.graph import Graph


class Exactness(Enum):
    """The weakest promise a pass may need."""

    ALWAYS = "ALWAYS"
    ON_DOMAIN = "ON_DOMAIN"
    APPROXIMATE = "APPROXIMATE"


@dataclass
class PassReport:
    """What one run of a pass did, and why it left the rest."""

    modified: bool = False
    removed: dict[str, list[int]] = field(default_factory=dict)
    """Removed unit indices per layer, in the numbering the pass found."""
    merged: dict[str, int] = field(default_factory=dict)
    """How many of the removed units of a layer were merged into another one."""
    needed_domain: bool = False
    """Whether any change holds on the domain only."""
    deviations: dict[str, float] = field(default_factory=dict)
    """Proved bound on the change of a layer's output (its bias added), by tensor name, in real arithmetic."""
    rounding: float = 0.0
    """Largest rounding of a new constant to the element type of the model."""
    values_kept: bool = False
    """Whether every tensor that keeps its name keeps its values on the domain, but for ``kept``, ``replaced``,
    ``deviations`` and ``moved``: then what was proved of it is carried on."""
    kept: dict[Axis, NDArray[np.int64]] = field(default_factory=dict)
    """Per axis that became shorter, the indices that stayed."""
    replaced: dict[Axis, NDArray[np.int64]] = field(default_factory=dict)
    """Per axis the indices (as they are now) that mean something else than before."""
    moved: dict[str, float] = field(default_factory=dict)
    """By how much rounding may change the entries of a tensor, beyond ``deviations``."""
    changes: Counter[str] = field(default_factory=Counter)
    """Other changes, by kind."""


@runtime_checkable
class Pass(Protocol):
    """A rewrite pass. Implementations are frozen dataclasses; their fields are their options.

    Attributes:
        name: As used in ``--passes``.
        exactness: The weakest promise it may need.
        order: Its place in the default pipeline (None: only run when asked for).
    """

    name: ClassVar[str]
    exactness: ClassVar[Exactness]
    order: ClassVar[int | None]

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Rewrite ``graph`` in place and say what was done; ``modified=False`` leaves it untouched."""
        ...
