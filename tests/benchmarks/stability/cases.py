"""What is measured: models, their domains, and the methods of every group."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .table import Baseline

PIXELS: dict[str, Any] = {"texts": ["0:1"]}
OVAL = {"mean": [0.485, 0.456, 0.406], "std": [0.225, 0.225, 0.225]}
CIFAR = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2471, 0.2435, 0.2616]}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
SENSORS = ([-0.328422877, -0.5, -0.5, -0.5, -0.5], [0.679857769, 0.5, 0.5, 0.5, 0.5])
LANDER = ([-1.5, -1.5, -5.0, -5.0, -3.14, -5.0, 0.0, 0.0], [1.5, 1.5, 5.0, 5.0, 3.14, 5.0, 1.0, 1.0])
"""Boxes named "full" in the baseline; its column domain_note says what each one is."""
FULL: dict[str, dict[str, Any]] = {
    "ACASXU_run2a_1_1_batch_2000.onnx": {"lower": SENSORS[0], "upper": SENSORS[1]},
    "cifar_base_kw.onnx": PIXELS | OVAL,
    "cifar_deep_kw.onnx": PIXELS | OVAL,
    "resnet_2b.onnx": PIXELS | CIFAR,
    "NN_rul_small_window_20.onnx": {"texts": ["-7:7"]},
    "robot.onnx": {"texts": ["-5:5"]},
    "lunarlander.onnx": {"lower": LANDER[0], "upper": LANDER[1]},
    "perturbations_0.onnx": {"texts": ["-1:1"]},
    "cGAN_imgSz32_nCh_1.onnx": {"lower": [0.0, -1.0, -1.0, -1.0, -1.0], "upper": [1.0] * 5},
}
INPUTS: dict[str, dict[str, Any]] = {
    "zoo/slim320.onnx": {"texts": ["0:255"], "mean": [127.0], "std": [128.0]},
    "zoo/mb05.onnx": {"texts": ["0:255"], "mean": [127.5], "std": [128.0]},
    "zoo/resnet20.onnx": PIXELS | IMAGENET,
    "zoo/acas11.onnx": {"texts": ["-0.5:0.5"]},
}
"""Boxes of models that have no property file."""
ACAS = "ACASXU_run2a_1_1_batch_2000.onnx"
MERGED = ("mnist_2x400_l1-1.25e-4", "mnist_2x800_l1-1.25e-4")
BOXES, TENTH = 3, 0.1
LONG = 600.0


@dataclass(frozen=True)
class Case:
    """One measurement; ``budget`` is the seconds that the method is given."""

    group: str
    model: str
    domain: str
    method: str
    budget: float
    box: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """See ``worker.domain_of``."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a finished row is found again by: groups share their rows."""
        return self.model, self.domain, self.method, f"{self.budget:g}"


@dataclass(frozen=True)
class Limits:
    """Seconds: of the cascade, of LEO and the single MILP, and of the analyzers that are compared."""

    cascade: float = 60.0
    milp: float = 120.0
    peer: float = 20.0


def cases(group: str, models: Path, baseline: Baseline, limits: Limits) -> Iterator[Case]:
    """All cases of a group, in the order they are measured."""
    yield from GROUPS[group](models, baseline, limits)


def _names(models: Path, folder: str) -> list[str]:
    return [path.relative_to(models).as_posix() for path in sorted((models / folder).glob("*.onnx"))]


def _exact(models: Path, _: Baseline, limits: Limits) -> Iterator[Case]:
    for model in _names(models, "exact"):
        for method in ("cascade", "linear0", "linear8"):
            yield Case("exact", model, "0:1", method, limits.cascade, PIXELS)
        yield Case("exact", model, "0:1", "optimize-product", limits.cascade, PIXELS)


def _small(models: Path) -> list[str]:
    return _names(models, "exact/mnist_trained") + _names(models, "exact/synth")


def _trained(models: Path, _: Baseline, limits: Limits) -> Iterator[Case]:
    for model in _small(models):
        for method in ("cascade", "linear0", "linear8"):
            yield Case("trained", model, "0:1", method, limits.cascade, PIXELS)


def _milp(method: str) -> Any:
    def found(models: Path, _: Baseline, limits: Limits) -> Iterator[Case]:
        for model in _small(models):
            yield Case(method, model, "0:1", method, limits.milp, PIXELS)

    return found


def _merge(models: Path, _: Baseline, limits: Limits) -> Iterator[Case]:
    for model in _small(models):
        if any(name in model for name in MERGED):
            for rule in ("product", "rows"):
                yield Case("merge", model, "0:1", f"optimize-{rule}", limits.cascade, PIXELS)


def _vnncomp(models: Path, baseline: Baseline, limits: Limits) -> Iterator[Case]:
    for model, domain in baseline:
        path = next((models / "vnncomp").rglob(model), None)
        box = FULL.get(model, PIXELS)
        if path is not None and domain != "full":
            box = {"texts": [str(next(path.parent.glob(domain)))]}
        if path is not None:
            name = path.relative_to(models).as_posix()
            compared = ("linear0", "linear8", "cascade") if "CROWN" in baseline[model, domain] else ()
            for method in ("interval", *compared):
                yield Case("vnncomp", name, domain, method, limits.cascade, box)


def _acas(models: Path, _: Baseline, limits: Limits) -> Iterator[Case]:
    folder = models / "vnncomp" / "acasxu"
    name = (folder / ACAS).relative_to(models).as_posix()
    for method in ("samples", "cascade"):
        box: dict[str, Any] = {"texts": [str(folder / "prop_1.vnnlib")]}
        yield Case("acas", name, "prop_1.vnnlib", method, limits.cascade, box)
    for number, box in enumerate(tenths()):
        yield Case("acas", name, f"tenth {number}", "cascade", LONG, box)


def tenths() -> list[dict[str, Any]]:
    """Boxes inside the full one with a tenth of its sides: one in the middle, the others drawn with a seed."""
    low, high = np.array(SENSORS[0]), np.array(SENSORS[1])
    rng = np.random.default_rng(0)
    shares = [np.full(len(low), 0.5), *(rng.random(len(low)) for _ in range(BOXES - 1))]
    starts = [low + share * (1 - TENTH) * (high - low) for share in shares]
    return [{"lower": s.tolist(), "upper": (s + TENTH * (high - low)).tolist()} for s in starts]


def _convnet(models: Path, _: Baseline, limits: Limits) -> Iterator[Case]:
    for model in _names(models, "vnncomp/verivital"):
        for method in ("interval", "cascade"):
            yield Case("convnet", model, "full", method, limits.cascade, PIXELS)


def _peers(models: Path, baseline: Baseline, limits: Limits) -> Iterator[Case]:
    for path in sorted(models.rglob("*.onnx")):
        name = path.relative_to(models).as_posix()
        domain, box = _box(path, name, baseline)
        for method in ("onnxsim", "cascade"):
            yield Case("onnxsim", name, domain, method, limits.peer, box)


def _box(path: Path, name: str, baseline: Baseline) -> tuple[str, Mapping[str, Any]]:
    """The first property of a model in the baseline, else its range of pixels."""
    properties = [domain for model, domain in baseline if model == path.name and domain != "full"]
    if "vnncomp" in name and properties:
        return properties[0], {"texts": [str(next(path.parent.glob(properties[0])))]}
    if "exact" in name:
        return "0:1", PIXELS
    described = path.with_suffix(".json")
    about = json.loads(described.read_text(encoding="utf-8")) if described.exists() else {}
    steps = about.get("preprocessing", {})
    return "full", INPUTS.get(name, PIXELS | {key: steps[key] for key in ("mean", "std") if key in steps})


GROUPS: dict[str, Any] = {
    "exact": _exact,
    "trained": _trained,
    "merge": _merge,
    "convnet": _convnet,
    "acas": _acas,
    "vnncomp": _vnncomp,
    "onnxsim": _peers,
    "leo": _milp("leo"),
    "single": _milp("single"),
}
