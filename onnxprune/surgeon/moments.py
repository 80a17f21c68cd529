"""Second moments of what the layers read, accumulated over batches of samples; forward runs only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.bounds.static import StaticGraph
from onnxprune.operators.windows import SlidingLayer
from onnxprune.surgeon.matching import CHUNK, Matching, Values
from onnxprune.surgeon.targets import Target

POSITIONS = 20_000
"""Windows of a convolution that are looked at at least, where there are so many; of few samples, then."""


def input_moments(
    objective: Matching, static: StaticGraph, values: Values, targets: Sequence[Target], rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """Means of ``x x'`` over samples and positions, for the inputs x of every layer.

    Args:
        objective: Runs the network.
        static: The graph with its sizes.
        values: Parameters of the network.
        targets: The layers. The taps of a transposed convolution count as independent.
        rng: Draws samples.

    Returns:
        Per weight tensor, shape (groups, d, d) with d = inputs of one unit in the order of the layer's normal form.
    """
    names = {t.name: t.normal.reads[0] for t in targets}
    fed = set(objective.data.inputs)
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = dict.fromkeys(names, 0)
    order = rng.permutation(len(objective.data))
    for start in range(0, len(order), CHUNK):
        wanting = [t for t in targets if counts[t.name] < POSITIONS]
        if not wanting:
            break
        part = objective.data.take(order[start : start + CHUNK]).inputs
        at = tuple(dict.fromkeys(names[t.name] for t in wanting if names[t.name] not in fed))
        known = {**part, **objective.derivatives.forward(part, values, at=at)}
        for target in wanting:
            few = -(-POSITIONS // target.uses)
            rows = _rows(static, target, known[names[target.name]][:few])
            found = np.matmul(rows.swapaxes(1, 2), rows).astype(np.float64)
            sums[target.name] = sums.get(target.name, np.float64(0)) + found
            counts[target.name] += rows.shape[1]
    means = {name: total / counts[name] for name, total in sums.items()}
    taps = {t.name: int(t.normal.weights.shape[2]) for t in targets if t.normal.node.op == "ConvTranspose"}
    for name, count in taps.items():
        means[name] = np.array([np.kron(mean, np.eye(count)) for mean in means[name]])
    return means


def _rows(static: StaticGraph, target: Target, x: NDArray[Any]) -> NDArray[Any]:
    """What a layer's units read, shape (groups, positions, d)."""
    layer = target.normal
    if layer.node.op == "ConvTranspose":
        apart = x.reshape(len(x), layer.groups, layer.n_in // layer.groups, -1).transpose(1, 0, 3, 2)
        return apart.reshape(layer.groups, -1, layer.n_in // layer.groups)
    if layer.node.op != "Conv":
        axis = layer.in_axis if x.ndim == len(static.shape(layer.reads[0]) or ()) else x.ndim - 1
        return np.moveaxis(x, axis, -1).reshape(1, -1, layer.n_in)
    operator, view = static.operator(layer.node), static.view(layer.node)
    geometry = operator.geometry(view) if isinstance(operator, SlidingLayer) else None
    if geometry is None:
        raise AssertionError("the sizes of every pruned layer are known")
    window, _, outside = geometry
    kernel, size = target.shape[2:], outside[2:]
    reach = [
        (w - 1) * s + (k - 1) * d + 1 for w, s, k, d in zip(size, window.strides, kernel, window.dilations, strict=True)
    ]
    behind = [max(r - b - n, 0) for r, b, n in zip(reach, window.before, x.shape[2:], strict=True)]
    padded = np.pad(x, [(0, 0), (0, 0), *zip(window.before, behind, strict=True)])
    taps = []
    for tap in product(*(range(k) for k in kernel)):
        starts = [t * d for t, d in zip(tap, window.dilations, strict=True)]
        cut = [slice(a, a + (w - 1) * s + 1, s) for a, w, s in zip(starts, size, window.strides, strict=True)]
        taps.append(padded[(slice(None), slice(None), *cut)])
    stacked = np.stack(taps, axis=2)  # (samples, channels, taps, *size)
    n, channels = stacked.shape[:2]
    apart = stacked.reshape(n, layer.groups, channels // layer.groups * len(taps), -1)
    return np.ascontiguousarray(apart.transpose(1, 0, 3, 2)).reshape(layer.groups, -1, apart.shape[2])
