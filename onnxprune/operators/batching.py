"""Whether an operator treats the samples of a batch apart from one another.

Rules are asked at batch 1. Where the batch axis of a model is symbolic they stand for every batch size only if
samples do not meet: entries in row-major order are those of the first sample, then those of the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from onnxprune.operators.base import NodeView, Operator
from onnxprune.operators.interval import Array
from onnxprune.operators.static import input_sizes, output_sizes, variables
from onnxprune.operators.tape import NumpyTape, Sizes

FAR = 1e3
"""How much larger (smaller) the entries of the other sample are, so that it would be picked if it could."""


def samples_apart(operator: Operator, one: NodeView, two: NodeView) -> bool:
    """Whether the node acts on two samples as it does on each.

    Args:
        operator: Its rules.
        one: The node with the shapes of a batch of 1.
        two: The same with the shapes of a batch of 2; inputs without batch have the same shape in both.

    Returns:
        False where samples meet, where they are not one after the other, or where no rule applies. An affine map
        is compared at random points and with one sample at zero, a choice with the other sample far out of range.
    """
    sizes = [(input_sizes(one, k), input_sizes(two, k)) for k in range(one.n_inputs)]
    pairs = {k: (a, b) for k, (a, b) in enumerate(sizes) if k in variables(one) and a is not None and b is not None}
    if len(pairs) < len(variables(one)) or any(b not in (a, _doubled(a, b)) for a, b in pairs.values()):
        return False
    if not any(a != b for a, b in pairs.values()):
        return False
    rng = np.random.default_rng(0)
    samples = [{k: rng.uniform(0.5, 1.5, a) for k, (a, _) in pairs.items()} for _ in range(2)]
    for shift in (0.0, FAR, -FAR):
        changed = [samples[0], {k: v + (shift if pairs[k][0] != pairs[k][1] else 0.0) for k, v in samples[1].items()}]
        for k, (a, b) in pairs.items():
            if a == b:
                changed[1][k] = changed[0][k]
        if not _agree(operator, one, two, changed, pairs):
            return False
    return _no_leak(operator, two, samples, pairs)


def _doubled(a: Sizes, b: Sizes) -> Sizes | None:
    """``b``, if it has twice the entries of ``a``."""
    return b if prod(b) == 2 * prod(a) else None


Pairs = dict[int, tuple[Sizes, Sizes]]


def _agree(operator: Operator, one: NodeView, two: NodeView, samples: list[dict[int, Array]], pairs: Pairs) -> bool:
    single = [_run(operator, one, sample) for sample in samples]
    both = _run(operator, two, _joined(samples, pairs))
    if both is None or single[0] is None or single[1] is None:
        return False
    for k, found in enumerate(both):
        wanted = np.concatenate([single[0][k].reshape(-1), single[1][k].reshape(-1)])
        scale = float(np.abs(wanted).max(initial=1e-300))
        if found.size != wanted.size or not np.allclose(found.reshape(-1), wanted, rtol=0, atol=1e-10 * scale):
            return False
    return True


def _no_leak(operator: Operator, two: NodeView, samples: list[dict[int, Array]], pairs: Pairs) -> bool:
    """Magnitudes of one sample's part, from the other sample alone, are exactly zero."""
    tape = NumpyTape(absolute=True, shifts=False)
    for silent in (0, 1):
        given = [
            {k: np.zeros(v.shape) if s == silent or pairs[k][0] == pairs[k][1] else v for k, v in sample.items()}
            for s, sample in enumerate(samples)
        ]
        rows = _joined(given, pairs)
        found = operator.affine(two, tape, [rows[k][None] if k in rows else None for k in range(two.n_inputs)])
        for values in found or ():
            if values.reshape(2, -1)[silent].any():
                return False
    return True


def _joined(samples: Sequence[dict[int, Array]], pairs: Pairs) -> dict[int, Array]:
    return {
        k: samples[0][k] if a == b else np.concatenate([sample[k].reshape(-1) for sample in samples]).reshape(b)
        for k, (a, b) in pairs.items()
    }


def _run(operator: Operator, node: NodeView, values: dict[int, Array]) -> list[Array] | None:
    """The outputs at a point, by whatever rule there is."""
    given = [values[k][None] if k in values else None for k in range(node.n_inputs)]
    found = operator.affine(node, NumpyTape(), given)
    if found is not None:
        return found
    choices = operator.choices(node)
    if choices is not None:
        parts = [np.asarray(values[k] if k in values else node.constant(k), np.float64) for k in range(node.n_inputs)]
        flat = np.concatenate([part.reshape(-1) for part in parts])
        padded = np.append(flat, -np.inf if choices.largest else np.inf)[choices.indices]
        return [padded.max(axis=1) if choices.largest else padded.min(axis=1)]
    entrywise = (
        operator.pieces(node) is not None or operator.derivative(node, np.zeros((1, *_first(values)))) is not None
    )
    return [next(iter(values.values()))] if entrywise and output_sizes(node) == _first(values) else None


def _first(values: dict[int, Array]) -> Sizes:
    return next(iter(values.values())).shape
