"""Bounds on the values of a graph."""

from onnxprune.bounds.interval import Bounds, interval_bounds

__all__ = ["Bounds", "interval_bounds"]
