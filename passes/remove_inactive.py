"""Remove units that output 0: their rows and biases here, their columns in the layers that read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph
from onnxprune.pass_api import Exactness, PassReport
from onnxprune.removable import Status
from onnxprune.removal import remove_by_status


@dataclass(frozen=True)
class RemoveInactive:
    """Remove units whose value is exactly 0 wherever a layer reads it (LEO, section on inactive units)."""

    name: ClassVar[str] = "remove_inactive"
    exactness: ClassVar[Exactness] = Exactness.ON_DOMAIN
    order: ClassVar[int | None] = 20

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Remove them all; exact."""
        return remove_by_status(graph, facts, Status.INACTIVE)
