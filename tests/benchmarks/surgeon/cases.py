"""What the benchmark of pruning measures: a model, a method, a goal, calibration images, and a seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

METHODS = ("magnitude", "cbs", "chita", "surgeon")
SEEDS = (0, 1, 2)
SPARSITIES = {
    "mlpnet": (0.5, 0.8, 0.9, 0.95, 0.98),
    "resnet": (0.5, 0.6, 0.7, 0.8, 0.9),
    "transformer": (0.5, 0.6, 0.7, 0.8, 0.9),
}
MODELS = {"mlpnet": "mlpnet_mnist", "resnet": "resnet20_cifar10", "transformer": "transformer"}
DATA = {"mlpnet": "mnist.npz", "resnet": "cifar10.npz", "transformer": "mnist.npz"}


@dataclass(frozen=True)
class Case:
    """One result.

    Attributes:
        group: What it belongs to, see :data:`GROUPS`.
        model: Key of :data:`MODELS`.
        method: As ``onnxprune prune --method``.
        goal: Such as ``sparsity 0.9``, ``macs 0.5`` or ``2:4``.
        images: Calibration images.
        seed: Draws them, and is the method's own.
        labels: Whether the method gets the images' classes.
    """

    group: str
    model: str
    method: str
    goal: str
    images: int
    seed: int
    labels: bool

    @property
    def key(self) -> str:
        """The case as one line."""
        return "|".join(map(str, asdict(self).values()))

    @property
    def threads(self) -> int:
        """Threads of ONNX Runtime; 0: those of the machine."""
        return 0 if self.model == "resnet" else 1

    def options(self) -> dict[str, Any]:
        """Options of :func:`onnxprune.prune`."""
        kind, _, amount = self.goal.partition(" ")
        goals: dict[str, dict[str, Any]] = {
            "sparsity": {"sparsity": float(amount or 0)},
            "macs": {"structure": "units", "macs": float(amount or 0)},
        }
        chosen = goals.get(kind, {"structure": self.goal})
        return {**chosen, "method": self.method, "seed": self.seed, "threads": self.threads, "classify": True}


def _sparse(group: str, images: int, sparsities: Iterable[float], seed: int) -> Iterator[Case]:
    for method in METHODS:
        published = method in ("cbs", "chita")  # they take gradients of the labels' cross entropy
        for sparsity in sparsities:
            yield Case(group, group, method, f"sparsity {sparsity:g}", images, seed, published)


def _mlpnet(seed: int) -> Iterator[Case]:
    yield from _sparse("mlpnet", 1000, SPARSITIES["mlpnet"], seed)
    yield from _sparse("mlpnet", 10_000, SPARSITIES["mlpnet"][-2:], seed)


def _resnet(seed: int) -> Iterator[Case]:
    yield from _sparse("resnet", 1000, SPARSITIES["resnet"], seed)


def _units(seed: int) -> Iterator[Case]:
    yield Case("units", "resnet", "surgeon", "macs 0.5", 1000, seed, labels=False)


def _pattern(seed: int) -> Iterator[Case]:
    for model in ("mlpnet", "resnet"):
        yield Case("pattern", model, "surgeon", "2:4", 1000, seed, labels=False)


def _transformer(seed: int) -> Iterator[Case]:
    yield from _sparse("transformer", 1000, SPARSITIES["transformer"], seed)


def _methods(seed: int) -> Iterator[Case]:
    for method in ("cbs", "chita"):
        for sparsity in SPARSITIES["mlpnet"]:
            yield Case("methods", "mlpnet", method, f"sparsity {sparsity:g}", 1000, seed, labels=False)


GROUPS = {
    "mlpnet": _mlpnet,
    "methods": _methods,
    "transformer": _transformer,
    "units": _units,
    "pattern": _pattern,
    "resnet": _resnet,
}
"""By name, in the order in which they run: quick ones first."""


def cases(groups: Sequence[str], methods: Sequence[str], seeds: Sequence[int]) -> list[Case]:
    """All cases of some groups: few images before many, and the first seed of all groups before the second."""
    chosen = [name for name in GROUPS if name in groups]
    found = [case for seed in seeds for name in chosen for case in GROUPS[name](seed) if case.method in methods]
    return sorted(found, key=lambda case: case.images)
