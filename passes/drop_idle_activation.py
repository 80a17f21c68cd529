"""Drop activations that never bind: Relu of what is never negative, Clip of what stays inside, and the like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.bounds.interval import Bounds
from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph
from onnxprune.operators import Interval, op_of, operator_for
from onnxprune.operators.elementwise import Elementwise
from onnxprune.pass_api import Exactness, PassReport

MARGIN = 1e-4
"""Room to a threshold, relative to the values (at least 1), that float32 rounding does not use up."""
MOST = 8
"""Operators followed back at most."""
POSITIVE = (0.0, float("inf"))
KEPT = {
    **dict.fromkeys(("Relu", "Abs", "Exp", "Sqrt", "Softplus"), POSITIVE),
    **dict.fromkeys(("Sigmoid", "HardSigmoid", "Softmax"), (0.0, 1.0)),
}
"""Ranges that floating-point kernels keep to exactly."""
MOVING = frozenset(
    (
        "AveragePool Concat Flatten Gather GlobalAveragePool GlobalMaxPool Identity MaxPool ReduceMax ReduceMin "
        "Reshape Slice Squeeze Transpose Unsqueeze"
    ).split()
)
"""Operators whose entries are entries (or means) of their input."""


@dataclass(frozen=True)
class DropIdleActivation:
    """Remove an activation node whose input stays where the activation is the identity; exact."""

    name: ClassVar[str] = "drop_idle_activation"
    exactness: ClassVar[Exactness] = Exactness.ON_DOMAIN
    order: ClassVar[int | None] = 70

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Bypass every idle activation."""
        report = PassReport(values_kept=True)
        bounds, anywhere = facts.bounds, facts.bounds_anywhere
        idle = [node for node in graph.nodes if _idle(graph, node, bounds)]
        for node in idle:
            kind, always = op_of(node), _idle(graph, node, anywhere)
            if graph.bypass(node):
                report.modified = True
                report.needed_domain |= not always
                report.changes[f"idle {kind}"] += 1
        return report


def _idle(graph: Graph, node: gs.Node, bounds: Bounds) -> bool:
    if op_of(node) == "MaxPool":
        kernel = node.attrs.get("kernel_shape", [])
        ones = all(int(k) == 1 for k in (*kernel, *node.attrs.get("strides", [])))
        return ones and not any(int(p) for p in node.attrs.get("pads", [])) and len(node.outputs) == 1
    operator = operator_for(str(node.op), node.domain)
    if not isinstance(operator, Elementwise) or op_of(node) in ("Identity", "Dropout"):
        return False
    straight = operator.identity_on(graph.view(node))
    if straight is None:
        return False
    found = bounds[node.inputs[0].name]
    inside = bool((found.lower >= straight[0]).all() and (found.upper <= straight[1]).all())
    return inside and (_clear(found, straight) or _never_outside(node.inputs[0], straight))


def _clear(found: Interval, straight: tuple[float, float]) -> bool:
    """Whether rounding cannot carry a value over a threshold either."""
    room = MARGIN * np.maximum(found.magnitude(), 1.0)
    return bool((found.lower >= straight[0] + room).all() and (found.upper <= straight[1] - room).all())


def _never_outside(tensor: gs.Tensor, straight: tuple[float, float], depth: int = 0) -> bool:
    """Whether the range is kept in floating point, too: by an operator that cannot leave it."""
    if isinstance(tensor, gs.Constant):
        values = np.asarray(tensor.values)
        return bool((values >= straight[0]).all() and (values <= straight[1]).all())
    if not tensor.inputs:
        return True  # an input, whose entries the bounds were taken from
    if depth > MOST:
        return False
    node = tensor.inputs[0]
    kept = KEPT.get(op_of(node))
    if op_of(node) == "Clip":
        kept = _clip_range(node)
    if kept is not None:
        return kept[0] >= straight[0] and kept[1] <= straight[1]
    if op_of(node) == "Add" and isinstance(node.inputs[1], gs.Constant):
        return _sum_stays(node, straight, depth)
    through = [t for t in node.inputs if t.name] if op_of(node) == "Concat" else node.inputs[:1]
    return op_of(node) in MOVING and all(_never_outside(t, straight, depth + 1) for t in through)


def _sum_stays(node: gs.Node, straight: tuple[float, float], depth: int) -> bool:
    """Rounding is monotone: a rounded sum stays beyond a threshold where the exact one does, if that is a float."""
    shift = np.asarray(node.inputs[1].values, dtype=np.float64)
    needed = (straight[0] - float(shift.min()), straight[1] - float(shift.max()))
    floats = all(float(np.float32(end)) == end for end in (*needed, *straight))
    return floats and _never_outside(node.inputs[0], needed, depth + 1)


def _clip_range(node: gs.Node) -> tuple[float, float] | None:
    ends = [node.attrs.get("min", -np.inf), node.attrs.get("max", np.inf)]
    for place, tensor in enumerate(node.inputs[1:3]):
        if tensor.name and not isinstance(tensor, gs.Constant):
            return None
        if tensor.name:
            ends[place] = np.asarray(tensor.values).item()
    return float(ends[0]), float(ends[1])
