"""Units that are shown to switch: the original is run on stored inputs, with the error of every value bounded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.verify.certificate import Witnesses
from onnxprune.verify.evidence import proper
from onnxprune.verify.forward import Forward
from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval
from onnxprune.verify.reasons import Rejected


def check_witnesses(witnesses: Witnesses, net: Network, inputs: Mapping[str, Interval]) -> int:
    """How many entries of pre-activations are shown to take both signs.

    Raises:
        Rejected: One of them is not.
    """
    if not witnesses.seen:
        return 0
    counts = {len(points) for points in witnesses.points.values()}
    if set(witnesses.points) != set(net.inputs) or len(counts) != 1:
        raise Rejected("witnesses do not give a value to every input")
    above = {name: np.zeros(len(entries), dtype=bool) for name, entries in witnesses.seen.items()}
    below = {name: mask.copy() for name, mask in above.items()}
    for number in range(counts.pop()):
        values = Forward(net, _point(witnesses, net, inputs, number)).run()
        for name, entries in witnesses.seen.items():
            shape = net.sample(name)
            if name not in values or shape is None or not proper(entries, int(np.prod(shape))):
                raise Rejected(f"witnesses speak of entries of {name} that there are not, or of one of them twice")
            low, high = (np.broadcast_to(end, shape).reshape(-1)[entries] for end in values[name].floats())
            above[name] |= low > 0
            below[name] |= high < 0
    for name, entries in witnesses.seen.items():
        wrong = np.flatnonzero(~(above[name] & below[name]))
        if len(wrong):
            raise Rejected(f"no stored input shows both signs of entry {int(entries[wrong[0]])} of {name}")
    return sum(len(entries) for entries in witnesses.seen.values())


def _point(witnesses: Witnesses, net: Network, inputs: Mapping[str, Interval], number: int) -> dict[str, Interval]:
    found = {}
    for name in net.inputs:
        shape = net.sample(name)
        upper = witnesses.points[name][number]
        if shape is None or upper.size != int(np.prod(shape)):
            raise Rejected(f"a witness gives {upper.size} values to input {name}")
        low, high = (np.broadcast_to(end, shape) for end in inputs[name].floats())
        at = np.where(upper.reshape(shape), high, low)
        found[name] = Interval.of(at, at)
    return found
