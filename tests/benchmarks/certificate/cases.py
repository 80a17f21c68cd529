"""What is measured: models, their domains and budgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.stability.cases import INPUTS

PIXELS: dict[str, Any] = {"texts": ["0:1"]}
WITH_BOX = ("zoo/vww96.onnx", "zoo/slim320.onnx", "zoo/resnet20.onnx", "zoo/acas11.onnx")
"""Models of the zoo that are measured on a box; the others without a domain."""
SMALL = 1_500_000
"""Bytes up to which models with properties are checked with rational numbers, too, if they have no convolutions."""
IMAGES = ("cifar", "resnet", "unet", "cGAN", "Convnet", "NN_rul", "mnist_concat")


@dataclass(frozen=True)
class Case:
    """A model on a domain; ``budget`` is the seconds that proving is given."""

    group: str
    path: Path
    name: str
    domain: str
    budget: float
    exact: bool
    box: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def row(self) -> dict[str, Any]:
        """What a row says of the case itself."""
        return {"group": self.group, "model": self.name, "domain": self.domain, "budget": self.budget}


def cases(models: Path) -> Iterator[Case]:
    """All cases, quick ones first."""
    for path in sorted((models / "exact").rglob("*.onnx")):
        yield Case("exact", path, path.relative_to(models).as_posix(), "0:1", 10.0, True, PIXELS)
    for path in sorted((models / "vnncomp").rglob("*.onnx")):
        name = path.relative_to(models).as_posix()
        small = path.stat().st_size < SMALL and not any(text in path.name for text in IMAGES)
        for specification in _specifications(path):
            yield Case("vnncomp", path, name, specification.stem, 10.0, small, {"texts": [str(specification)]})
    for path in sorted((models / "zoo").glob("*.onnx")):
        name = path.relative_to(models).as_posix()
        box = INPUTS.get(name, PIXELS) if name in WITH_BOX else {}
        yield Case("zoo", path, name, "box" if box else "any", 10.0, False, box)


def first_of_each_family(known: Sequence[Case]) -> list[Case]:
    """All cases but those of vnncomp/, where the smallest model of every family is measured on its first property."""
    found = [case for case in known if case.group != "vnncomp"]
    families: dict[Path, Case] = {}
    for case in (case for case in known if case.group == "vnncomp"):
        best = families.setdefault(case.path.parent, case)
        if case.path.stat().st_size < best.path.stat().st_size:
            families[case.path.parent] = case
    return [*found, *sorted(families.values(), key=lambda case: case.path.stat().st_size)]


def _specifications(path: Path) -> list[Path]:
    """Properties of a model: those that name it, or all of its folder."""
    found = sorted(path.parent.glob("*.vnnlib"))
    stem = path.stem.split("_m=")[0].replace("tllBench_n=2_N=M=", "N=")
    named = [
        one for one in found if one.stem.startswith(path.stem) or (stem.startswith("N=") and f"{stem}_" in one.stem)
    ]
    return named or found
