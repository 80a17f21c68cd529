"""Models for phones: fixed sizes, ONNX Runtime's own file format, what its mobile execution providers would take."""

from onnxprune.mobile.export import export_ort, ort_files
from onnxprune.mobile.providers import PROVIDERS, usability
from onnxprune.mobile.sizes import with_fixed_sizes

__all__ = ["PROVIDERS", "export_ort", "ort_files", "usability", "with_fixed_sizes"]
