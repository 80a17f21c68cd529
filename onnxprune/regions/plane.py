"""The plane through three inputs, its window, and the coordinates of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.bounds.static import StaticGraph
from onnxprune.domain import Domain
from onnxprune.domain.arrays import load_arrays
from onnxprune.errors import InputError
from onnxprune.operators.interval import Array
from onnxprune.regions.polygon import Point, Polygon, keep

FLAT = 1e-9
"""Three points whose triangle is thinner than this, relative to its length, span no plane."""


@dataclass(frozen=True)
class Plane:
    """``origin + x * right + y * up``, with directions at right angles and of equal length.

    Attributes:
        origin: Centre of the window, shape (inputs,).
        right: Half the longer side of the window, shape (inputs,).
        up: At a right angle to it, equally long.
        marks: The three points, in the coordinates of the plane.
        length: Length of ``right`` in the space of inputs.
    """

    origin: Array
    right: Array
    up: Array
    marks: tuple[Point, Point, Point]
    length: float

    def points(self, coordinates: Array) -> Array:
        """Inputs at points of the plane: shape (points, 2) to (points, inputs)."""
        return self.origin + coordinates[:, :1] * self.right + coordinates[:, 1:] * self.up


def plane_through(
    net: StaticGraph, points: Sequence[Array], domain: Domain | None, margin: float
) -> tuple[Plane, Polygon]:
    """The plane and the part of it inside the picture and the domain.

    Args:
        net: The graph.
        points: Three inputs, flat.
        domain: Where to stay.
        margin: How far the picture reaches beyond the points, as a share of their extent.

    Raises:
        InputError: The points do not fit the model, span no plane, or their plane misses the domain.
    """
    sizes = [net.size(name) for name in net.inputs]
    if any(size is None for size in sizes):
        raise InputError("The model has an input of open size.", hint="Slices need inputs of static shape.")
    total = sum(size or 0 for size in sizes)
    if len(points) != 3 or any(len(point) != total for point in points):
        given = ", ".join(str(len(point)) for point in points)
        raise InputError(f"A slice needs three points of {total} numbers, not of {given}.", hint="Check their shapes.")
    first, second, third = (np.asarray(point, dtype=np.float64) for point in points)
    if not all(np.isfinite(point).all() for point in (first, second, third)):
        raise InputError("A point of the slice is not finite.", hint="Remove NaN and infinity.")
    along, across = second - first, third - first
    reach = max(float(np.linalg.norm(along)), float(np.linalg.norm(across)))
    size = float(np.linalg.norm(along))
    one = along / size if size > 0 else along
    rest = across - (across @ one) * one
    height = float(np.linalg.norm(rest))
    if size <= FLAT * reach or height <= FLAT * reach or reach == 0:
        raise InputError("The three points lie on one line.", hint="A slice needs three points that span a plane.")
    two = rest / height
    flat = np.array([[0.0, 0.0], [size, 0.0], [float(across @ one), height]])
    low, high = flat.min(axis=0), flat.max(axis=0)
    middle, half = (low + high) / 2, (high - low) / 2 * (1 + 2 * margin)
    length = float(half.max())
    origin = first + middle[0] * one + middle[1] * two
    marks = [(float(x), float(y)) for x, y in (flat - middle) / length]
    plane = Plane(origin, one * length, two * length, (marks[0], marks[1], marks[2]), length)
    x, y = (half / length).tolist()
    window = [(-x, -y), (x, -y), (x, y), (-x, y)]
    return plane, window if domain is None else _inside(net, domain, plane, window)


def _inside(net: StaticGraph, domain: Domain, plane: Plane, window: Polygon) -> Polygon:
    """The part of the window inside the domain."""
    box = net.input_box(domain)
    low, high = (np.concatenate([box[name][end] for name in net.inputs]) for end in (0, 1))
    first = dict(zip(net.inputs, np.cumsum([0, *(net.size(name) or 0 for name in net.inputs)]).tolist(), strict=False))
    rows = [(plane.origin - low, plane.right, plane.up), (high - plane.origin, -plane.right, -plane.up)]
    shift, right, up = (np.concatenate([row[k] for row in rows]) for k in range(3))
    reach = np.abs(right) + np.abs(up)
    for which in np.flatnonzero(np.isfinite(shift) & (shift < reach)).tolist():
        window = keep(window, (float(shift[which]), float(right[which]), float(up[which])))
        if reach[which] == 0 and shift[which] < 0:
            window = []
    for constraint in domain.constraints:
        terms = [(first[name] + index, coefficient) for name, index, coefficient in constraint.terms]
        parts = [sum(c * float(v[i]) for i, c in terms) for v in (plane.origin, plane.right, plane.up)]
        window = keep(window, (constraint.bound - parts[0], -parts[1], -parts[2]))
    if len(window) < 3:
        raise InputError("The plane through the three points misses the domain.", hint="Choose points inside it.")
    return window


def read_point(path: str, net: StaticGraph) -> Array:
    """An input from a file, flat: a ``.npy`` file, or for several inputs a ``.npz`` file with their names.

    Raises:
        InputError: The file cannot be read or does not fit.
    """
    loaded = load_arrays(path)
    if not isinstance(loaded, dict):
        if len(net.inputs) != 1:
            hint = f"Save an .npz file with the arrays {', '.join(net.inputs)}."
            raise InputError(f"{path}: one array for a model with {len(net.inputs)} inputs.", hint=hint)
        loaded = {net.inputs[0]: loaded}
    parts = []
    for name in net.inputs:
        if name not in loaded:
            raise InputError(f"{path}: no array for input '{name}'.", hint=f"Inputs: {', '.join(net.inputs)}.")
        values = loaded[name]
        if not np.can_cast(values.dtype, np.float64):
            raise InputError(f"{path}: {values.dtype} is no real number type.", hint="Save it as float32.")
        if values.size != net.size(name):
            found, wanted = "x".join(map(str, values.shape)), "x".join(map(str, net.shape(name) or ("?",)))
            raise InputError(
                f"{path}: shape {found} does not fit input '{name}' of shape {wanted}.", hint="Save a single sample."
            )
        parts.append(values.astype(np.float64).reshape(-1))
    return np.concatenate(parts)
