"""What each ONNX operator means: one small class per operator, files by family."""

from onnxprune.operators.base import Dim, Inputs, NodeView, Operator, Shape, TensorType, abilities, op_of
from onnxprune.operators.channels import Axis, ChannelMap, Link, Resized
from onnxprune.operators.interval import Interval
from onnxprune.operators.registry import operator_for, registry

__all__ = [
    "Axis",
    "ChannelMap",
    "Dim",
    "Inputs",
    "Interval",
    "Link",
    "NodeView",
    "Operator",
    "Resized",
    "Shape",
    "TensorType",
    "abilities",
    "op_of",
    "operator_for",
    "registry",
]
