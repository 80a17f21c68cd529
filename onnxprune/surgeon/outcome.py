"""How well a pruned model does on samples: output error, agreement, accuracy; measured in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.errors import InputError, ValidationError
from onnxprune.runtime import Runner
from onnxprune.surgeon.calibration import Calibration

Metric = Callable[[Sequence[NDArray[np.float64]], NDArray[np.int64] | None], float]
"""A figure of merit from the outputs (one array per output, samples first) and the labels, if there are any."""
BATCH = 64


@dataclass(frozen=True)
class Quality:
    """Comparison of a pruned model with the dense one on held-out samples.

    Attributes:
        samples: Number of samples.
        relative_error: Root mean square of the output error over that of the outputs about their mean (over that of
            the outputs, where all are alike).
        cosine: Mean cosine between pruned and dense output, per sample.
        agreement: Share of samples with the same largest output; None unless the task is to classify.
        accuracy: Of the pruned model in percent, with labels.
        dense_accuracy: Of the dense model in percent, with labels.
        metric: The caller's own figure of the pruned model.
        dense_metric: The caller's own figure of the dense model.
    """

    samples: int
    relative_error: float
    cosine: float
    agreement: float | None = None
    accuracy: float | None = None
    dense_accuracy: float | None = None
    metric: float | None = None
    dense_metric: float | None = None


def outputs(model: onnx.ModelProto, data: Calibration, provider: str, threads: int = 0) -> list[NDArray[np.float64]]:
    """Floating-point outputs for all samples, one array per output with samples first.

    Raises:
        InputError: There is none, or one of them does not run over samples.
    """
    runner = Runner(model, provider=provider, optimize=True, threads=threads)
    step = 1 if _takes_one_sample(model) else BATCH
    found: list[list[NDArray[np.float64]]] = []
    for start in range(0, len(data), step):
        part = data.take(slice(start, start + step))
        results = [np.asarray(r) for r in runner.run({n: np.ascontiguousarray(v) for n, v in part.inputs.items()})]
        for name, result in zip(runner.output_names, results, strict=True):
            if result.dtype.kind == "f" and (result.ndim == 0 or len(result) != len(part)):
                raise InputError(
                    f"Output '{name}' has shape {list(result.shape)} for {len(part)} samples.",
                    hint="The first axis of inputs and outputs has to run over samples.",
                )
        found.append([r.astype(np.float64) for r in results if r.dtype.kind == "f"])
    if not found[0]:
        raise InputError("The model has no floating-point output.", hint="Cut off what follows its scores.")
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def compare(
    dense: Sequence[NDArray[np.float64]],
    pruned: Sequence[NDArray[np.float64]],
    labels: NDArray[np.int64] | None,
    *,
    classify: bool,
    metric: Metric | None = None,
) -> Quality:
    """Compare outputs.

    Args:
        dense: Outputs of the dense model.
        pruned: Outputs of the pruned one.
        labels: Classes; only used when ``classify``.
        classify: Whether the first output holds one score per class in its last axis.
        metric: The caller's own figure.

    Raises:
        InputError: The dense model gives no numbers, or, to classify, no score for every class.
        ValidationError: The pruned model gives no numbers.
    """
    if not all(np.isfinite(values).all() for values in dense):
        raise InputError("The model gives NaN or infinity on the calibration data.", hint="Check model and data.")
    if not all(np.isfinite(values).all() for values in pruned):
        raise ValidationError("The pruned model gives NaN or infinity on the calibration data.", hint="Prune less.")
    change = sum(float(((p - d) ** 2).sum()) for d, p in zip(dense, pruned, strict=True))
    spread = sum(float(((d - d.mean(axis=0)) ** 2).sum()) for d in dense)
    spread = spread or sum(float((d**2).sum()) for d in dense) or change  # outputs that are all alike
    error = float(np.sqrt(change / spread)) if change else 0.0
    figures: dict[str, float] = {}
    if classify:
        before, after = _classes(dense[0], labels), _classes(pruned[0], labels)
        figures["agreement"] = float((before == after).mean())
        if labels is not None:
            figures["accuracy"] = 100 * float((after == labels).mean())
            figures["dense_accuracy"] = 100 * float((before == labels).mean())
    if metric is not None:
        figures |= {"metric": float(metric(pruned, labels)), "dense_metric": float(metric(dense, labels))}
    return Quality(len(dense[0]), error, _cosine(dense, pruned), **figures)


def _cosine(dense: Sequence[NDArray[np.float64]], pruned: Sequence[NDArray[np.float64]]) -> float:
    a, b = (np.concatenate([x.reshape(len(x), -1) for x in arrays], axis=1) for arrays in (dense, pruned))
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    product = lengths[0] * lengths[1]
    alike = np.where(lengths[0] == lengths[1], 1.0, 0.0)  # of two zeros, or of one zero and something else
    found = np.divide(np.sum(a * b, axis=1), product, out=alike, where=product > 0)
    return float(found.mean())


def _classes(scores: NDArray[np.float64], labels: NDArray[np.int64] | None) -> NDArray[np.int64]:
    flat = scores.reshape(len(scores), -1)
    if flat.shape[1] < 2:
        raise InputError(
            f"The first output has shape {list(scores.shape)}; to classify it needs one score per class.",
            hint="Leave --task classify out, or give a metric in Python.",
        )
    if labels is not None and int(labels.max(initial=0)) >= flat.shape[1]:
        raise InputError(
            f"There is a label {labels.max()}, but the first output has {flat.shape[1]} scores.",
            hint="Classes are numbered from 0, in the order of the scores.",
        )
    return np.asarray(flat.argmax(axis=1))


def _takes_one_sample(model: onnx.ModelProto) -> bool:
    dims = [v.type.tensor_type.shape.dim for v in model.graph.input]
    return any(d and d[0].dim_value == 1 for d in dims)
