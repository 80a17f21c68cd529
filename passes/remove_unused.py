"""Remove units whose outgoing weights are all zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph
from onnxprune.pass_api import Exactness, PassReport
from onnxprune.removable import Status
from onnxprune.removal import remove_by_status


@dataclass(frozen=True)
class RemoveUnused:
    """Remove units that every reading layer multiplies by exact zeros."""

    name: ClassVar[str] = "remove_unused"
    exactness: ClassVar[Exactness] = Exactness.ALWAYS
    order: ClassVar[int | None] = 40

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Remove them all; exact."""
        return remove_by_status(graph, facts, Status.UNUSED)
