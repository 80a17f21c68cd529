"""A plug-in of onnxprune: a rewrite pass, a pass that is wrong, and what a custom operator means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph
from onnxprune.operators import ChannelMap, Inputs, Interval, NodeView, Operator
from onnxprune.pass_api import Exactness, PassReport


@dataclass(frozen=True)
class CancelNegations:
    """Remove pairs of Neg nodes; exact."""

    name: ClassVar[str] = "demo_cancel_negations"
    exactness: ClassVar[Exactness] = Exactness.ALWAYS
    order: ClassVar[int | None] = 45

    limit: int = 100
    """Pairs removed at most in one run."""

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Bypass both nodes of a pair."""
        report = PassReport()
        for node in list(graph.nodes):
            producers = node.inputs[0].inputs if node.inputs else []
            if node.op != "Neg" or not producers or producers[0].op != "Neg":
                continue
            if report.changes["pairs of Neg"] == self.limit:
                break
            between = node.inputs[0]
            node.inputs[0] = producers[0].inputs[0]
            if graph.bypass(node):
                report.changes["pairs of Neg"] += 1
            else:
                node.inputs[0] = between
        graph.remove_unreachable()
        report.modified = bool(+report.changes)
        return report


@dataclass(frozen=True)
class Wrong:
    """Claim that no Relu does anything, which is not so."""

    name: ClassVar[str] = "demo_wrong"
    exactness: ClassVar[Exactness] = Exactness.ALWAYS
    order: ClassVar[int | None] = None

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Bypass every Relu."""
        dropped = [graph.bypass(node) for node in list(graph.nodes) if node.op == "Relu"]
        return PassReport(modified=any(dropped))


class Twice(Operator):
    """demo.Twice: two times x, entry by entry."""

    op_types = ("Twice",)
    domain = "demo"

    def interval(self, node: NodeView, inputs: Inputs) -> list[Interval] | None:
        """Both ends doubled, which is exact."""
        x = inputs[0]
        return None if x is None else [Interval.of(2 * x.lower, 2 * x.upper)]

    def channels(self, node: NodeView, links: ChannelMap) -> bool:
        """Every axis index for index."""
        shape = node.in_shape(0)
        for axis in range(len(shape or ())):
            links.same((node.input(0), axis), (node.output(), axis))
        return shape is not None
