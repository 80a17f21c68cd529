"""Drop activations that never bind: Relu of what is never negative, Clip of what stays inside, and the like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_graphsurgeon as gs

from onnxprune.bounds.interval import Bounds
from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph
from onnxprune.operators import op_of, operator_for
from onnxprune.operators.elementwise import Elementwise
from onnxprune.pass_api import Exactness, PassReport


@dataclass(frozen=True)
class DropIdleActivation:
    """Remove an activation node whose input stays where the activation is the identity; exact."""

    name: ClassVar[str] = "drop_idle_activation"
    exactness: ClassVar[Exactness] = Exactness.ON_DOMAIN
    order: ClassVar[int | None] = 70

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Bypass every idle activation."""
        report = PassReport()
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
    return bool((found.lower >= straight[0]).all() and (found.upper <= straight[1]).all())
