"""Derivatives of tensors of an ONNX graph with respect to its weights, without a training framework."""

from onnxprune.surgeon.differentiation.derivatives import Derivatives

__all__ = ["Derivatives"]
