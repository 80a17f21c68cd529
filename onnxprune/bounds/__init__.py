"""Bounds on the values of a graph."""

from onnxprune.bounds.interval import Bounds, interval_bounds
from onnxprune.bounds.linear import linear_bounds

__all__ = ["Bounds", "interval_bounds", "linear_bounds"]
