"""What nodes that treat channels one by one make of rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.forms import Form
from onnxprune.verify.meanings import POOLS, Meaning
from onnxprune.verify.network import Node
from onnxprune.verify.numbers import Interval
from onnxprune.verify.sides import Walk, constant, scaled_error, touch
from onnxprune.verify.terms import Indices, Term
from onnxprune.verify.twins import same_slopes, twin_of
from onnxprune.verify.worth import learn

if TYPE_CHECKING:
    from onnxprune.verify.relation import Relation

Floats = NDArray[np.float64]


def activated(relation: Relation, node: Node, form: Form, told: Meaning) -> Form | None:
    """Behind a node that treats channels one by one."""
    if form.whole:
        twin = twin_of(relation.before, relation.after, node, form.whole)
        shape = relation.before.net.shape(node.inputs[0]) or ()
        if twin is not None and node.op != "PRelu":
            relation.atoms.add(twin)
            errors = [float(part) * told.lipschitz if part else 0.0 for part in (form.deviation, form.rounding)]
            return Form.same(twin, exact=relation.exact, deviation=errors[0], rounding=errors[1])
        place = min(1, len(shape) - 1)
        width = relation.before.net.size(node.inputs[0], place) if shape else None
        apart = None if width is None else form.along(place, width)
        if apart is None:
            return None
        form = apart
    axis, count = form.axis, form.rows
    assert axis is not None
    source, result = node.inputs[0], node.outputs[0]
    image, twin, channel, factors = _image(relation, node, form)
    paired = channel >= 0
    if not told.scalable:
        paired &= factors.floats()[0] == 1
    paired &= factors.floats()[0] > 0
    if twin is not None and node.op == "PRelu":
        paired &= same_slopes(relation.before, relation.after, node, image, channel)
    paired &= twin is not None
    loose = ~paired & ~form.bare & ~constant(relation.before.rows(result, axis, count))
    loose &= ~straight(told, relation.before.rows(source, axis, count))[0]
    learn(relation.before, relation.after, source, form, loose)
    handed, slack = straight(told, relation.before.rows(source, axis, count))
    handed &= ~form.bare & ~paired & ~constant(relation.before.rows(result, axis, count))
    gone = ~paired & ~handed
    producer = relation.before.net.producer.get(source)
    if node.op not in POOLS and (producer is None or producer.op in relation.before.affine.operators):
        parallel = int(paired.sum()) - len(np.unique(channel[paired]))
        parts = [np.flatnonzero(part) for part in (paired, handed, gone)]
        relation.walks.append(Walk(source, result, axis, parts[0], parts[1], parts[2], parallel))
    kept = form.without(~handed, relation.before.rows(result, axis, count))
    terms = dict(kept.terms)
    rows = np.flatnonzero(paired)
    zero = form.shift.like(np.zeros(count), np.zeros(count))
    shift, size = kept.shift, kept.size
    if twin is not None and len(rows):
        relation.atoms.add(twin)
        width = relation.after.net.size(twin, axis)
        if width is None:
            return None
        terms[twin, None] = Term.pick(rows, channel[rows], factors[rows], width)
        cleared = replace(kept, terms={}).without(paired, zero)
        shift, size = cleared.shift, cleared.size
    factor = np.where(paired, told.lipschitz, np.where(handed, 1.0, 0.0))
    deviation = scaled_error(factor, form.deviation) + np.where(handed, slack, 0.0)
    return Form(axis, terms, shift, size, deviation, scaled_error(factor, form.rounding))


def _image(relation: Relation, node: Node, form: Form) -> tuple[str, str | None, Indices, Interval]:
    """The tensor in whose terms an input is written, what the optimized model makes of it, rows and factors."""
    names = [name for (name, windows), term in form.terms.items() if windows is None and term.picks]
    for name in names:
        twin = twin_of(relation.before, relation.after, node, name)
        if twin is not None:
            return name, twin, *form.matched(name)
    nothing = np.full(form.rows, -1)
    return "", None, nothing, form.shift.like(np.ones(form.rows), np.ones(form.rows))


def straight(told: Meaning, bounds: Interval) -> tuple[NDArray[np.bool_], Floats]:
    """Rows that an activation hands on unchanged, and by how much they may leave its straight range."""
    low, high = bounds.floats()
    if told.straight is None:
        return np.zeros(len(low), dtype=bool), np.zeros(len(low))
    beyond = np.maximum(np.maximum(told.straight[0] - low, high - told.straight[1]), 0.0)
    return beyond <= touch(low, high), beyond * (1 + told.lipschitz)
