"""Sliding windows: the geometry of convolutions and pools, and sums over windows in any arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.network import Node

MANY = 64
"""Combinations of borders that are told apart at most."""


@dataclass(frozen=True)
class Geometry:
    """Sizes per spatial axis; ``pads`` holds those in front, then those behind."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @property
    def padded(self) -> bool:
        """Whether windows reach beyond the image."""
        return any(self.pads)

    def taps(self) -> list[tuple[int, ...]]:
        """Places of a kernel, the last axis fastest."""
        return list(product(*(range(k) for k in self.kernel)))

    def window(self, tap: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[slice, ...]:
        """Which entries of a padded image one tap meets, given the sizes of the result."""
        starts = [t * d for t, d in zip(tap, self.dilations, strict=True)]
        return tuple(slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(starts, self.strides, sizes, strict=True))

    def views(self, sizes: tuple[int, ...] | None) -> list[NDArray[np.bool_]] | None:
        """Which taps meet the image together, at one place or another; None where any may.

        Args:
            sizes: Of the image; None where they are open.
        """
        if not self.padded:
            return [np.ones(self.kernel, dtype=bool)]
        if sizes is None:
            return None
        per_axis = []
        for a, (size, count) in enumerate(zip(sizes, self.results(sizes), strict=True)):
            places = np.arange(count)[:, None] * self.strides[a] - self.pads[a]
            inside = places + np.arange(self.kernel[a]) * self.dilations[a]
            per_axis.append(np.unique((inside >= 0) & (inside < size), axis=0))
        if np.prod([len(masks) for masks in per_axis]) > MANY:
            return None
        found = []
        for masks in product(*per_axis):
            view = np.ones((), dtype=bool)
            for mask in masks:
                view = np.multiply.outer(view, mask)
            found.append(view)
        return found

    def results(self, sizes: tuple[int, ...], *, ceil: bool = False) -> tuple[int, ...]:
        """Sizes of the result for an image of these sizes."""
        half = len(sizes)
        found = []
        for a, size in enumerate(sizes):
            room = size + self.pads[a] + self.pads[half + a] - (self.dilations[a] * (self.kernel[a] - 1) + 1)
            count = (-(-room // self.strides[a]) if ceil else room // self.strides[a]) + 1
            if ceil and (count - 1) * self.strides[a] >= size + self.pads[a]:
                count -= 1  # a window must not begin in the padding behind
            found.append(count)
        return tuple(found)


def geometry(node: Node, kernel: tuple[int, ...], sizes: tuple[int, ...] | None) -> Geometry | None:
    """The windows of a node.

    Args:
        node: A convolution or pool.
        kernel: Sizes of its kernel.
        sizes: Of the image; None where they are open.

    Returns:
        None where the padding depends on sizes that are open.
    """
    ones = [1] * len(kernel)
    strides = tuple(int(s) for s in node.get("strides", ones))
    dilations = tuple(int(d) for d in node.get("dilations", ones))
    mode = str(node.get("auto_pad", "NOTSET"))
    if mode in ("NOTSET", ""):
        pads = tuple(int(p) for p in node.get("pads", [0] * (2 * len(kernel))))
    elif mode == "VALID":
        pads = (0,) * (2 * len(kernel))
    elif sizes is None:
        return None
    else:
        spans = [
            max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
            for n, s, d, k in zip(sizes, strides, dilations, kernel, strict=True)
        ]
        small, large = [p // 2 for p in spans], [p - p // 2 for p in spans]
        pads = tuple(small + large if mode == "SAME_UPPER" else large + small)
    return None if any(p < 0 for p in pads) else Geometry(kernel, strides, dilations, pads)


def padded(image: NDArray[Any], where: Geometry, value: Any = 0, more: tuple[int, ...] | None = None) -> NDArray[Any]:
    """An image (samples, channels, sizes) with a border, and ``more`` behind for windows that reach further."""
    half = len(where.kernel)
    behind = [where.pads[half + a] + (more[a] if more else 0) for a in range(half)]
    widths = [(0, 0), (0, 0), *((where.pads[a], behind[a]) for a in range(half))]
    return np.pad(image, widths, constant_values=value)


def convolved(weights: NDArray[Any], image: NDArray[Any], where: Geometry, groups: int) -> NDArray[Any]:
    """A convolution in whatever arithmetic the arrays have.

    Args:
        weights: Shape (out, in per group, *kernel).
        image: Shape (samples, in, *sizes).
        where: The windows.
        groups: Channels of different groups do not meet.
    """
    sizes = where.results(image.shape[2:])
    wide = padded(image, where)
    total: Any = 0
    for tap in where.taps():
        place: Any = (slice(None), slice(None), *where.window(tap, sizes))
        at: Any = (slice(None), slice(None), *tap)
        total = total + _mixed(weights[at], wide[place], groups)
    result: NDArray[Any] = total
    return result


def _mixed(weights: NDArray[Any], image: NDArray[Any], groups: int) -> NDArray[Any]:
    """Channels times weights of shape (out, in per group), place by place."""
    if groups == 1:
        return np.moveaxis(np.tensordot(weights, image, axes=([1], [1])), 0, 1)
    outs, ins = weights.shape[0] // groups, weights.shape[1]
    table = weights.reshape(groups, outs, ins, *(1,) * (image.ndim - 2))
    parts = image.reshape(len(image), groups, 1, ins, *image.shape[2:])
    total: Any = 0
    for index in range(ins):
        total = total + table[None, :, :, index] * parts[:, :, :, index]
    result: NDArray[Any] = total.reshape(len(image), groups * outs, *image.shape[2:])
    return result


def spread_back(
    weights: NDArray[Any], rows: NDArray[Any], where: Geometry, groups: int, sizes: tuple[int, ...]
) -> NDArray[Any]:
    """The transpose of :func:`convolved`: from (rows, out, *results) to (rows, in, *sizes)."""
    half = len(sizes)
    outs, ins = weights.shape[0] // groups, weights.shape[1]
    margins = [where.pads[a] + where.pads[half + a] for a in range(half)]
    shape = (len(rows), ins * groups, *(n + m for n, m in zip(sizes, margins, strict=True)))
    total = np.zeros(shape, dtype=rows.dtype)
    turned = np.swapaxes(weights.reshape(groups, outs, ins, *weights.shape[2:]), 1, 2)
    turned = turned.reshape(groups * ins, outs, *weights.shape[2:])
    for tap in where.taps():
        place: Any = (slice(None), slice(None), *where.window(tap, rows.shape[2:]))
        at: Any = (slice(None), slice(None), *tap)
        total[place] = total[place] + _mixed(turned[at], rows, groups)
    return total[(slice(None), slice(None), *(slice(where.pads[a], where.pads[a] + sizes[a]) for a in range(half)))]
