"""How coefficients go back through affine nodes: from those on the outputs to those on the inputs.

Arrays of coefficients have shape (rows, *sample), in float64 or as exact numbers. Each step also says how large the
sums can be that it was computed with, so that rounding can be paid for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.dyadic import Dyadic
from onnxprune.verify.forward import Given
from onnxprune.verify.numbers import Interval, Numbers
from onnxprune.verify.rules_entries import reciprocal
from onnxprune.verify.rules_layers import scale_and_shift
from onnxprune.verify.rules_shape import slices, zero_pads
from onnxprune.verify.windows import convolved, geometry, spread_back

Floats = NDArray[np.float64]
RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass
class Step:
    """An affine node ``y = sum of A_i x_i + b``, as far as a walk back needs it.

    Attributes:
        back: Per variable input, from coefficients on y to those on it.
        shift: Bounds on b, of a shape that broadcasts against one sample; None for zero.
        terms: Most products in one sum; 0 where nothing is rounded.
        always: The same where numbers are exact: more than 0 for factors that are irrational.
        forward: Most products in one sum of the node itself.
        size: From largest sizes of the variable inputs to those of the sums of absolute terms, for one sample.
    """

    back: dict[int, Callable[[Numbers], Numbers]]
    shift: Interval | None
    terms: int
    size: Callable[[dict[int, Floats]], Floats]
    always: int = 0
    forward: int = 0


def times(rule: Callable[[Any, Any], Any], weights: NDArray[Any], rows: Numbers) -> Numbers:
    """A product with exact weights, in the arithmetic of the rows."""
    if isinstance(rows, Dyadic):
        return rows.combined(Dyadic.of(weights), rule)
    return rule(weights.astype(np.float64), rows)


def moved(rows: Numbers, rule: Callable[[NDArray[Any]], NDArray[Any]]) -> Numbers:
    """A rearrangement."""
    return rows.map(rule) if isinstance(rows, Dyadic) else rule(rows)


def step(given: Given) -> Step | None:
    """The node as a step back; None where it is not affine or its sizes are open."""
    node = given.node
    shapes = [given.sample(i) if given.node.has(i) else None for i in range(len(node.inputs))]
    if not shapes or given.result() is None:
        return None
    if node.op in ("Identity", "Dropout"):
        return _moving(0, lambda m: m)
    if node.op in RESHAPES:
        return _reshaped(shapes[0], given.result())
    maker = _MAKERS.get(node.op)
    return maker(given, shapes) if maker is not None else None


def _moving(index: int, rule: Callable[[NDArray[Any]], NDArray[Any]], size: Any = None) -> Step:
    return Step({index: lambda rows: moved(rows, rule)}, None, 0, size or (lambda sizes: sizes[index]))


def _reshaped(source: tuple[int, ...] | None, target: tuple[int, ...] | None) -> Step | None:
    if source is None or target is None or int(np.prod(source)) != int(np.prod(target)):
        return None
    return _moving(0, lambda m: m.reshape(len(m), *source), lambda sizes: sizes[0].reshape(target))


def _transpose(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    if shapes[0] is None:
        return None
    order = [int(a) for a in given.node.get("perm", list(range(len(shapes[0])))[::-1])]
    back = [0, *(int(a) + 1 for a in np.argsort(order))]
    return _moving(0, lambda m: m.transpose(back), lambda sizes: sizes[0].transpose(order))


def _gemm(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    weights = given.constant(1)
    if weights is None or int(given.node.get("transA", 0)) or shapes[0] is None:
        return None
    factor = float(given.node.get("alpha", 1.0))
    matrix = weights if int(given.node.get("transB", 0)) else weights.T
    bias = given.bounds(2) if given.node.has(2) else None
    if bias is not None and float(given.node.get("beta", 1.0)) != 1.0:
        bias = bias * given.point(float(given.node.get("beta", 1.0)))
    absolute = np.abs(factor) * np.abs(matrix.astype(np.float64))

    def back(rows: Numbers) -> Numbers:
        scaled = rows if factor == 1.0 else rows * (Dyadic.of(factor) if isinstance(rows, Dyadic) else factor)
        return times(lambda w, a: a @ w, matrix, scaled)

    return Step(
        {0: back},
        bias,
        max(matrix.shape) + 1,
        lambda sizes: sizes[0] @ absolute.T + _height(bias),
        forward=matrix.shape[1] + 2,
    )


def _height(shift: Interval | None) -> Any:
    return 0.0 if shift is None else np.maximum(*(np.abs(end) for end in shift.floats()))


def _matmul(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    weights = given.constant(1)
    if weights is not None and weights.ndim == 2:
        absolute = np.abs(weights.astype(np.float64))
        return Step(
            {0: lambda rows: times(lambda w, a: a @ w.T, weights, rows)},
            None,
            max(weights.shape),
            lambda sizes: sizes[0] @ absolute,
            forward=weights.shape[0],
        )
    first = given.constant(0)
    if first is None or first.ndim != 2 or len(shapes) < 2 or shapes[1] is None or len(shapes[1]) < 2:
        return None
    absolute = np.abs(first.astype(np.float64))
    return Step(
        {1: lambda rows: times(lambda w, a: np.matmul(w.T, a), first, rows)},
        None,
        max(first.shape),
        lambda sizes: np.matmul(absolute, sizes[1]),
        forward=first.shape[1],
    )


def _conv(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    weights = given.constant(1)
    if weights is None or weights.ndim < 3 or shapes[0] is None or shapes[0][0] != 1:
        return None
    sizes = shapes[0][2:]
    where, groups = geometry(given.node, weights.shape[2:], sizes), int(given.node.get("group", 1))
    if where is None:
        return None
    bias = given.bounds(2) if given.node.has(2) else None
    if bias is not None and bias.ndim:
        bias = bias.map(lambda m: m.reshape(1, -1, *(1,) * len(sizes)))
    absolute = np.abs(weights.astype(np.float64))

    def back(rows: Numbers) -> Numbers:
        def flat(w: Any, a: Any) -> Any:
            return spread_back(w, a.reshape(len(a), *a.shape[2:]), where, groups, sizes)[:, None]

        return times(flat, weights, rows)

    return Step(
        {0: back},
        bias,
        int(np.prod(weights.shape[2:])) * weights.shape[0] + int(np.prod(weights.shape[1:])),
        lambda given_sizes: convolved(absolute, given_sizes[0], where, groups) + _height(bias),
        forward=int(np.prod(weights.shape[1:])) + 1,
    )


def _add(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    return _sum(given, shapes, 1)


def _sub(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    return _sum(given, shapes, -1)


def _sum(given: Given, shapes: list[tuple[int, ...] | None], sign: int) -> Step | None:
    if len(given.node.inputs) != 2:
        return None
    constants = [_fixed(given, index) for index in (0, 1)]
    result = given.result()
    back: dict[int, Callable[[Numbers], Numbers]] = {}
    for index in (0, 1):
        if constants[index] is None:
            if shapes[index] != result:
                return None
            back[index] = (lambda rows: -rows) if index and sign < 0 else (lambda rows: rows)
    known = [c if index == 0 or sign > 0 else -c for index, c in enumerate(constants) if c is not None]
    shift = known[0] if len(known) == 1 else None
    if len(known) == 2:
        return None
    return Step(back, shift, 0, lambda sizes: sum(sizes.values()) + _height(shift), forward=1)


def _fixed(given: Given, index: int) -> Interval | None:
    """Bounds on an operand that is a constant."""
    return given.bounds(index) if given.node.inputs[index] in given.net.constants else None


def _neg(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    del given, shapes
    return Step({0: lambda rows: -rows}, None, 0, lambda sizes: sizes[0])


def _mul(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    for place in (0, 1):
        factor = _fixed(given, place)
        if factor is not None and shapes[1 - place] == given.result():
            return _scaling(1 - place, factor, None)
    return None


def _div(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    known = _fixed(given, 1)
    inverse = None if known is None else reciprocal(known)
    return _scaling(0, inverse, None) if inverse is not None and shapes[0] == given.result() else None


def _scaling(index: int, factor: Interval, shift: Interval | None) -> Step | None:
    """A product with factors that are single numbers, or intervals a few roundings wide."""
    low, high = factor.floats()
    middle = low / 2 + high / 2
    if (high - low > 2.0**-40 * np.abs(middle)).any():
        return None
    width = float(np.max(np.where(middle == 0, 0.0, (high - low) / np.where(middle == 0, 1.0, np.abs(middle)))))
    width_terms = int(np.ceil(width * 2.0**53))
    return Step(
        {index: lambda rows: rows * (Dyadic.of(middle) if isinstance(rows, Dyadic) else middle)},
        shift,
        1 + width_terms,
        lambda sizes: sizes[index] * np.abs(middle) + _height(shift),
        always=width_terms,
        forward=4,
    )


def _normalize(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    affine = scale_and_shift(given)
    if affine is None or shapes[0] is None:
        return None
    rank = len(shapes[0])
    scale, shift, mean = (p.map(lambda m: m.reshape(1, -1, *(1,) * max(0, rank - 2))) for p in affine)
    return _scaling(0, scale, shift - mean * scale)


def _concat(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    if any(shape is None for shape in shapes) or any(n in given.net.constants for n in given.node.inputs):
        return None
    axis = int(given.node.get("axis", 1)) % len(shapes[0] or ())
    ends = np.cumsum([0, *(shape[axis] for shape in shapes if shape is not None)])

    def part(index: int) -> Callable[[Numbers], Numbers]:
        cut = slice(int(ends[index]), int(ends[index + 1]))
        key = (slice(None),) * (axis + 1) + (cut,)
        return lambda rows: moved(rows, lambda m: m[key])

    return Step(
        {index: part(index) for index in range(len(shapes))},
        None,
        0,
        lambda sizes: np.concatenate([sizes[index] for index in range(len(shapes))], axis=axis),
    )


def _slice(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    cuts = slices(given)
    if cuts is None or shapes[0] is None:
        return None
    chosen = dict(cuts)
    key = tuple(chosen.get(axis, slice(None)) for axis in range(len(shapes[0])))
    return _taken(shapes[0], key)


def _gather(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    indices = given.constant(1)
    if indices is None or indices.ndim > 1 or shapes[0] is None:
        return None
    axis = int(given.node.get("axis", 0)) % len(shapes[0])
    return _taken(shapes[0], (slice(None),) * axis + (indices,))


def _taken(shape: tuple[int, ...], key: tuple[Any, ...]) -> Step | None:
    places = np.arange(int(np.prod(shape))).reshape(shape)[key]
    if len(np.unique(places)) < places.size:
        return None

    def back(m: NDArray[Any]) -> NDArray[Any]:
        result = np.zeros((len(m), int(np.prod(shape))), dtype=m.dtype)
        result[:, places.reshape(-1)] = m.reshape(len(m), -1)
        return result.reshape(len(m), *shape)

    return _moving(0, back, lambda sizes: sizes[0][key])


def _pad(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    pads, shape = zero_pads(given), shapes[0]
    if pads is None or shape is None:
        return None
    rank = len(shape)
    key = (slice(None), *(slice(pads[a], pads[a] + shape[a]) for a in range(rank)))
    widths = [(pads[a], pads[rank + a]) for a in range(rank)]
    return _moving(0, lambda m: m[key], lambda sizes: np.pad(sizes[0], widths))


def _global_mean(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    shape = shapes[0]
    if shape is None or len(shape) < 3:
        return None
    axes, count = tuple(range(2, len(shape))), int(np.prod(shape[2:]))
    share = 1.0 / count

    def back(rows: Numbers) -> Numbers:
        spread = moved(rows, lambda m: np.broadcast_to(m, (*m.shape[:3], *shape[2:])))
        return spread * (Dyadic.of(share) if isinstance(rows, Dyadic) else share)

    return Step({0: back}, None, 2, lambda sizes: sizes[0].mean(axis=axes, keepdims=True), always=2, forward=count + 1)


def _mean(given: Given, shapes: list[tuple[int, ...] | None]) -> Step | None:
    kernel, shape = tuple(int(k) for k in given.node.get("kernel_shape", ())), shapes[0]
    if shape is None or shape[0] != 1 or int(given.node.get("ceil_mode", 0)):
        return None
    where, channels, count = geometry(given.node, kernel, shape[2:]), shape[1], int(np.prod(kernel))
    if where is None or (where.padded and not int(given.node.get("count_include_pad", 0))):
        return None
    ones, share = np.ones((channels, 1, *kernel)), 1.0 / count

    def back(rows: Numbers) -> Numbers:
        def flat(w: Any, a: Any) -> Any:
            return spread_back(w, a.reshape(len(a), *a.shape[2:]), where, channels, shape[2:])[:, None]

        return times(flat, ones, rows) * (Dyadic.of(share) if isinstance(rows, Dyadic) else share)

    size: Any = lambda sizes: convolved(ones, sizes[0], where, channels) * share  # noqa: E731
    return Step({0: back}, None, count + 2, size, always=2, forward=count + 1)


_MAKERS: dict[str, Callable[[Given, list[tuple[int, ...] | None]], Step | None]] = {
    "Add": _add,
    "AveragePool": _mean,
    "BatchNormalization": _normalize,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _div,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_mean,
    "MatMul": _matmul,
    "Mul": _mul,
    "Neg": _neg,
    "Pad": _pad,
    "Slice": _slice,
    "Sub": _sub,
    "Transpose": _transpose,
}
