"""Holds a tensor of the original against the tensor of the optimized model that the certificate names."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.verify.compare_rows import SUBNORMAL, Residual, compared
from onnxprune.verify.forms import Form
from onnxprune.verify.network import Network
from onnxprune.verify.reasons import Rejected
from onnxprune.verify.sides import Anchor, Side, constant
from onnxprune.verify.worth import cancelled, learn

if TYPE_CHECKING:
    from onnxprune.verify.relation import Relation


def anchored(relation: Relation, name: str, form: Form | None, anchor: Anchor) -> Form | None:
    """A tensor in terms of the tensor that the certificate names."""
    if not _known(relation.after.net, anchor.tensor):
        raise Rejected(f"{name} is said to be {anchor.tensor}, which the optimized model does not compute")
    if anchor.rows is None and (form is None or (not form.whole and form.bare.all())):
        return by_bounds(relation, name, anchor.tensor)
    if form is None:
        form = bounded(relation.before, name)
    if form is None:
        raise Rejected(f"nothing is known of {name}, which is said to be {anchor.tensor}")
    if form.whole == anchor.tensor and anchor.rows is None:
        return form
    target = relation.image(anchor.tensor)
    if target is None:
        raise Rejected(f"{anchor.tensor} of the optimized model cannot be compared with anything")
    if form.whole and target.whole == form.whole and anchor.rows is None:
        relation.atoms.add(anchor.tensor)
        return replace(form, whole=anchor.tensor)
    axis = next((a for a in (form.axis, target.axis) if a is not None), None)
    shape = relation.before.net.shape(name)
    axis = min(1, len(shape) - 1) if axis is None and shape else axis
    counts = [side.net.size(n, axis) if axis is not None else None
              for side, n in ((relation.before, name), (relation.after, anchor.tensor))]  # fmt: skip
    if axis is None or counts[0] is None or counts[1] is None:
        raise Rejected(f"{name} has no rows that could be compared with {anchor.tensor}")
    _fits(relation, name, anchor.tensor, axis)
    rows, others = form.along(axis, counts[0]), target.along(axis, counts[1])
    if rows is None or others is None:
        raise Rejected(f"rows of {name} and {anchor.tensor} run along different axes")
    learn(relation.after, relation.after, anchor.tensor, others, cancelled(others))
    result, residual = compared(name, rows, others, anchor, relation.after, axis, relation.precise)
    if not result.whole:
        bounds = relation.before.rows(name, axis, counts[0])
        left = np.ones(counts[0], dtype=bool) if anchor.rows is None else anchor.rows < 0
        result = result.without(left & constant(bounds), bounds)
    relation.residuals[name] = residual
    relation.atoms.add(anchor.tensor)
    return result


def settled(before: Side, name: str) -> Form | None:
    """A tensor that nothing else is known of, where bounds leave it no choice."""
    known = before.bounds[name]
    return bounded(before, name) if constant(known).all() and before.net.is_float(name) else None


def bounded(before: Side, name: str) -> Form | None:
    """A tensor known by bounds alone."""
    shape = before.net.shape(name)
    axis = min(1, len(shape) - 1) if shape else None
    count = before.net.size(name, axis) if axis is not None else None
    if axis is None or count is None:
        return None
    bounds, zero = before.rows(name, axis, count), np.zeros(count)
    return Form(axis, {}, bounds, before.reach(name, axis, count), zero, zero)


def by_bounds(relation: Relation, name: str, tensor: str) -> Form:
    """Two tensors that are (nearly) constant, compared entry by entry."""
    bounds, other = relation.before.known(name), relation.after.known(tensor)
    shapes = relation.before.net.sample(name), relation.after.net.sample(tensor)
    if shapes[0] is None or shapes[0] != shapes[1]:
        raise Rejected(f"{name} and {tensor} have different shapes")
    gap, (low, high) = bounds - other, bounds.floats()
    off = max(float(np.abs(end).max(initial=0.0)) for end in gap.floats())
    size = max(float(np.abs(end).max(initial=0.0)) for end in (low, high))
    if not off <= relation.precise * size + SUBNORMAL:
        raise Rejected(f"{name} is not shown to be {tensor} in the optimized model: bounds are {off:.3g} apart")
    relation.atoms.add(tensor)
    relation.residuals[name] = Residual(off, 0.0)
    return Form.same(tensor, exact=relation.exact, deviation=off)


def _known(net: Network, tensor: str) -> bool:
    return tensor in net.producer or tensor in net.inputs or tensor in net.constants


def _fits(relation: Relation, name: str, other: str, axis: int) -> None:
    shapes = [relation.before.net.shape(name), relation.after.net.shape(other)]
    if shapes[0] is None or shapes[1] is None or len(shapes[0]) != len(shapes[1]):
        raise Rejected(f"{name} and {other} have different shapes")
    for a, (one, two) in enumerate(zip(*shapes, strict=True)):
        if a != axis and (isinstance(one, int) or isinstance(two, int)) and one != two:
            raise Rejected(f"{name} and {other} have different shapes")
