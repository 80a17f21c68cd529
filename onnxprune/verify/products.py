"""Products of two tensors that vary."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.verify.forms import Form
from onnxprune.verify.network import Node
from onnxprune.verify.sides import constant, scaled_error
from onnxprune.verify.terms import Term

if TYPE_CHECKING:
    from onnxprune.verify.relation import Relation


def multiplied(relation: Relation, node: Node, one: Form, other: Form) -> Form | None:
    """A product of two tensors whose rows both are rows of tensors of the optimized model."""
    shapes = [relation.before.net.shape(name) for name in (*node.inputs, node.outputs[0])]
    if shapes[0] is None or shapes[1] is None or shapes[2] is None or len({len(s) for s in shapes if s}) != 1:
        return None
    axis = one.axis if one.axis is not None else other.axis if other.axis is not None else min(1, len(shapes[0]) - 1)
    counts = [relation.before.net.size(name, axis) for name in node.inputs]
    if counts[0] is None or counts[0] != counts[1]:
        return None
    count = counts[0]
    left, right = one.along(axis, count), other.along(axis, count)
    if left is None or right is None:
        return None
    for factor, scaled, shape in ((right, left, shapes[0]), (left, right, shapes[1])):
        if factor.bare.all() and shape == shapes[2] and constant(factor.shift).all():
            return scaled.scaled(factor.shift)
    for twin in relation.after.net.nodes:
        if twin.op != "Mul" or any(name in relation.after.net.constants for name in twin.inputs):
            continue
        pairs = [form.matched(name) for form, name in zip((left, right), twin.inputs, strict=True)]
        paired = (pairs[0][0] >= 0) & (pairs[0][0] == pairs[1][0])
        paired &= np.all([p[1].floats()[0] == 1 for p in pairs], axis=0)
        if not paired.any():
            continue
        width = relation.after.net.size(twin.outputs[0], axis)
        if width is None:
            continue
        relation.atoms.add(twin.outputs[0])
        rows = np.flatnonzero(paired)
        bounds = relation.before.rows(node.outputs[0], axis, count)
        term = Term.pick(rows, pairs[0][0][rows], pairs[0][1][rows], width)
        zero = bounds.like(np.zeros(count), np.zeros(count))
        rest = replace(left, terms={}).without(~paired, bounds).without(paired, zero)
        reach = [relation.before.reach(name, axis, count) for name in node.inputs]
        errors = [
            np.where(paired, scaled_error(reach[0] + b, a) + scaled_error(reach[1], b), 0.0)
            for a, b in ((right.deviation, left.deviation), (right.rounding, left.rounding))
        ]
        return Form(axis, {(twin.outputs[0], None): term}, rest.shift, rest.size, errors[0], errors[1])
    return None
