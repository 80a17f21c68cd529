"""Bounds over many sub-boxes at once, every row of a walk back knowing its own box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.verify.backward import RULES, Backward, bent
from onnxprune.verify.cases import Cuts
from onnxprune.verify.forward import Forward, Given
from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval
from onnxprune.verify.reasons import Rejected

Floats = NDArray[np.float64]
ROWS = 2**21
"""Coefficients on the widest tensor that are held at once."""


def swept(
    net: Network,
    inputs: Mapping[str, Interval],
    cuts: Cuts,
    last: str,
    known: Mapping[str, Interval],
    exact: bool,
) -> dict[str, tuple[Floats, Floats]]:
    """Bounds on all inputs of piecewise-linear activations up to one of them, that hold in all sub-boxes.

    Args:
        net: The model.
        inputs: Bounds on its inputs.
        cuts: Sub-boxes of one input.
        last: An input of a piecewise-linear activation.
        known: Bounds on the whole domain, of some tensors.
        exact: Whether to compute without rounding.

    Raises:
        Rejected: The cuts are none of this model's domain.
    """
    tensors = bending(net)
    tensors = tensors[: tensors.index(last) + 1]
    shape = net.sample(cuts.source)
    if cuts.source not in inputs or shape is None or shape[:1] != (1,):
        raise Rejected(f"there is no input {cuts.source} that could be cut")
    ends = [np.array(np.broadcast_to(end, shape)).reshape(-1) for end in inputs[cuts.source].floats()]
    low, high = cuts.leaves(*ends)
    worst = {name: (np.full(_size(net, name), np.inf), np.full(_size(net, name), -np.inf)) for name in tensors}
    widest = max(_size(net, name) for name in (*tensors, cuts.source))
    size = max(1, ROWS // (2 * widest * widest))
    for start in range(0, len(low), size):
        part = slice(start, start + size)
        boxes = {cuts.source: inputs[cuts.source].like(*(e[part].reshape(-1, *shape[1:]) for e in (low, high)))}
        for name, (least, most) in bounded(net, inputs, boxes, tensors, known, exact).items():
            worst[name] = np.minimum(worst[name][0], least.min(axis=0)), np.maximum(worst[name][1], most.max(axis=0))
    return worst


def bending(net: Network) -> list[str]:
    """Inputs of piecewise-linear activations, of static size, from front to back."""
    names = [name for node in net.nodes for name in node.outputs]
    return [name for name in names if net.sample(name) is not None and any(
        reader.inputs[0] == name and bent(Given(reader, net, {}, False)) is not None
        for reader in net.readers.get(name, [])
    )]  # fmt: skip


def _size(net: Network, name: str) -> int:
    shape = net.sample(name)
    if shape is None or shape[:1] != (1,):
        raise Rejected(f"{name} has no static size")
    return int(np.prod(shape))


def bounded(
    net: Network,
    inputs: Mapping[str, Interval],
    boxes: Mapping[str, Interval],
    tensors: Sequence[str],
    known: Mapping[str, Interval],
    exact: bool,
    influence: Floats | None = None,
) -> dict[str, tuple[Floats, Floats]]:
    """Bounds per sub-box, shape (boxes, entries) each.

    Args:
        net: The model.
        inputs: Bounds on its inputs.
        boxes: Sub-boxes of one of them, one behind another along the first axis.
        tensors: Pre-activations, from front to back.
        known: Bounds on the whole domain.
        exact: Whether to compute without rounding.
        influence: Receives how much entries of that input matter, added up over all bounds.
    """
    count = next(iter(boxes.values())).shape[0]
    found: dict[str, tuple[Floats, Floats]] = {}
    bounds: dict[str, Interval] = {**Forward(net, inputs, exact).run(), **boxes}
    for name in tensors:
        shape = net.sample(name) or ()
        width = _size(net, name)
        least, most = np.full((count, width), -np.inf), np.full((count, width), np.inf)
        if name in known and known[name].ndim == len(shape):
            ends = (end.reshape(1, -1 if end.size > 1 else 1) for end in known[name].floats())
            least, most = (np.array(np.broadcast_to(end, (count, width))) for end in ends)
        open_entries = np.flatnonzero(((least < 0) & (most > 0)).any(axis=0))
        if len(open_entries):
            each = {n: b for n, b in bounds.items() if n not in boxes and n not in found}
            own = {n: b for n, b in bounds.items() if n in boxes or n in found}
            which, entries = (part.reshape(-1) for part in np.meshgrid(np.arange(count), open_entries, indexing="ij"))
            for rule in ("adaptive", "opposite"):
                rows = np.zeros((2 * len(which), width))
                rows[np.arange(len(which)), entries] = 1.0
                rows[len(which) + np.arange(len(which)), entries] = -1.0
                places = np.tile(which, 2)
                chosen = {n: b[places] for n, b in own.items()}
                backward = Backward(net, {**each, **chosen}, exact)
                high, low = np.split(backward.upper(name, rows.reshape(-1, *shape), RULES[rule]), 2)
                most[which, entries] = np.minimum(most[which, entries], high)
                least[which, entries] = np.maximum(least[which, entries], -low)
                if influence is not None:
                    influence += sum(backward.reached.get(n, 0.0) for n in boxes)
                still = (least[which, entries] < 0) & (most[which, entries] > 0)
                which, entries = which[still], entries[still]
                if not len(which):
                    break
        found[name] = (least, most)
        like = next(iter(inputs.values()))
        bounds[name] = like.like(least.reshape(count, *shape[1:]), most.reshape(count, *shape[1:]))
    return found
