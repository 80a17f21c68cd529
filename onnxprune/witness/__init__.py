"""Inputs that refute a state of a unit, found by running the real network."""

from onnxprune.witness.corners import corner_feeds
from onnxprune.witness.observe import Observed, observe

__all__ = ["Observed", "corner_feeds", "observe"]
