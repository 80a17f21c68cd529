"""What a page shows of a run and the JSON report leaves out, because it grows with the model or the measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune.stability import LayerStates


@dataclass(frozen=True)
class Details:
    """Per unit and per run.

    Attributes:
        layers: States, proved bounds and margins of all units, layer by layer, of the tidied model.
        latencies: Milliseconds of every single run, under ``before``, ``tidied``, ``after``; empty where nothing
            was measured.
    """

    layers: Sequence[LayerStates] = ()
    latencies: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
