"""One case of the benchmark: prune, then look at the test images once."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import onnxprune
from onnxprune.runtime import Runner

from .cases import DATA, MODELS, Case
from .images import Images, drawn, unseen

BATCH = 100
OURS = Path(__file__).parents[3] / "models"


@dataclass
class Bench:
    """Models and data.

    Attributes:
        models: Folder of ``mlpnet_mnist.onnx`` and ``resnet20_cifar10.onnx`` with their JSON files.
        data: Folder of ``mnist.npz`` and ``cifar10.npz``.
    """

    models: Path
    data: Path
    _dense: dict[str, tuple[Images, NDArray[np.float32]]] = field(default_factory=dict)

    def path(self, model: str) -> Path:
        """Where a model is; the transformer belongs to the project."""
        return (OURS if model == "transformer" else self.models) / f"{MODELS[model]}.onnx"

    def measured(self, case: Case) -> dict[str, Any]:
        """The case and what came out, as a row."""
        path = self.path(case.model)
        images = drawn(path, self.data / DATA[case.model], case.images, case.seed)
        (source,) = onnx.load(path).graph.input
        feeds: dict[str, NDArray[Any]] = {source.name: images.values}
        feeds |= {"labels": images.labels} if case.labels else {}
        keep = shortcuts(path) if case.model == "resnet" and not case.goal.startswith("macs") else []
        wall, processor = time.perf_counter(), time.process_time()
        told = onnxprune.prune(path, feeds, keep=keep, samples=len(images.values), **case.options())
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        test, dense = self._reference(case.model, path)
        scores = answers(told.model, test.values, case.threads)
        report = told.report
        before, after = report["before"], report["after"]
        return {
            **asdict(case),
            "accuracy": percent(scores.argmax(axis=1) == test.labels),
            "dense_accuracy": percent(dense.argmax(axis=1) == test.labels),
            "agreement": percent(scores.argmax(axis=1) == dense.argmax(axis=1)),
            "cosine": cosine(scores, dense),
            "weights": report["weights"]["total"],
            "sparsity": report["weights"]["sparsity"],
            "macs_left": after["macs"] / before["macs"],
            "latency_left": after["latency_ms"] / before["latency_ms"],
            "bytes": after["bytes"],
            "compressed_bytes": after["compressed_bytes"],
            "seconds": round(wall, 2),
            "processor_seconds": round(processor, 2),
            "threads": case.threads,
            "notes": report["notes"],
        }

    def _reference(self, model: str, path: Path) -> tuple[Images, NDArray[np.float32]]:
        """Test images and the dense model's answers to them."""
        if model not in self._dense:
            test = unseen(path, self.data / DATA[model])
            self._dense[model] = test, answers(onnx.load(path), test.values, int(model != "resnet"))
        return self._dense[model]


def shortcuts(path: Path) -> list[str]:
    """Names of the 1x1 convolutions of residual shortcuts, which the papers do not prune."""
    nodes = onnx.load(path).graph.node
    return [node.name for node in nodes if node.op_type == "Conv" and any("downsample" in name for name in node.input)]


def answers(model: onnx.ModelProto, values: NDArray[np.float32], threads: int) -> NDArray[np.float32]:
    """Scores of all images."""
    runner = Runner(model, optimize=True, threads=threads)
    name = model.graph.input[0].name
    parts = [runner.run({name: values[i : i + BATCH]})[0] for i in range(0, len(values), BATCH)]
    return np.concatenate(parts)


def percent(hits: NDArray[np.bool_]) -> float:
    return round(100 * float(hits.mean()), 4)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Mean over images of the cosine between the scores of two models; 0 where all scores of one are 0."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return float((np.sum(x * y, axis=1) / np.where(lengths > 0, lengths, 1.0)).mean())
