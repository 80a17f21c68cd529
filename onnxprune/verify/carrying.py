"""How far the output of a node is moved where its inputs are: nodes that both models have, with the same inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxprune.verify.forms import SLACK, Form
from onnxprune.verify.meanings import STEADY, SUMS, meaning
from onnxprune.verify.network import Node
from onnxprune.verify.sides import Side


def carried(
    before: Side, after: Side, node: Node, known: Mapping[str, Form], output: str, *, affine: bool = False
) -> tuple[float, float] | None:
    """Deviation and rounding behind a node; None where the deviation is lost track of.

    Args:
        before: The original.
        after: The optimized model.
        node: A node of the original.
        known: By input that varies, the tensor of the optimized model that it is, and by how much it is off.
        output: Which of its outputs.
        affine: Whether to answer for affine nodes, too: forms keep better track of those, row by row.
    """
    names = [name for name in (*node.inputs, *node.captured) if name in known]
    errors = [(float(known[name].deviation), float(known[name].rounding)) for name in names]
    deviations, roundings = zip(*errors, strict=True)
    if not any(deviations) and not any(roundings):
        return 0.0, 0.0
    kind = before.net.kinds.get(output)
    factors = _factors(before, after, node, names, known)
    if kind is not None and kind.dtype is not None and kind.dtype.kind in "iub":
        factors = [np.inf] * len(names)  # a whole number changes by jumps
    elif node.op in STEADY and _averages(node):
        deviations, roundings, factors = (max(deviations),), (max(roundings),), [1.0]
    elif not affine and len(names) == 1 and node.op in before.affine.operators:
        return None
    factors = factors or [np.inf] * len(names)
    deviation, rounding = (sum(map(_times, part, factors)) * SLACK for part in (deviations, roundings))
    return None if deviation == np.inf else (deviation, rounding)


def _factors(before: Side, after: Side, node: Node, names: list[str], known: Mapping[str, Form]) -> list[float] | None:
    """What errors of the inputs are multiplied by, each; None where nothing is known."""
    if node.op in SUMS:
        return [1.0] * len(names)
    if node.op == "Mul" and len(names) == 2:
        # x y - x' y' = (x - x') y' + x (y - y')
        return [_largest(after, known[names[1]].whole), _largest(before, names[0])]
    if node.op in ("Mul", "MatMul") and len(names) == 1:
        place = next(index for index, name in enumerate(node.inputs) if name not in known)
        weights = np.abs(np.asarray(before.net.constants[node.inputs[place]], dtype=np.float64))
        if node.op == "MatMul" and weights.ndim:
            weights = weights.sum(axis=0 if weights.ndim == 1 else -2 if place else -1)
        return [float(weights.max(initial=0.0)) * SLACK]
    told = meaning(before.given(node))
    return [told.lipschitz] * len(names) if told is not None and len(names) == 1 else None


def _largest(side: Side, tensor: str) -> float:
    low, high = side.known(tensor).floats()
    return float(np.maximum(np.abs(low), np.abs(high)).max(initial=0.0))


def _averages(node: Node) -> bool:
    """Whether a node that resizes does not overshoot; others never do."""
    return node.op != "Resize" or str(node.get("mode", "nearest")) in ("nearest", "linear")


def _times(error: float, factor: float) -> float:
    return error * factor if error else 0.0
