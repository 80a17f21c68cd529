"""The rules for a node, the first one that fits serves it."""

from __future__ import annotations

from onnxprune.operators import NodeView, op_of
from onnxprune.surgeon.differentiation import (
    affine,
    arithmetic,
    batch_normalization,
    choices,
    convolution,
    entrywise,
    moves,
    normalization,
    opaque,
    products,
    reductions,
    softmax,
)
from onnxprune.surgeon.differentiation.rule import Rule

FAMILIES = (
    affine,
    arithmetic,
    batch_normalization,
    choices,
    convolution,
    entrywise,
    moves,
    normalization,
    opaque,
    products,
    reductions,
    softmax,
)
OWN: dict[str, Rule] = {op: rule for family in FAMILIES for op, rule in family.RULES.items()}
GENERAL: tuple[Rule, ...] = (affine.Affine(), entrywise.Sloped(entrywise.NODE), opaque.OTHERS)


def rules_for(node: NodeView) -> tuple[Rule, ...]:
    """Rules to try, in order."""
    own = OWN.get(op_of(node.node))
    return GENERAL if own is None else (own, *GENERAL)
