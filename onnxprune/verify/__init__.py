"""The independent checker: reads two models and a certificate, and trusts nothing else of this package."""

from onnxprune.verify import rules_entries, rules_layers, rules_shape

__all__ = ["rules_entries", "rules_layers", "rules_shape"]
