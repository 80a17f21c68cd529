"""Set weights to zero that nearly cancel one another, and refit the rest to calibration data. Changes the function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune.errors import InputError
from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph
from onnxprune.pass_api import Exactness, PassReport


@dataclass(frozen=True)
class CancelWeights:
    """Set single weights to zero and refit the rest to data; what is empty then, other passes remove.

    Attributes:
        data: Path of the calibration data: an .npz file or a folder of them.
        sparsity: Share of the weights that goes.
        pattern: Such as ``2:4``: keep so many of so many neighbours instead.
        method: ``surgeon``, ``cbs``, ``chita`` or ``magnitude``.
        samples: Calibration samples used at most.
        budget: Seconds of refitting.
        seed: Of all that is random.
    """

    data: str = ""
    sparsity: float = 0.5
    pattern: str = ""
    method: str = "surgeon"
    samples: int = 10_000
    budget: float = 600.0
    seed: int = 0

    name: ClassVar[str] = "cancel_weights"
    exactness: ClassVar[Exactness] = Exactness.APPROXIMATE
    order: ClassVar[int | None] = None

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Prune the graph as it is.

        Raises:
            InputError: The data or an option cannot be used, or nothing can be pruned.
        """
        from onnxprune.surgeon.options import PruneOptions  # noqa: PLC0415 # listing the passes stays quick
        from onnxprune.surgeon.rewriting import prune_graph  # noqa: PLC0415

        if not self.data:
            raise InputError("cancel_weights needs data.", hint="cancel_weights{data=calibration.npz,sparsity=0.9}")
        options = PruneOptions(
            sparsity=None if self.pattern else self.sparsity,
            structure=self.pattern or "weights",
            method=self.method,
            samples=self.samples,
            budget=self.budget,
            seed=self.seed,
        )
        return prune_graph(graph, self.data, options, "weights set to zero")
