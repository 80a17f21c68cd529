"""Linear regions of networks of rectified units: bounds, exact counts, estimates."""

from onnxprune.regions.anytime import Interval, narrow
from onnxprune.regions.exact import Count, count_exactly
from onnxprune.regions.iterate import Region, iter_regions
from onnxprune.regions.layers import AffineMap, Layer
from onnxprune.regions.lower_architecture import architecture_lower_bound, folding_network
from onnxprune.regions.network import Pattern, RegionNetwork
from onnxprune.regions.probe import Estimate, lower_bound, probe_regions
from onnxprune.regions.upper import Remaining, empirical, maxout, montufar, one_input, serra, trivial, zaslavsky
from onnxprune.regions.walker import Definition, Walker

__all__ = [
    "AffineMap",
    "Count",
    "Definition",
    "Estimate",
    "Interval",
    "Layer",
    "Pattern",
    "Region",
    "RegionNetwork",
    "Remaining",
    "Walker",
    "architecture_lower_bound",
    "count_exactly",
    "empirical",
    "folding_network",
    "iter_regions",
    "lower_bound",
    "maxout",
    "montufar",
    "narrow",
    "one_input",
    "probe_regions",
    "serra",
    "trivial",
    "zaslavsky",
]
