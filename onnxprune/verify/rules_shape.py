"""Rules for operators that move entries, or that keep within the range of the entries they see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxprune.verify.forward import Given, full, rule
from onnxprune.verify.numbers import Interval, concatenated, contract


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(given: Given) -> Sequence[Interval] | None:
    x, target = given.bounds(0), given.result()
    if x.ndim == 0 or target is None:
        return [x]
    if int(np.prod(target)) != int(np.prod(given.sample(0) or (0,))):
        return [x.over(tuple(range(x.ndim))).map(lambda m: m.reshape(()))]
    source = given.sample(0) or ()
    alike = _tail(source, target)
    while alike and any(size > 1 for size in x.shape[len(source) - alike :]):
        alike -= 1
    cut = len(source) - alike  # axes at the end that stay, and along which the bounds do not vary
    whole = full(x, source[:cut] + (1,) * alike)
    if whole is None:
        return None
    return [compressed(whole.map(lambda m: m.reshape(target[: len(target) - alike] + (1,) * alike)))]


def compressed(x: Interval) -> Interval:
    """Axes of an image along which bounds do not vary, reduced to length 1."""
    if x.exact or x.ndim < 3:
        return x
    for axis in range(2, x.ndim):
        ends = [(end, np.take(end, [0], axis=axis)) for end in (x.low, x.high)]
        if x.shape[axis] > 1 and all(bool((whole == first).all()) for whole, first in ends):
            x = Interval(ends[0][1], ends[1][1])
    return x


def _tail(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many sizes at the end are equal."""
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count


@rule("Transpose")
def _transpose(given: Given) -> Sequence[Interval] | None:
    x = given.bounds(0)
    order = [int(a) for a in given.node.get("perm", list(range(x.ndim))[::-1])]
    return [x if x.ndim == 0 else x.map(lambda m: m.transpose(order))]


@rule("Concat")
def _concat(given: Given) -> Sequence[Interval] | None:
    parts = []
    axis = int(given.node.get("axis", 1))
    shapes = [given.sample(index) for index in range(len(given.node.inputs))]
    for index, shape in enumerate(shapes):
        x = given.bounds(index)
        if shape is None or x.ndim not in (0, len(shape)):
            return None
        sizes = [s if a == axis % len(shape) or _varies(given, a) else 1 for a, s in enumerate(shape)]
        repeated = full(x, tuple(max(s, x.shape[a] if x.ndim else 1) for a, s in enumerate(sizes)))
        if repeated is None:
            return None
        parts.append(repeated)
    return [concatenated(parts, axis)]


def _varies(given: Given, axis: int) -> bool:
    """Whether any input has bounds that differ along an axis."""
    bounds = (given.bounds(index) for index in range(len(given.node.inputs)))
    return any(x.ndim and x.shape[axis] > 1 for x in bounds)


@rule("Slice")
def _slice(given: Given) -> Sequence[Interval] | None:
    cuts = slices(given)
    if cuts is None:
        return [_hulled(given.bounds(0))]
    x = given.bounds(0)
    return [x if x.ndim == 0 else _cut(x, dict(cuts))]


def slices(given: Given) -> list[tuple[int, slice]] | None:
    """Axes and ranges of a Slice with constant parameters."""
    shape = given.sample(0)
    if shape is None:
        return None
    if given.node.has(1):
        values = [given.constant(i) if given.node.has(i) else None for i in range(1, 5)]
        if (
            values[0] is None
            or values[1] is None
            or any(given.node.has(i) and given.constant(i) is None for i in (3, 4))
        ):
            return None
        starts, ends = values[0].tolist(), values[1].tolist()
        axes = list(range(len(starts))) if values[2] is None else values[2].tolist()
        steps = [1] * len(starts) if values[3] is None else values[3].tolist()
    else:
        starts, ends = list(given.node.get("starts", [])), list(given.node.get("ends", []))
        axes, steps = list(given.node.get("axes", range(len(starts)))), [1] * len(starts)
    found = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = int(axis) % len(shape)
        if given.net.size(given.node.inputs[0], place) is None:
            return None
        size = shape[place]
        indices = np.arange(size)[_python_slice(int(start), int(end), int(step), size)]
        if not len(indices):
            return None
        last = int(indices[-1]) + (1 if step > 0 else -1)
        found.append((place, slice(int(indices[0]), last if last >= 0 else None, int(step))))
    return found


def _python_slice(start: int, end: int, step: int, size: int) -> slice:
    if step < 0 and end < -size:
        return slice(start if start < 0 else min(start, size - 1), None, step)
    return slice(start, end, step)


def _cut(x: Interval, cuts: dict[int, slice]) -> Interval:
    key = tuple(cuts[a] if a in cuts and x.shape[a] > 1 else slice(None) for a in range(x.ndim))
    return x.map(lambda m: m[key])


def _hulled(x: Interval) -> Interval:
    return x.over(tuple(range(x.ndim))).map(lambda m: m.reshape(()))


@rule("Gather")
def _gather(given: Given) -> Sequence[Interval] | None:
    x, indices = given.bounds(0), given.constant(1)
    if x.ndim == 0:
        return [x]
    axis = int(given.node.get("axis", 0)) % x.ndim
    if indices is None or indices.ndim > 1 or given.sample(0) is None:
        return [_hulled(x)]
    size = given.net.size(given.node.inputs[0], axis)
    if x.shape[axis] == 1 and size != 1:
        return [x if indices.ndim == 1 else x.map(lambda m: m.squeeze(axis))]
    return [x.map(lambda m: np.take(m, indices, axis=axis))]


@rule("Split")
def _split(given: Given) -> Sequence[Interval] | None:
    x, shapes = given.bounds(0), [given.result(index) for index in range(len(given.node.outputs))]
    if x.ndim == 0:
        return [x] * len(shapes)
    axis, start, parts = int(given.node.get("axis", 0)) % x.ndim, 0, []
    for shape in shapes:
        if shape is None:
            return [_hulled(x)] * len(shapes)
        cut = {axis: slice(start, start + shape[axis])}
        parts.append(_cut(x, cut))
        start += shape[axis]
    return parts


@rule("Expand")
def _expand(given: Given) -> Sequence[Interval] | None:
    x, target = given.bounds(0), given.result()
    if x.ndim == 0 or target is None:
        return [_hulled(x)]
    return [x.map(lambda m: m.reshape((1,) * (len(target) - m.ndim) + m.shape))]


@rule("Pad")
def _pad(given: Given) -> Sequence[Interval] | None:
    x = given.bounds(0)
    pads = zero_pads(given)
    if pads is None:
        if str(given.node.get("mode", "constant")) != "constant":
            return [_hulled(x)]
        return None
    if x.ndim == 0 or not any(pads):
        return [x if not any(pads) else x.hull(x.like(np.zeros(()), np.zeros(())))]
    touched = [a for a in range(x.ndim) if pads[a] or pads[x.ndim + a]]
    if all(x.shape[a] == 1 and (given.sample(0) or ())[a : a + 1] != (1,) for a in touched):
        return [x.hull(x.like(np.zeros(x.shape), np.zeros(x.shape)))]
    whole = given.full(0)
    if whole is None:
        return None
    widths = [(pads[a], pads[x.ndim + a]) for a in range(x.ndim)]
    return [whole.map(lambda m: np.pad(m, widths, constant_values=0))]


def zero_pads(given: Given) -> list[int] | None:
    """Widths of a border of zeros, those in front first; None for other borders."""
    if str(given.node.get("mode", "constant")) != "constant" or given.node.has(3):
        return None
    pads = given.constant(1) if given.node.has(1) else given.node.get("pads", None)
    value: Any = given.constant(2) if given.node.has(2) else given.node.get("value", 0.0)
    widths = None if pads is None else [int(p) for p in np.asarray(pads).tolist()]
    plain = value is not None and not np.any(value) and widths is not None and min(widths, default=0) >= 0
    shape = given.net.shape(given.node.inputs[0])
    return widths if plain and widths is not None and shape is not None and len(widths) == 2 * len(shape) else None


@rule("Resize", "Upsample")
def _resize(given: Given) -> Sequence[Interval] | None:
    if str(given.node.get("mode", "nearest")) not in ("nearest", "linear"):
        return None
    if str(given.node.get("coordinate_transformation_mode", "half_pixel")) == "tf_crop_and_resize":
        return None
    x, before, after = given.bounds(0), given.sample(0), given.result()
    if x.ndim == 0 or before is None or after is None:
        return [_hulled(x)]
    return [x.over(tuple(a for a in range(x.ndim) if before[a] != after[a] or a > 1))]


@rule("ReduceMean", "ReduceMax", "ReduceMin")
def _reduce(given: Given) -> Sequence[Interval] | None:
    return [_reduced(given, given.bounds(0).over)] if _axes(given) is not None and given.bounds(0).ndim else None


def _reduced(given: Given, rule_of: Any) -> Interval:
    axes = _axes(given) or ()
    hulled: Interval = rule_of(axes)
    if int(given.node.get("keepdims", 1)):
        return hulled
    return hulled.map(lambda m: m.reshape(tuple(s for a, s in enumerate(m.shape) if a not in axes)))


def _axes(given: Given) -> tuple[int, ...] | None:
    rank = len(given.net.shape(given.node.inputs[0]) or ())
    axes = given.constant(1) if given.node.has(1) else given.node.get("axes", None)
    if (given.node.has(1) and axes is None) or not rank:
        return None
    if axes is None or not len(axes):
        return tuple(range(rank))
    return tuple(sorted(int(a) % rank for a in axes))


@rule("ReduceSum")
def _reduce_sum(given: Given) -> Sequence[Interval] | None:
    axes, whole = _axes(given), given.full(0)
    if axes is None or whole is None or given.net.shape(given.node.inputs[0]) != whole.shape:
        return None
    count = int(np.prod([whole.shape[a] for a in axes]))
    summed = contract(lambda w, v: (w * v).sum(axis=axes, keepdims=True), np.ones(()), whole, count)
    return [_reduced(given, lambda _: summed)]
