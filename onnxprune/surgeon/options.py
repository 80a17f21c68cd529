"""What a user can choose about pruning, and what cannot be meant."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxprune.errors import InputError
from onnxprune.pipeline import Progress
from onnxprune.surgeon.outcome import Metric

METHODS = ("surgeon", "cbs", "chita", "magnitude")


@dataclass(frozen=True)
class PruneOptions:
    """Everything but the model and the calibration data.

    Attributes:
        sparsity: Share of the weights to remove.
        macs: Share of the multiply-adds that may be left.
        params: Share of the parameters that may be left.
        latency: Share of the latency that may be left (units only).
        structure: ``weights``, ``units``, or a pattern such as ``2:4``.
        method: ``surgeon``, ``cbs``, ``chita`` or ``magnitude``.
        classify: Report agreement and accuracy of the first output's largest score.
        metric: The caller's own figure, from outputs and labels.
        labels: Fit to the labels of the calibration data, too, not to the dense model alone.
        keep: Names of layers that stay as they are.
        samples: Calibration samples used at most.
        steps: Steps of descent; 0: as many as the model's size suggests.
        budget: Seconds of descent at most.
        align: Channels stay in multiples of it (units).
        sparse: Store weights as sparse initializers where ONNX Runtime accepts them.
        blocks: Blocks of 20 weights whose selection a MILP proves or improves on, for the report (``cbs`` only).
        seed: Of the held-out samples, batches and probes.
        provider: Execution provider.
        threads: Threads of ONNX Runtime (0: its default).
        progress: Called with a line of text.
        stopped: Once it says True, the last finished stage is the result.
    """

    sparsity: float | None = None
    macs: float | None = None
    params: float | None = None
    latency: float | None = None
    structure: str = "weights"
    method: str = "surgeon"
    classify: bool = False
    metric: Metric | None = None
    labels: bool = False
    keep: Sequence[str] = ()
    samples: int = 10_000
    steps: int = 0
    budget: float = 600.0
    align: int = 8
    sparse: bool = False
    blocks: int = 0
    seed: int = 0
    provider: str | None = None
    threads: int = 0
    progress: Progress = lambda _: None
    stopped: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InputError: A value outside its range, or budgets that do not fit the structure.
        """
        if isinstance(self.keep, str):
            raise InputError(f"keep is the text {self.keep!r}, not a list of names.", hint=f"keep=[{self.keep!r}]")
        for name in ("sparsity", "macs", "params", "latency"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise InputError(f"{name} cannot be {value!r}.", hint="It is a share between 0 and 1, such as 0.5.")
        checks = {
            "method": (self.method in METHODS, ", ".join(METHODS)),
            "structure": (self.structure in ("weights", "units") or self.pattern is not None, "weights, units or N:M"),
            "samples": (self.samples >= 1, "1 or more"),
            "steps": (self.steps >= 0, "0 or more"),
            "budget": (0 < self.budget < math.inf, "a number of seconds above 0"),
            "align": (self.align in (1, 4, 8, 16), "1, 4, 8 or 16"),
            "blocks": (self.blocks >= 0, "0 or more"),
            "seed": (self.seed >= 0, "0 or more"),
            "threads": (self.threads >= 0, "0 or more"),
        }
        for name, (fine, wanted) in checks.items():
            if not fine:
                raise InputError(f"{name} cannot be {getattr(self, name)!r}.", hint=f"It is {wanted}.")
        self._check_budgets()

    def _check_budgets(self) -> None:
        given = {n for n in ("sparsity", "macs", "params", "latency") if getattr(self, n) is not None}
        if self.pattern is not None:
            if given:
                raise InputError(
                    f"The pattern {self.structure} fixes what stays; {_named(given)} cannot be asked for as well.",
                    hint="Leave it out, or use --structure weights.",
                )
            return
        if not given:
            raise InputError("How much is to go?", hint="Give --sparsity 0.9, or --structure units --macs 0.5.")
        if self.structure == "units" and ("sparsity" in given or len(given) > 1):
            raise InputError("Units are removed for one budget: macs, params or latency.", hint="--macs 0.5, say.")
        if self.structure == "weights" and "latency" in given:
            raise InputError(
                "Single weights do not make a model faster in ONNX Runtime.", hint="--structure units --latency 0.5"
            )
        if self.method != "surgeon" and (self.structure != "weights" or given != {"sparsity"}):
            raise InputError(
                f"Method {self.method} prunes single weights to a sparsity.", hint="Leave --method out for the rest."
            )

        if self.blocks and self.method != "cbs":
            raise InputError("Blocks of a selection are proved for method cbs only.", hint="Add --method cbs.")

    @property
    def pattern(self) -> tuple[int, int] | None:
        """N and M of a pattern; None where the structure is none."""
        match = re.fullmatch(r"(\d+):(\d+)", self.structure)
        if match is None or not 0 < int(match[1]) < int(match[2]) <= 64:
            return None
        return int(match[1]), int(match[2])


def _named(names: set[str]) -> str:
    return " and ".join(f"--{name}" for name in sorted(names))
