"""Compiling the inner loops before the clock runs."""

from __future__ import annotations

from collections.abc import Callable

from onnxprune.regions.compiled import COMPILED
from onnxprune.regions.exact import count_exactly
from onnxprune.regions.network import RegionNetwork
from onnxprune.regions.probe import probe_regions

SLOW = "numba is not installed, and with it this is many times faster: pip install 'onnxprune[regions]'."
"""What to know where time ended and nothing was compiled."""


def warm_up(progress: Callable[[str], None]) -> None:
    """Compile the inner loops, or load them where an earlier run has kept them on disk.

    Args:
        progress: Told about the wait.
    """
    if not COMPILED:
        return
    progress("loading the inner loops (compiled in about a minute, the first time only)")
    network = RegionNetwork.of_layers([([[1.0]], [-0.5]), ([[1.0]], [-0.2])], [0.0], [1.0])
    count_exactly(network)
    probe_regions(network, probes=2)
