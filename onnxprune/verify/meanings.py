"""What the checker knows of operators that are not affine: where they change nothing, and how far they move errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.verify.forward import Given
from onnxprune.verify.rules_entries import clip_ends

POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
SHAPES = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
"""Operators that only move entries, whole channels together."""
ENTRYWISE = {
    "Relu": 1.0,
    "Clip": 1.0,
    "Abs": 1.0,
    "Sigmoid": 0.25,
    "Tanh": 1.0,
    "HardSwish": 1.5,
    "Softplus": 1.0,
    "Softsign": 1.0,
    "Erf": 1.13,
    "Atan": 1.0,
    "Mish": 1.1,
    "Gelu": 1.13,
    "Exp": math.inf,
    "Floor": math.inf,
    "Ceil": math.inf,
    "Sqrt": math.inf,
    "Selu": 1.76,
}
"""Operators on single entries with their Lipschitz constants (of Selu: with its default parameters)."""
SUMS = ("Add", "Sub", "Sum")
STEADY = frozenset(
    """Concat Dropout Expand Gather Identity Neg Pad ReduceMax ReduceMean ReduceMin Resize Slice Softmax Split Tile
    Upsample""".split()
) | {*SHAPES, *POOLS}
"""Operators that move no entry by more than the entries of their inputs are moved."""


@dataclass(frozen=True)
class Meaning:
    """What is known of a node that treats channels one by one.

    Attributes:
        straight: Where it hands its input on unchanged; None for nowhere.
        scalable: Whether a positive multiple of its input gives that multiple of its output.
        lipschitz: How much it moves per unit of change.
    """

    straight: tuple[float, float] | None
    scalable: bool
    lipschitz: float


def meaning(given: Given) -> Meaning | None:
    """What is known of a node; None where channels are not apart, or nothing is known."""
    node = given.node
    if node.op in POOLS:
        return Meaning(None, True, 1.0) if len([name for name in node.outputs if name]) == 1 else None
    if node.op == "Relu":
        return Meaning((0.0, math.inf), True, 1.0)
    if node.op == "Abs":
        return Meaning((0.0, math.inf), True, 1.0)
    if node.op == "LeakyRelu":
        return Meaning((0.0, math.inf), True, max(1.0, abs(float(node.get("alpha", 0.01)))))
    if node.op == "PRelu":
        slope: Any = given.constant(1)
        return None if slope is None else Meaning((0.0, math.inf), True, max(1.0, float(np.abs(slope).max())))
    if node.op == "Clip":
        ends = clip_ends(given)
        return None if ends is None else Meaning(ends, False, 1.0)
    if node.op == "HardSwish":
        return Meaning((3.0, math.inf), False, 1.5)
    if node.op == "Elu":
        return Meaning((0.0, math.inf), False, max(1.0, abs(float(node.get("alpha", 1.0)))))
    if node.op == "HardSigmoid":
        return Meaning(None, False, abs(float(node.get("alpha", 0.2))))
    if node.op == "Selu" and node.attributes:
        return Meaning(None, False, math.inf)
    if node.op in ("Resize", "Upsample"):
        return _resized(given)
    constant = ENTRYWISE.get(node.op)
    return None if constant is None else Meaning(None, False, constant)


def _resized(given: Given) -> Meaning | None:
    """Resizing along images keeps channels apart."""
    shapes = [given.sample(0), given.result()]
    plain = str(given.node.get("mode", "nearest")) in ("nearest", "linear")
    keeps = shapes[0] is not None and shapes[1] is not None and shapes[0][:2] == shapes[1][:2]
    return Meaning(None, True, 1.0) if plain and keeps else None
