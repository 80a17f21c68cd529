"""Chooses corners of the domain that show which units switch: a few points, each for many units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.backward import Backward, adaptive
from onnxprune.verify.certificate import Witnesses
from onnxprune.verify.evidence import one_hot
from onnxprune.verify.forward import Forward
from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval
from onnxprune.verify.sides import Walk

DRAWN, MOST = 48, 24
"""Corners that are tried, and that are kept at most."""
WORK = 2e7
"""Multiply-adds of one run up to which corners are tried at all."""
HUGE = 1e30


def witnesses(net: Network, inputs: Mapping[str, Interval], walks: Sequence[Walk]) -> Witnesses:
    """Corners that show as many units as possible on both sides of zero.

    Args:
        net: The original.
        inputs: Its box.
        walks: Activations whose rows are asked about.
    """
    boxes = {name: _box(net, name, found) for name, found in inputs.items()}
    if any(box is None for box in boxes.values()) or _work(net) > WORK:
        return Witnesses()
    tensors = [name for name in dict.fromkeys(walk.source for walk in walks) if net.sample(name) is not None]
    if not tensors:
        return Witnesses()
    points = _corners(net, inputs, tensors)
    shown: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    for number in range(len(next(iter(points.values())))):
        at = {}
        for name, found in inputs.items():
            shape = net.sample(name) or ()
            low, high = (np.broadcast_to(end, shape) for end in found.floats())
            ends = np.where(points[name][number].reshape(shape), high, low)
            at[name] = Interval.of(ends, ends)
        values = Forward(net, at).run()
        for name in tensors:
            low, high = (np.broadcast_to(end, net.sample(name) or ()).reshape(-1) for end in values[name].floats())
            above, below = shown.setdefault(name, (np.zeros((0, len(low)), bool), np.zeros((0, len(low)), bool)))
            shown[name] = np.vstack([above, low > 0]), np.vstack([below, high < 0])
    kept = _chosen(shown)
    seen = {
        name: np.flatnonzero(above[kept].any(axis=0) & below[kept].any(axis=0))
        for name, (above, below) in shown.items()
    }
    seen = {name: entries for name, entries in seen.items() if len(entries)}
    return Witnesses({name: rows[kept] for name, rows in points.items()}, seen) if seen else Witnesses()


def _box(net: Network, name: str, found: Interval) -> Interval | None:
    low, high = found.floats()
    finite = np.isfinite([low.min(), high.max()]).all() and max(np.abs(low).max(), np.abs(high).max()) < HUGE
    return found if net.sample(name) is not None and net.is_float(name) and finite else None


def _work(net: Network) -> float:
    total = 0.0
    for node in net.nodes:
        weights = [net.constants[n] for n in node.inputs[1:2] if n in net.constants]
        shape = net.sample(node.outputs[0])
        if weights and shape is not None:
            total += float(weights[0].size) * float(np.prod(shape[2:]) if node.op == "Conv" else 1.0)
    return total


def _corners(net: Network, inputs: Mapping[str, Interval], tensors: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """Random corners, and those that linear bounds of some units point to."""
    rng = np.random.default_rng(0)
    sizes = {name: int(np.prod(net.sample(name) or ())) for name in inputs}
    found = {name: [rng.random((DRAWN // 2, size)) < rng.random((DRAWN // 2, 1))] for name, size in sizes.items()}
    bounds = Forward(net, inputs).run()
    each = max(1, DRAWN // (4 * len(tensors)))
    for tensor in tensors:
        shape = net.sample(tensor) or ()
        units = rng.choice(int(np.prod(shape)), min(each, int(np.prod(shape))), replace=False)
        for sign in (1.0, -1.0):
            walk = Backward(net, bounds)
            walk.upper(tensor, one_hot(np.sort(units), shape, sign), adaptive)
            for name in inputs:
                rows = walk.ends.get(name)
                found[name].append(np.zeros((len(units), sizes[name]), bool) if rows is None else rows > 0)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _chosen(shown: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> list[int]:
    """Points in the order in which they show most that was not shown before."""
    table = np.concatenate([part for pair in shown.values() for part in pair], axis=1)
    wanted = np.concatenate([np.tile(a.any(axis=0) & b.any(axis=0), 2) for a, b in shown.values()])
    kept: list[int] = []
    missing = wanted.copy()
    while missing.any() and len(kept) < MOST:
        gains = (table & missing).sum(axis=1)
        best = int(gains.argmax())
        if gains[best] == 0:
            break
        kept.append(best)
        missing &= ~table[best]
    return kept
