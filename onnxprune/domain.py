"""The set of inputs on which a promise holds: every finite input, a box, a box with linear constraints."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation
from difflib import get_close_matches
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxprune import vnnlib
from onnxprune.errors import InputError

Array = NDArray[np.float64]
SampleKind = Literal["uniform", "corner", "center", "normal"]

_TRIES = 100
_BFLOAT16_MAX = float.fromhex("0x1.fep127")


@dataclass(frozen=True)
class InputSpec:
    """Name, element type and symbolic shape of one model input (None: the rank is unknown)."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, eq=False)
class Box:
    """Inclusive bounds on one input: equal shapes, no axes or the input's rank with each axis full or 1."""

    lower: Array
    upper: Array

    @property
    def fixed(self) -> int:
        """Number of entries that the box leaves no choice."""
        return int(np.count_nonzero(self.lower == self.upper))


_FREE = Box(np.array(-math.inf), np.array(math.inf))
_Piece = tuple[InputSpec, Array, Array]


@dataclass(frozen=True)
class Constraint:
    """``sum of coefficient * input[flat index] <= bound``; ``terms`` holds (input, flat index, coefficient).

    The index is row-major within one sample: dynamic axes count as 1.
    """

    terms: tuple[tuple[str, int, float], ...]
    bound: float


@dataclass(frozen=True, eq=False)
class Domain:
    """A set of inputs, in real numbers: boxes by input name and linear constraints across them.

    Inputs without a box take every finite value of their type. An input that a constraint mentions has a box
    of full shape, be it infinite. Build domains with `parse_domain` and `around`, which check them.
    """

    boxes: Mapping[str, Box] = field(default_factory=dict)
    constraints: tuple[Constraint, ...] = ()
    origin: str = "everything finite"

    @staticmethod
    def everything() -> Domain:
        """Every finite input."""
        return Domain()

    @property
    def restricts(self) -> bool:
        """Whether anything finite is left out."""
        finite = (np.isfinite(ends).any() for box in self.boxes.values() for ends in (box.lower, box.upper))
        return bool(self.constraints) or any(finite)

    def bounds(self, spec: InputSpec) -> tuple[Array, Array]:
        """Bounds on an input, its type's range included: no axes, or the input's rank with axes full or 1."""
        low, high = _limits(spec.dtype) or (-math.inf, math.inf)
        box = self.boxes.get(spec.name, _FREE)
        return np.asarray(np.maximum(box.lower, low)), np.asarray(np.minimum(box.upper, high))

    def contains(self, data: Mapping[str, NDArray[Any]]) -> bool:
        """Whether all data lie inside, decided exactly."""
        return not self.violations(data)

    def violations(self, data: Mapping[str, NDArray[Any]]) -> list[str]:
        """A sentence for each input that leaves its box or is not finite; else for each broken constraint.

        Arrays may have samples along a leading axis.
        """
        found = []
        for name, values in data.items():
            if _limits(values.dtype) is not None:
                excess = self._excess(name, values.astype(np.float64))
                if count := np.count_nonzero(excess > 0):
                    what = f"{count} of {excess.size} values of input '{name}'"
                    found.append(f"{what} lie outside the domain, by up to {excess.max():.3g}.")
        checkable = [c for c in self.constraints if not found and all(name in data for name, _, _ in c.terms)]
        for constraint in checkable:
            totals = sum(self._column(data, name, index) * Fraction(c) for name, index, c in constraint.terms)
            if count := sum(total > Fraction(constraint.bound) for total in totals):
                terms = " + ".join(f"{c:g} {name}[{index}]" for name, index, c in constraint.terms)
                found.append(f"{count} of {len(totals)} samples break {terms} <= {constraint.bound:g}.")
        return found

    def sample(
        self,
        specs: Sequence[InputSpec],
        shapes: Mapping[str, tuple[int, ...]],
        rng: np.random.Generator,
        kind: SampleKind = "uniform",
    ) -> dict[str, NDArray[Any]]:
        """Draw one value for every input, inside the boxes after rounding to the input's type.

        A float without a bound stays within 1 (now and then 10) of zero or of its other bound; free integers
        of more than one byte are 0 or 1, since most are indices. "center" and "corner" refer to this window.
        Linear constraints are met by rejection: after 100 failures the last draw, inside the boxes only, is
        returned, so ask `contains` where it matters.
        """
        for _ in range(_TRIES):
            feeds = {spec.name: _draw(spec, self.bounds(spec), shapes[spec.name], rng, kind) for spec in specs}
            if not self.constraints or self.contains(feeds):
                break
        return feeds

    def to_metadata(self) -> dict[str, str]:
        """One text per input for the model's metadata; equal texts mean equal domains.

        `parse_domain` reads "lower:upper" back as the same box: rounded inward here, outward there.
        """
        texts = {f"onnxprune.domain.{name}": _metadata(box) for name, box in self.boxes.items()}
        if self.constraints:
            digest = hashlib.sha256(repr(self.constraints).encode()).hexdigest()
            texts["onnxprune.domain"] = f"{len(self.constraints)} linear constraints, sha256:{digest}"
        return texts

    def describe(self) -> str:
        """One line for a terminal."""
        parts = []
        for name, box in list(self.boxes.items())[:3]:
            fixed = f" ({box.fixed} of {box.lower.size} fixed)" if box.fixed else ""
            parts.append(f"{name} in {box.lower.min():.6g}:{box.upper.max():.6g}{fixed}")
        if len(self.boxes) > 3:
            parts.append(f"{len(self.boxes) - 3} more inputs bounded")
        if self.constraints:
            parts.append(f"linear constraints: {len(self.constraints)}")
        return "; ".join(parts) or "every finite input"

    def to_json(self) -> dict[str, Any]:
        """For reports; a side without a bound is None."""
        kind = "box+constraints" if self.constraints else "box" if self.boxes else "everything"
        inputs = {
            name: {
                "lower": _finite(box.lower.min()),
                "upper": _finite(box.upper.max()),
                "free": box.lower.size - box.fixed,
                "fixed": box.fixed,
            }
            for name, box in self.boxes.items()
        }
        return {"kind": kind, "inputs": inputs, "constraints": len(self.constraints), "origin": self.origin}

    def _excess(self, name: str, values: Array) -> Array:
        """How far each value lies outside its bounds; negative inside, infinite for what is not finite."""
        box = self.boxes.get(name, _FREE)
        with np.errstate(invalid="ignore", over="ignore"):
            excess = np.maximum(box.lower - values, values - box.upper)
        return np.where(np.isfinite(values), excess, math.inf)

    def _column(self, data: Mapping[str, NDArray[Any]], name: str, index: int) -> NDArray[Any]:
        """One entry of every sample, as exact fractions."""
        box = self.boxes.get(name, _FREE)
        rows = data[name].reshape(-1, box.lower.size if box.lower.ndim else data[name].size)
        return np.array([Fraction(float(value)) for value in rows[:, index]], dtype=object)


def _draw(
    spec: InputSpec,
    bounds: tuple[Array, Array],
    shape: tuple[int, ...],
    rng: np.random.Generator,
    kind: SampleKind,
) -> NDArray[Any]:
    limits = _limits(spec.dtype)
    if limits is None:
        raise InputError(f"Input '{spec.name}' holds {spec.dtype} and cannot be sampled.", hint="Give data for it.")
    lower, upper = bounds
    integer = spec.dtype.kind in "biu"
    free = spec.dtype.itemsize > 1
    no_lower, no_upper = free & (lower <= limits[0]), free & (upper >= limits[1])
    reach = 10.0 if not integer and rng.random() < 0.1 else 1.0
    low = np.where(no_lower, np.where(no_upper, 0.0 if integer else -reach, upper - reach), lower)
    high = np.where(no_upper, np.where(no_lower, reach, lower + reach), upper)
    start, stop = np.maximum(low, lower), np.minimum(high, upper)
    if kind == "corner":
        values = np.where(rng.random(shape) < 0.5, start, stop)
    else:
        offset = np.zeros(shape)
        if kind != "center":
            offset = rng.standard_normal(shape) if kind == "normal" else rng.uniform(-1, 1, shape)
        values = start / 2 + stop / 2 + (stop / 2 - start / 2) * offset
    if integer:
        values, lower, upper = np.rint(values), np.ceil(start), np.floor(stop)
    return np.asarray(_rounded(np.clip(values, lower, upper), spec.dtype, lower, upper))


def _rounded(values: Array, dtype: np.dtype[Any], lower: Array, upper: Array) -> NDArray[Any]:
    """Values of the type within the bounds: the nearest, or its neighbour where that one lies outside."""
    near = values.astype(dtype)
    if dtype.kind in "biu":
        return near
    with np.errstate(over="ignore"):
        near = np.where(near.astype(np.float64) > upper, np.nextafter(near, dtype.type(-math.inf)), near)
        return np.where(near.astype(np.float64) < lower, np.nextafter(near, dtype.type(math.inf)), near)


def _limits(dtype: np.dtype[Any]) -> tuple[float, float] | None:
    """Smallest and largest finite value of a type, rounded outward to float64; None if not numeric."""
    if dtype.kind == "b":
        return 0.0, 1.0
    if dtype.kind in "iu":
        return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    if dtype.kind == "f":
        return -float(np.finfo(dtype).max), float(np.finfo(dtype).max)
    return (-_BFLOAT16_MAX, _BFLOAT16_MAX) if dtype.name == "bfloat16" else None


def _metadata(box: Box) -> str:
    low, high = float(box.lower.min()) + 0.0, float(box.upper.max()) + 0.0  # -0.0 becomes 0.0
    hull = f"{_decimal_text(low, ROUND_CEILING)}:{_decimal_text(high, ROUND_FLOOR)}"
    if low == high:
        hull = f"{Decimal(low)}:{Decimal(high)}"
    if (box.lower == low).all() and (box.upper == high).all():
        return hull
    digest = hashlib.sha256(repr(box.lower.shape).encode())
    for ends in (box.lower, box.upper):
        digest.update((ends + 0.0).astype("<f8").tobytes())
    return f"sha256:{digest.hexdigest()} of lower and upper, hull {hull}"


def _decimal_text(value: float, rounding: str) -> str:
    """The shortest decimal, or 17 digits where that one lies on the wrong side."""
    text, exact = repr(value), Decimal(value)
    if (Decimal(text) < exact) if rounding == ROUND_CEILING else (Decimal(text) > exact):
        text = str(Context(prec=17, rounding=rounding).plus(exact))
    return text.removesuffix(".0")


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def parse_domain(
    texts: Sequence[str],
    specs: Sequence[InputSpec],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Domain:
    """The domain that all ``texts`` together leave.

    Args:
        texts: ``lower:upper`` (all numeric inputs), ``input=lower:upper``, a ``.npz`` file (arrays
            ``<input>.lower`` and ``<input>.upper`` that broadcast to the input) or a ``.vnnlib`` file.
            Numbers are decimals or infinite, and are rounded outward to float64.
        specs: The model's inputs, in graph order.
        mean: Per channel (axis 1 of rank 4, else the last axis), or one for all: ``lower:upper`` is about
            pixels, the model sees (pixel - mean) / std. A float stands for its shortest decimal.
        std: As ``mean``.

    Raises:
        InputError: A text, a file or the resulting domain cannot be used.
    """
    channels = _channels(mean, std)
    pieces: list[_Piece] = []
    constraints: list[Constraint] = []
    in_pixels = False
    for text in texts:
        if text.lower().endswith(".npz"):
            pieces += _from_arrays(text, specs)
        elif text.lower().endswith(".vnnlib"):
            boxes, cuts = _from_vnnlib(text, specs)
            pieces += boxes
            constraints += cuts
        else:
            pieces += _from_text(text, specs, channels)
            in_pixels = True
    origin = ", ".join(texts) or "everything finite"
    if channels != _PLAIN:
        if not in_pixels:
            raise InputError("Mean and std have no pixel box to act on.", hint="Add one, such as 0:1 or image=0:255.")
        origin += "; mean {}; std {}".format(*(",".join(map(str, values)) for values in channels))
    return _domain(pieces, constraints, origin)


def around(
    point: str | os.PathLike[str] | NDArray[Any] | Mapping[str, NDArray[Any]],
    radius: float | str,
    specs: Sequence[InputSpec],
    clip: Domain | None = None,
) -> Domain:
    """The inputs within ``radius`` of ``point`` in every entry, and in ``clip``.

    Args:
        point: A ``.npy`` file or an array (models with one input), a ``.npz`` file or a mapping by input;
            other inputs stay free.
        radius: A float stands for its shortest decimal.
        specs: The model's inputs, in graph order.
        clip: A domain to stay in.

    Raises:
        InputError: The point, the radius or the resulting domain cannot be used.
    """
    amount = _decimal(str(radius))
    if not amount.is_finite() or amount < 0:
        raise InputError(f"Radius {radius} is not a number >= 0.", hint="Give one such as 0.02.")
    where = os.fspath(point) if isinstance(point, str | os.PathLike) else "The point"
    arrays = _load(where) if isinstance(point, str | os.PathLike) else point
    if not isinstance(arrays, Mapping):
        if len(specs) != 1:
            hint = f"Name the arrays: {', '.join(spec.name for spec in specs)}."
            raise InputError(f"{where}: one array for a model with {len(specs)} inputs.", hint=hint)
        arrays = {specs[0].name: arrays}
    span = np.array(vnnlib.outward(amount, up=True))
    pieces = []
    for name in arrays:
        spec = _find(name, specs, where)
        center = _numbers(arrays[name], spec, where)
        pieces.append((spec, _sum(center, -span, -math.inf), _sum(center, span, math.inf)))
    origin = f"{where} +- {radius}"
    if clip is None:
        return _domain(pieces, [], origin)
    pieces += [
        (spec, clip.boxes[spec.name].lower, clip.boxes[spec.name].upper) for spec in specs if spec.name in clip.boxes
    ]
    return _domain(pieces, clip.constraints, f"{origin}, {clip.origin}")


_Channels = tuple[list[Decimal], list[Decimal]]
_PLAIN: _Channels = ([Decimal(0)], [Decimal(1)])


def _channels(mean: Sequence[float] | None, std: Sequence[float] | None) -> _Channels:
    if mean is None and std is None:
        return _PLAIN
    given_mean, given_std = [0.0] if mean is None else mean, [1.0] if std is None else std
    means, stds = ([_decimal(str(value)) for value in values] for values in (given_mean, given_std))
    width = max(len(means), len(stds))
    means, stds = (values * width if len(values) == 1 else values for values in (means, stds))
    if len(means) != len(stds):
        what = f"Mean has {len(means)} entries, std has {len(stds)}."
        raise InputError(what, hint="Give both one number per channel, or one for all.")
    if not all(value.is_finite() for value in means + stds) or min(stds) <= 0:
        shown = "; ".join(",".join(map(str, values)) for values in (means, stds))
        raise InputError(f"Mean and std {shown} cannot be used.", hint="Give finite numbers, each std above 0.")
    return means, stds


def _from_text(text: str, specs: Sequence[InputSpec], channels: _Channels) -> list[_Piece]:
    name, named, numbers = text.rpartition("=")
    ends = [_decimal(end) for end in numbers.split(":")]
    if len(ends) != 2 or any(end.is_nan() for end in ends):
        hint = "Write 0:1 or input=0:1 (decimals, -inf, inf), or a path ending in .npz or .vnnlib."
        raise InputError(f"Cannot read the domain '{text}'.", hint=hint)
    chosen = [_find(name, specs, text)] if named else [spec for spec in specs if _limits(spec.dtype)]
    lows, highs = (
        np.array([vnnlib.outward(way.divide(way.subtract(end, m), s), up=up) for m, s in zip(*channels, strict=True)])
        for end, way, up in ((ends[0], vnnlib.DOWNWARD, False), (ends[1], vnnlib.UPWARD, True))
    )
    views = [_channel_view(spec, len(lows)) for spec in chosen]
    return [(spec, lows.reshape(view), highs.reshape(view)) for spec, view in zip(chosen, views, strict=True)]


def _channel_view(spec: InputSpec, count: int) -> tuple[int, ...]:
    """The shape that lays one number per channel along the channel axis; no axes for a single number."""
    shape = spec.shape or ()
    if count == 1:
        return ()
    if len(shape) == 4 and shape[1] == count:
        return (1, count, 1, 1)
    if shape and shape[-1] == count:
        return (1,) * (len(shape) - 1) + (count,)
    what = f"Mean and std have {count} entries, no channel axis of input '{spec.name}' ({_show(spec)}) has."
    raise InputError(what, hint="Name the image input (image=0:1), or check the number of channels.")


def _from_arrays(path: str, specs: Sequence[InputSpec]) -> list[_Piece]:
    arrays = _load(path)
    pieces: list[_Piece] = []
    for key in arrays if isinstance(arrays, Mapping) else ():
        name, _, side = key.rpartition(".")
        if side in ("lower", "upper"):
            spec = _find(name, specs, path)
            values = _numbers(arrays[key], spec, f"{path}, {key}")
            pieces.append((spec, values, _FREE.upper) if side == "lower" else (spec, _FREE.lower, values))
    if not pieces:
        raise InputError(f"{path}: no bounds found.", hint="Name the arrays <input>.lower and <input>.upper.")
    return pieces


def _from_vnnlib(path: str, specs: Sequence[InputSpec]) -> tuple[list[_Piece], list[Constraint]]:
    found = vnnlib.read(path)
    shapes = [tuple(n if isinstance(n, int) else 1 for n in spec.shape or ()) for spec in specs]
    starts = np.cumsum([0, *(math.prod(shape) for shape in shapes)])
    if found.lower.size != starts[-1] or any(spec.shape is None for spec in specs):
        inputs = ", ".join(f"{spec.name} {_show(spec)}" for spec in specs)
        what = f"{path}: {found.lower.size} variables X_i for {starts[-1]} input entries ({inputs})."
        raise InputError(what, hint="Check that file and model belong together; dynamic axes count as 1.")
    pieces = [
        (spec, found.lower[start:stop].reshape(shape), found.upper[start:stop].reshape(shape))
        for spec, shape, start, stop in zip(specs, shapes, starts, starts[1:], strict=False)
    ]
    owner = [(spec.name, index) for spec, shape in zip(specs, shapes, strict=True) for index in range(math.prod(shape))]
    return pieces, [Constraint(tuple((*owner[i], c) for i, c in row.terms), row.bound) for row in found.constraints]


def _domain(pieces: Sequence[_Piece], constraints: Sequence[Constraint], origin: str) -> Domain:
    """Intersect the pieces per input; a box that leaves out nothing is dropped unless constraints need it."""
    merged: dict[str, _Piece] = {}
    for spec, lower, upper in pieces:
        _, low, high = merged.get(spec.name, (spec, _FREE.lower, _FREE.upper))
        merged[spec.name] = (spec, np.maximum(low, lower), np.minimum(high, upper))
    needed = {name for constraint in constraints for name, _, _ in constraint.terms}
    boxes = {}
    for name, (spec, lower, upper) in merged.items():
        limits = _limits(spec.dtype)
        if limits is None:
            raise InputError(
                f"Input '{name}' holds {spec.dtype}, which has no bounds.", hint="Bound numeric inputs only."
            )
        box = _fitted(spec, lower, upper, *limits)
        if name in needed or (box.lower > limits[0]).any() or (box.upper < limits[1]).any():
            boxes[name] = box
    return Domain(boxes, tuple(constraints), origin)


def _fitted(spec: InputSpec, lower: Array, upper: Array, low: float, high: float) -> Box:
    """The box as the input's type sees it: integers only, and never without a value of that type.

    Float bounds that let one value through become that value, and bounds between two neighbours, which data
    meet by rounding only, are rounded; so 0.1:0.1 fixes a float32. All others stay as they are.
    """
    if spec.dtype.kind in "biu":
        lower, upper = np.maximum(np.ceil(lower), low), np.minimum(np.floor(upper), high)
    lower, upper = np.broadcast_arrays(lower, upper)
    first, last = np.maximum(lower, low), np.minimum(upper, high)
    if (empty := first > last).any():
        at = int(np.argmax(empty))
        entry = f" at entry {at}" if lower.ndim else ""
        what = f"lower {first.flat[at]:g} is above upper {last.flat[at]:g}{entry}."
        hint = f"Give lower:upper in this order, meeting the other bounds and {spec.dtype}'s {low:g}:{high:g}."
        raise InputError(f"Empty or inverted domain for input '{spec.name}': {what}", hint=hint)
    if spec.dtype.kind in "biu":
        return Box(lower.copy(), upper.copy())
    near_first, near_last = (ends.astype(spec.dtype).astype(np.float64) for ends in (first, last))
    least = _rounded(first, spec.dtype, first, _FREE.upper).astype(np.float64)
    most = _rounded(last, spec.dtype, _FREE.lower, last).astype(np.float64)
    lower = np.where(least > most, near_first, np.where(least == most, least, lower))
    upper = np.where(least > most, near_last, np.where(least == most, most, upper))
    return Box(lower, upper)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        return Decimal("nan")


def _sum(values: Array, shift: Array, toward: float) -> Array:
    """``values + shift``, one float further where rounding went the other way (Knuth's TwoSum tells)."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = values + shift
        virtual = total - values
        error = (values - (total - virtual)) + (shift - virtual)
        return np.where(np.sign(toward) * error > 0, np.nextafter(total, toward), total)


def _show(spec: InputSpec) -> str:
    if spec.shape is None:
        return "unknown"
    return "x".join("?" if n is None else str(n) for n in spec.shape) or "()"


def _find(name: str, specs: Sequence[InputSpec], where: str) -> InputSpec:
    for spec in specs:
        if spec.name == name:
            return spec
    names = [spec.name for spec in specs]
    close = get_close_matches(name, names, n=1)
    hint = (f"Did you mean '{close[0]}'? " if close else "") + f"Inputs: {', '.join(names)}."
    raise InputError(f"{where}: the model has no input '{name}'.", hint=hint)


def _load(path: str) -> NDArray[Any] | dict[str, NDArray[Any]]:
    try:
        with open(path, "rb") as file:  # np.load leaves a file it opened itself open when it is no zip file
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                return {key: loaded[key] for key in loaded.files}
            return np.asarray(loaded)
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.", hint="Check the path.") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"Cannot read {path}: no NumPy file of plain numbers.", hint="Save it with numpy.savez."
        ) from error


def _numbers(array: NDArray[Any], spec: InputSpec, where: str) -> Array:
    """The array as float64 with no axes or the input's rank."""
    if not np.can_cast(array.dtype, np.float64):
        raise InputError(f"{where}: {array.dtype} is no real number type.", hint="Save it as float64 or narrower.")
    values = np.asarray(array, dtype=np.float64)
    if np.isnan(values).any():
        raise InputError(f"{where}: NaN found.", hint="Give a number, or -inf and inf for no bound.")
    shape = spec.shape or ()
    padded = (1,) * (len(shape) - values.ndim) + values.shape if values.ndim else ()
    if values.ndim > len(shape) or any(n not in (1, size) for n, size in zip(padded, shape, strict=False)):
        found = "x".join(map(str, values.shape))
        what = f"{where}: shape {found} does not fit input '{spec.name}' of shape {_show(spec)}."
        raise InputError(what, hint="Each axis needs the input's length or 1 (1 along dynamic axes).")
    return values.reshape(padded)
