"""Silence units that the others can stand in for, and refit the rest to calibration data. Changes the function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnxprune.errors import InputError
from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph
from onnxprune.pass_api import Exactness, PassReport


@dataclass(frozen=True)
class CancelUnits:
    """Set whole units to zero and refit the rest to data; ``remove_inactive`` takes them out then.

    Attributes:
        data: Path of the calibration data: an .npz file or a folder of them.
        macs: Share of the multiply-adds that may be left.
        align: Counts of units stay in multiples of it.
        samples: Calibration samples used at most.
        budget: Seconds of refitting.
        seed: Of all that is random.
    """

    data: str = ""
    macs: float = 0.5
    align: int = 8
    samples: int = 10_000
    budget: float = 600.0
    seed: int = 0

    name: ClassVar[str] = "cancel_units"
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
            raise InputError("cancel_units needs data.", hint="cancel_units{data=calibration.npz,macs=0.5}")
        options = PruneOptions(
            structure="units",
            macs=self.macs,
            align=self.align,
            samples=self.samples,
            budget=self.budget,
            seed=self.seed,
        )
        return prune_graph(graph, self.data, options, "weights of silenced units set to zero")
