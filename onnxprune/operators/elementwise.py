"""Operators that act entry by entry: arithmetic, rounding, comparison, logic, selection, conversion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, ClassVar

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy.special import erf

from onnxprune.operators.base import UNKNOWN, Dim, Inputs, NodeView, Operator, Shape
from onnxprune.operators.channels import Axis, ChannelMap
from onnxprune.operators.interval import (
    LARGEST,
    TINY,
    UNIT_ROUNDOFF,
    Array,
    Interval,
    add,
    divide,
    down,
    multiply,
    negate,
    subtract,
    up,
)

KERNEL = 2.0**-49
"""Relative error granted to a numpy or scipy kernel: 8 ulp, where 1 to 4 are documented."""

PRECISION = {
    "float16": (11, 2.0**-24),
    "bfloat16": (8, 2.0**-133),
    "float32": (24, 2.0**-149),
    "float64": (53, 2.0**-1074),
}
"""Significant bits and smallest subnormal of the floating-point types that Cast understands."""


def increasing(
    x: Interval,
    kernel: Callable[[Array], Array],
    *,
    low: float = -np.inf,
    high: float = np.inf,
    zero: float | None = None,
    error: Callable[[Array], Array | float] = lambda ends: KERNEL,
) -> Interval:
    """Image of a non-decreasing function with values in ``[low, high]``.

    Args:
        x: Bounds of the argument.
        kernel: The function in float64.
        low: Infimum of the function.
        high: Supremum of the function.
        zero: Where the function is exactly zero: the bounds keep the sign that follows.
        error: Relative error of the kernel at an array of arguments (the smallest normal number is added).
    """
    with np.errstate(all="ignore"):
        left, right = np.minimum(kernel(x.lower), LARGEST), np.maximum(kernel(x.upper), -LARGEST)
        lower = np.maximum(down(left - np.abs(left) * error(x.lower) - TINY), low)
        upper = np.minimum(up(right + np.abs(right) * error(x.upper) + TINY), high)
    if zero is not None:
        lower = np.where(x.lower >= zero, np.maximum(lower, 0.0), lower)
        upper = np.where(x.upper <= zero, np.minimum(upper, 0.0), upper)
    return Interval.of(lower, upper)


def given(inputs: Inputs, index: int) -> Interval:
    """Bounds of an input that must be there; nothing is excluded where they are missing."""
    bounds = inputs[index] if index < len(inputs) else None
    return Interval.everything() if bounds is None else bounds


def operand_shape(node: NodeView, index: int) -> Shape | None:
    """Symbolic shape of an input, read off the values where it is an initializer."""
    values = node.constant(index)
    return node.in_shape(index) if values is None else tuple(values.shape)


def element_type(node: NodeView) -> np.dtype[Any] | None:
    """Element type of an output that has the type of the first input."""
    known = node.types.get(node.output(), UNKNOWN).dtype
    return node.in_type(0).dtype if known is None else known


def wrapped(dtype: np.dtype[Any] | None, values: Interval) -> Interval:
    """Bounds of an integer result: whole numbers, and the full range of the type where it may overflow."""
    if dtype is None or dtype.kind not in "iu":
        return values
    info = np.iinfo(dtype)
    lower, upper = np.ceil(values.lower), np.floor(values.upper)
    overflow = (lower < float(info.min)) | (upper >= float(info.max + 1))
    return Interval.of(np.where(overflow, float(info.min), lower), np.where(overflow, float(info.max), upper))


def truncated(dtype: np.dtype[Any] | None, values: Interval) -> Interval:
    """Bounds after the rounding of an integer division; an unknown type may be an integer type."""
    if dtype is not None and dtype.kind not in "iu":
        return values
    lower, upper = np.trunc(values.lower), np.trunc(values.upper)
    return wrapped(dtype, Interval.of(np.minimum(lower, values.lower), np.maximum(upper, values.upper)))


def select(mask: NDArray[np.bool_], yes: Interval, no: Interval) -> Interval:
    """``yes`` where the mask holds, else ``no``."""
    return Interval.of(np.where(mask, yes.lower, no.lower), np.where(mask, yes.upper, no.upper))


def absolute(x: Interval) -> Interval:
    """|x|, exact."""
    least = np.minimum(np.abs(x.lower), np.abs(x.upper))
    return Interval.of(np.where((x.lower <= 0) & (x.upper >= 0), 0.0, least), x.magnitude())


def unary_channels(node: NodeView, links: ChannelMap) -> bool:
    """Index i of every axis of the first input belongs to index i of that axis of every output."""
    shape = operand_shape(node, 0)
    shape = node.out_shape() if shape is None else shape
    if shape is None:
        return False
    outputs = [str(tensor.name) for tensor in node.node.outputs if tensor.name]
    for name in outputs:
        for axis in range(len(shape)):
            links.same((node.input(0), axis), (name, axis))
    return True


def broadcast_channels(node: NodeView, links: ChannelMap, operands: Sequence[int]) -> bool:
    """The rule of ONNX broadcasting (shapes aligned right) for these inputs and the first output."""
    target = node.out_shape()
    if target is None:
        return False
    shapes = [operand_shape(node, index) for index in operands]
    if any(shape is None or len(shape) > len(target) for shape in shapes):
        return False
    for index, shape in zip(operands, shapes, strict=True):
        for axis, size in enumerate(shape or ()):
            place = len(target) - len(shape or ()) + axis
            _broadcast_axis(links, (node.input(index), axis), size, (node.output(), place), target[place])
    return True


def _broadcast_axis(links: ChannelMap, operand: Axis, size: Dim, result: Axis, target: Dim) -> None:
    size, target = links.sizes.get(operand, size), links.sizes.get(result, target)
    if isinstance(size, int) and size == target:
        links.same(operand, result)
    elif size == 1:
        links.lock(operand, "broadcast")
    elif isinstance(size, str) and size == target:
        links.mention(operand, result)
    else:
        links.lock(operand, "size unknown")
        links.lock(result, "size unknown")


class Elementwise(Operator):
    """An operator whose every output entry depends on one entry of each input.

    Attributes:
        homogeneous: f(s x) = s f(x) for every s > 0 (all data inputs scaled together).
    """

    homogeneous: ClassVar[bool] = False

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """The closed interval on which the operator hands its first input on unchanged, or None."""
        return None


class Unary(Elementwise):
    """One data input."""

    def image(self, node: NodeView, x: Interval) -> Interval | None:
        """Bounds of the output, None when nothing is known."""
        raise NotImplementedError

    def interval(self, node: NodeView, inputs: Inputs) -> Sequence[Interval] | None:
        """Bounds of the one output."""
        result = self.image(node, given(inputs, 0))
        return None if result is None else [result]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Every axis index for index."""
        return unary_channels(node, links)


class Broadcasting(Elementwise):
    """Several data inputs, broadcast against one another."""

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Bounds of the output from those of the operands."""
        raise NotImplementedError

    def supported(self, node: NodeView) -> bool:
        """Before opset 7 a broadcast operand was placed by an attribute ``axis``: opaque."""
        return node.opset >= 7 or not node.attr("broadcast", 0)

    def interval(self, node: NodeView, inputs: Inputs) -> Sequence[Interval] | None:
        """Bounds of the one output, at its rank."""
        if not self.supported(node):
            return None
        parts = [given(inputs, index) for index in range(node.n_inputs)]
        result = self.combine(node, parts)
        return [_at_rank(node, parts, result)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Axes aligned right."""
        return self.supported(node) and broadcast_channels(node, links, range(node.n_inputs))


def _at_rank(node: NodeView, parts: list[Interval], result: Interval) -> Interval:
    """Bounds without axes stand for any rank: where they met others, the tensor's own rank decides."""
    if result.ndim == 0:
        return result
    shapes = [node.out_shape()]
    if shapes[0] is None:
        shapes = [operand_shape(node, index) for index in range(node.n_inputs)]
    if all(shape is not None for shape in shapes):
        return result.aligned(max(result.ndim, *(len(shape or ()) for shape in shapes)))
    if all(part.ndim for part in parts):
        return result
    return Interval.of(result.lower.min(), result.upper.max())


class Linear(Broadcasting):
    """Sums and means; exactly 2 a and 0 where an operand meets itself."""

    op_types = ("Add", "Sub", "Sum", "Mean")
    homogeneous = True

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Sum of the ends."""
        if len(parts) == 2 and node.op in ("Add", "Sub") and node.input(0) == node.input(1):
            return wrapped(element_type(node), self._repeated(node, parts[0]))
        total = subtract(*parts) if node.op == "Sub" else reduce(add, parts)
        if node.op == "Mean":
            return divide(total, Interval.point(float(len(parts))))
        return wrapped(element_type(node), total)

    @staticmethod
    def _repeated(node: NodeView, x: Interval) -> Interval:
        if node.op == "Sub":
            return Interval.point(np.zeros(x.shape))
        with np.errstate(over="ignore"):
            return Interval.of(np.minimum(2 * x.lower, LARGEST), np.maximum(2 * x.upper, -LARGEST))


class Extremum(Broadcasting):
    """Largest or smallest operand, exact."""

    op_types = ("Max", "Min")
    homogeneous = True

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Extremum of the ends."""
        choose = np.maximum if node.op == "Max" else np.minimum
        lowers, uppers = [part.lower for part in parts], [part.upper for part in parts]
        return Interval.of(reduce(choose, lowers), reduce(choose, uppers))


class Mul(Broadcasting):
    """a * b; never negative where an operand meets itself."""

    op_types = ("Mul",)

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Products of the ends."""
        if node.input(0) == node.input(1):
            size = absolute(parts[0])
            return wrapped(element_type(node), multiply(size, size).clamp(0.0, np.inf))
        return wrapped(element_type(node), multiply(*parts))


class Div(Broadcasting):
    """a / b; truncated for integers."""

    op_types = ("Div",)

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Quotients of the ends."""
        return truncated(element_type(node), divide(*parts))


class Pow(Broadcasting):
    """x ** y: fixed whole exponents for any base, others for a base that can not be negative."""

    op_types = ("Pow",)

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Each case computed everywhere and chosen per entry."""
        x, y = parts
        fixed = (y.lower == y.upper) & np.isfinite(y.lower)
        parity = np.abs(np.where(fixed, y.lower, 0.5) % 2)
        # A fixed fractional power of a negative number is not finite, which the domain rules out.
        real = (x.lower >= 0) | (fixed & (x.upper >= 0))
        result = select(real, _power(x.clamp(0.0, np.inf), y), Interval.everything())
        result = select(parity == 0, _power(absolute(x), y), result)
        result = select(parity == 1, _odd_power(x, y), result)
        return truncated(element_type(node), result)


def _power(base: Interval, y: Interval) -> Interval:
    """Power of a base that is not negative: extreme at the corners, unknown where 0 meets exponents <= 0."""
    lows, highs = [], []
    with np.errstate(all="ignore"):
        for b in (base.lower, base.upper):
            for e in (y.lower, y.upper):
                value = np.power(b, e)
                exact = ((b == 0) & (e > 0)) | (b == 1) | (e == 0) | (e == 1)
                below = np.minimum(value, LARGEST) * (1 - KERNEL) - TINY
                lows.append(np.where(exact, value, np.maximum(below, 0.0)))
                highs.append(np.where(exact, value, value * (1 + KERNEL) + TINY))
    hull = Interval.of(np.minimum.reduce(lows), np.maximum.reduce(highs))
    one = (y.lower == 0) & (y.upper == 0)
    return select((base.lower > 0) | (y.lower > 0) | one, hull, Interval.everything())


def _odd_power(x: Interval, y: Interval) -> Interval:
    """Odd powers: increasing for y > 0, the reciprocal of that for y < 0."""
    ends = []
    for end in (x.lower, x.upper):
        power = _power(Interval.point(np.abs(end)), absolute(y))
        ends.append(select(end < 0, negate(power), power))
    rising = Interval.of(ends[0].lower, ends[1].upper)
    return select(y.lower < 0, divide(Interval.point(1.0), rising), rising)


class Neg(Unary):
    """-x, exact."""

    op_types = ("Neg",)
    homogeneous = True

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Ends exchanged."""
        return wrapped(element_type(node), negate(x))


class Abs(Unary):
    """|x|, exact."""

    op_types = ("Abs",)
    homogeneous = True

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Zero inside, else the smaller end."""
        return wrapped(element_type(node), absolute(x))

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """The non-negative numbers."""
        return 0.0, np.inf


class Steps(Unary):
    """Non-decreasing steps, exact."""

    op_types = ("Floor", "Ceil", "Round", "Sign")
    kernels: ClassVar[dict[str, Callable[[Array], Array]]] = {
        "Floor": np.floor,
        "Ceil": np.ceil,
        "Round": np.rint,
        "Sign": np.sign,
    }

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Image of the ends."""
        return x.map(self.kernels[node.op])


class Elementary(Unary):
    """Increasing elementary functions."""

    op_types = ("Exp", "Log", "Sqrt", "Erf")

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Image of the ends; arguments without a finite value are ruled out by the domain."""
        if node.op == "Exp":
            return increasing(x, np.exp, low=0.0)
        if node.op == "Erf":
            return increasing(x, erf, low=-1.0, high=1.0, zero=0.0)
        defined = x.clamp(0.0, np.inf)
        if node.op == "Log":
            return select(x.upper > 0, increasing(defined, np.log, zero=1.0), Interval.everything())
        root = increasing(defined, np.sqrt, low=0.0, zero=0.0, error=lambda _: UNIT_ROUNDOFF)
        return select(x.upper >= 0, root, Interval.everything())


class Reciprocal(Unary):
    """1 / x."""

    op_types = ("Reciprocal",)

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Unbounded where x may be zero."""
        return divide(Interval.point(1.0), x)


class Sinusoid(Unary):
    """Sine and cosine."""

    op_types = ("Sin", "Cos")

    def image(self, node: NodeView, x: Interval) -> Interval:
        """The ends, and 1 or -1 where a crest or a trough can not be excluded."""
        sine = node.op == "Sin"
        ends = []
        for end in (x.lower, x.upper):
            with np.errstate(all="ignore"):
                value = np.sin(end) if sine else np.cos(end)
            error = KERNEL * np.minimum(1.0, np.abs(end)) if sine else KERNEL
            wide = Interval.of(down(value - error), up(value + error))
            ends.append(select(end == 0, Interval.point(value), wide))
        hull = ends[0].hull(ends[1])
        crest = np.pi / 2 if sine else 0.0
        lower = np.where(_meets(x, crest + np.pi), -1.0, hull.lower)
        return Interval.of(lower, np.where(_meets(x, crest), 1.0, hull.upper)).clamp(-1.0, 1.0)


def _meets(x: Interval, phase: float) -> NDArray[np.bool_]:
    """Whether ``phase + 2 k pi`` may lie inside for a whole number k."""
    first, last = (x.lower - phase) / (2 * np.pi), (x.upper - phase) / (2 * np.pi)
    with np.errstate(all="ignore"):
        first = np.where(np.isfinite(first), first - 1e-14 * (1 + np.abs(first)), -np.inf)
        last = np.where(np.isfinite(last), last + 1e-14 * (1 + np.abs(last)), np.inf)
    meets: NDArray[np.bool_] = np.ceil(first) <= np.floor(last)
    return meets


class Comparison(Broadcasting):
    """Truth values: 0, 1, or both."""

    op_types = ("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Decided where the bounds decide."""
        a, b = parts if node.op[0] != "G" else parts[::-1]
        if node.op == "Equal":
            points = (a.lower == a.upper) & (b.lower == b.upper) & np.isfinite(a.lower)
            return Interval.of(points & (a.lower == b.lower), (a.lower <= b.upper) & (b.lower <= a.upper))
        if node.op in ("Less", "Greater"):
            return Interval.of(a.upper < b.lower, a.lower < b.upper)
        return Interval.of(a.upper <= b.lower, a.lower <= b.upper)


class Logic(Broadcasting):
    """Boolean operators: 0, 1, or both."""

    op_types = ("And", "Or", "Xor")

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """Smallest, largest, or difference of truth values."""
        a, b = (part.clamp(0.0, 1.0) for part in parts)
        if node.op == "And":
            return Interval.of(np.minimum(a.lower, b.lower), np.minimum(a.upper, b.upper))
        either = Interval.of(np.maximum(a.lower, b.lower), np.maximum(a.upper, b.upper))
        if node.op == "Or":
            return either
        decided = (a.lower == a.upper) & (b.lower == b.upper)
        return select(decided, absolute(subtract(a, b)), Interval.of(0.0, 1.0)).clamp(0.0, 1.0)


class Not(Unary):
    """Negation of a truth value."""

    op_types = ("Not",)

    def image(self, node: NodeView, x: Interval) -> Interval:
        """1 - x."""
        truth = x.clamp(0.0, 1.0)
        return Interval.of(1 - truth.upper, 1 - truth.lower)


class Where(Broadcasting):
    """Choice between two operands."""

    op_types = ("Where",)

    def combine(self, node: NodeView, parts: list[Interval]) -> Interval:
        """The chosen operand where the condition is decided, else the hull."""
        condition, yes, no = parts
        return select(condition.lower > 0, yes, select(condition.upper <= 0, no, yes.hull(no)))


class Cast(Unary):
    """Conversion between number types; to and from 8-bit floats, sub-byte types and strings: unknown."""

    op_types = ("Cast",)

    def image(self, node: NodeView, x: Interval) -> Interval | None:
        """Rounding for floats, truncation for integers, comparison with zero for truth values."""
        target, source = node.attr("to"), node.in_type(0).dtype
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(target) if isinstance(target, int) else np.dtype(target)
        except (KeyError, TypeError):
            return None
        if source is not None and source.kind == "b":
            x = x.clamp(0.0, 1.0)
        if dtype.kind == "b":
            return Interval.of((x.lower > 0) | (x.upper < 0), (x.lower != 0) | (x.upper != 0))
        if dtype.kind in "iu":
            return wrapped(dtype, x.map(np.trunc))
        return _rounded(x, source, dtype) if dtype.name in PRECISION else None


def _rounded(x: Interval, source: np.dtype[Any] | None, target: np.dtype[Any]) -> Interval:
    """Bounds of x and of x rounded to a floating-point type; ends that have this type already stay."""
    bits, smallest = PRECISION[target.name]
    if source is not None and source.name in PRECISION:
        old_bits, old_smallest = PRECISION[source.name]
        if old_bits <= bits and old_smallest >= smallest:
            return x
    ends = []
    for end, outward in ((x.lower, -1.0), (x.upper, 1.0)):
        with np.errstate(all="ignore"):
            stays = end.astype(target).astype(np.float64) == end
            slack = np.where(np.isinf(end), 0.0, 1.01 * 2.0**-bits * np.abs(end) + smallest)
            ends.append(np.where(stays, end, np.nextafter(end + outward * slack, outward * np.inf)))
    return Interval.of(*ends)


class Identity(Unary):
    """x."""

    op_types = ("Identity",)
    homogeneous = True

    def image(self, node: NodeView, x: Interval) -> Interval:
        """Unchanged."""
        return x

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """Everything."""
        return -np.inf, np.inf


class Dropout(Elementwise):
    """x at inference; the mask is not bounded, and neither is anything in training mode."""

    op_types = ("Dropout",)
    homogeneous = True

    @staticmethod
    def _inference(node: NodeView) -> bool:
        if node.opset < 7:
            return bool(node.attr("is_test", 0))
        if node.opset < 12 or not node.has_input(2):
            return True
        training = node.constant(2)
        return training is not None and not training.any()

    def interval(self, node: NodeView, inputs: Inputs) -> Sequence[Interval] | None:
        """Unchanged, then the mask."""
        mask = [Interval.everything()] * (node.n_outputs - 1)
        return [given(inputs, 0), *mask] if self._inference(node) else None

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Every axis index for index, the mask's too."""
        return self._inference(node) and unary_channels(node, links)

    def identity_on(self, node: NodeView) -> tuple[float, float] | None:
        """Everything, at inference."""
        return (-np.inf, np.inf) if self._inference(node) else None


OPERATORS: tuple[type[Operator], ...] = (
    Linear,
    Extremum,
    Mul,
    Div,
    Pow,
    Neg,
    Abs,
    Steps,
    Elementary,
    Reciprocal,
    Sinusoid,
    Comparison,
    Logic,
    Not,
    Where,
    Cast,
    Identity,
    Dropout,
)
