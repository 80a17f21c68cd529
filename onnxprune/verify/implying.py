"""Bounds of the original hold in the optimized model, for tensors and rows that both have."""

from __future__ import annotations

import numpy as np

from onnxprune.verify.forms import SLACK, Form
from onnxprune.verify.forward import full
from onnxprune.verify.sides import Side
from onnxprune.verify.terms import placed


def imply(before: Side, after: Side, name: str, form: Form) -> None:
    """Note bounds on tensors of the optimized model, up to what they are off.

    Args:
        before: The original.
        after: The optimized model: gains bounds.
        name: A tensor of the original.
        form: What it is in terms of tensors of the optimized model.
    """
    if form.whole:
        _whole(before, after, name, form)
    else:
        for tensor, windows in form.terms:
            if windows is None:
                _rows(before, after, name, form, tensor)


def _whole(before: Side, after: Side, name: str, form: Form) -> None:
    room = float(form.deviation + form.rounding) * SLACK
    found = before.bounds[name]
    shapes = before.net.shape(name), after.net.shape(form.whole)
    known = shapes[0] is not None and shapes[1] is not None and len(shapes[0]) == len(shapes[1])
    if form.whole not in after.implied and np.isfinite(room) and known:
        after.learn(form.whole, found + found.like(np.array(-room), np.array(room)))


def _rows(before: Side, after: Side, name: str, form: Form, tensor: str) -> None:
    """For rows that are rows of a tensor, alone and without a factor."""
    axis, shapes = form.axis, (before.net.sample(name), after.net.sample(tensor))
    if axis is None or shapes[0] is None or shapes[1] is None or len(shapes[0]) != len(shapes[1]):
        return
    if any(a != axis and one != two for a, (one, two) in enumerate(zip(shapes[0], shapes[1], strict=True))):
        return
    channel, factors = form.matched(tensor)
    low, high = factors.floats()
    room = (form.deviation + form.rounding) * SLACK
    rows = np.flatnonzero((channel >= 0) & (low == 1) & (high == 1) & np.isfinite(room))
    channels, first = np.unique(channel[rows], return_index=True)
    known, other = full(before.bounds[name], shapes[0]), full(after.known(tensor), shapes[1])
    if known is None or other is None or not len(channels):
        return
    rows = rows[first]
    spread = room[rows].reshape([-1 if a == axis else 1 for a in range(len(shapes[0]))])
    part = known.map(lambda m: np.take(m, rows, axis)) + known.like(-spread, spread)
    place = tuple(channels if a == axis else slice(None) for a in range(len(shapes[0])))
    after.learn(tensor, placed(other, other[place].meet(part), place))
