"""Linear regions of networks of rectified units: bounds, exact counts, estimates."""

from onnxprune.regions.network import AffineMap, Layer, Pattern, RegionNetwork

__all__ = ["AffineMap", "Layer", "Pattern", "RegionNetwork"]
