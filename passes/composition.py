"""One layer in place of two: the composition of affine maps, dense or convolutional."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from math import gcd, prod

import numpy as np

from onnxprune.operators import op_of
from onnxprune.operators.interval import Array
from onnxprune.operators.linear import LinearLayer


@dataclass(frozen=True)
class Plan:
    """The form of a composition.

    Attributes:
        kernel: Sizes of the composed kernel (none for dense layers).
        first: Places of the first layer's taps in it, per axis: tap t lies at ``t * first``.
        second: The same for the second layer's taps; places add up.
        attributes: Attributes of the composed convolution.
    """

    kernel: tuple[int, ...] = ()
    first: tuple[int, ...] = ()
    second: tuple[int, ...] = ()
    attributes: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Geometry:
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]


def plan(layer: LinearLayer, reader: LinearLayer) -> Plan | None:
    """How to compose a layer and one that reads it; None where one layer cannot do the same.

    A second convolution may be padded only where the first is a 1x1 convolution without bias and padding: zero
    must be what the first makes of zeros.
    """
    convolutions = [op_of(one.node) == "Conv" for one in (layer, reader)]
    if not any(convolutions):
        return Plan()
    one, two = _geometry(layer), _geometry(reader)
    if not all(convolutions) or one is None or two is None or len(one.kernel) != len(two.kernel):
        return None
    silent = layer.bias is not None and not layer.bias.any() and layer.weights.shape[2] == 1 and not any(one.pads)
    spans = [d * (k - 1) for d, k in zip(two.dilations, two.kernel, strict=True)]
    axes = range(len(spans))
    if any(two.pads) and not (silent and all(two.pads[a] + two.pads[a + len(spans)] <= spans[a] for a in axes)):
        return None
    first, second, kernel, dilations = [], [], [], []
    for a in axes:
        steps = (one.dilations[a] if one.kernel[a] > 1 else 0, one.strides[a] * two.dilations[a])
        steps = (steps[0], steps[1] if two.kernel[a] > 1 else 0)
        grid = gcd(*steps) or 1
        first.append(steps[0] // grid)
        second.append(steps[1] // grid)
        kernel.append(first[a] * (one.kernel[a] - 1) + second[a] * (two.kernel[a] - 1) + 1)
        dilations.append(grid)
    attributes = {
        "kernel_shape": kernel,
        "strides": [s * t for s, t in zip(one.strides, two.strides, strict=True)],
        "dilations": dilations,
        "pads": [p + s * q for p, s, q in zip(one.pads, one.strides * 2, two.pads, strict=True)],
    }
    return Plan(tuple(kernel), tuple(first), tuple(second), attributes)


def _geometry(layer: LinearLayer) -> _Geometry | None:
    attrs = layer.node.attrs
    kernel = tuple(int(k) for k in np.asarray(layer.node.inputs[1].values).shape[2:])
    padding = str(attrs.get("auto_pad", "NOTSET"))
    if padding not in ("NOTSET", "VALID"):
        return None
    plain = [1] * len(kernel)
    pads = attrs.get("pads", [0] * (2 * len(kernel))) if padding == "NOTSET" else [0] * (2 * len(kernel))
    strides, dilations = attrs.get("strides", plain), attrs.get("dilations", plain)
    if any(int(p) < 0 for p in pads):
        return None
    return _Geometry(kernel, *(tuple(int(v) for v in values) for values in (strides, dilations, pads)))


def size(form: Plan, layer: LinearLayer, reader: LinearLayer) -> int:
    """Number of weights of the composed layer."""
    return reader.n_out * layer.n_in * prod(form.kernel)


def compose(form: Plan, layer: LinearLayer, reader: LinearLayer, *, absolute: bool = False) -> Array:
    """Weights of the composed layer, shape (out, in, *kernel), or the sums of their absolute terms."""
    one, two = (np.abs(w) if absolute else w for w in (layer.weights, reader.weights))
    if not form.kernel:
        return np.asarray(two[:, :, 0] @ one[:, :, 0])
    shapes = [np.asarray(part.node.inputs[1].values).shape[2:] for part in (layer, reader)]
    total = np.zeros((reader.n_out, layer.n_in, *form.kernel))
    for (s, at), (t, by) in product(*(list(enumerate(np.ndindex(*shape))) for shape in shapes)):
        place = tuple(a * f + b * g for a, f, b, g in zip(at, form.first, by, form.second, strict=True))
        total[(slice(None), slice(None), *place)] += two[:, :, t] @ one[:, :, s]
    return total
