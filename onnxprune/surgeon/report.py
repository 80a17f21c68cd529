"""The report of a pruning run: what went, what it saves, and how far the outputs moved."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.graph.cost import Cost
from onnxprune.graph.files import Source, fingerprint, standard_opset
from onnxprune.pipeline import Reduced
from onnxprune.protobuf import LIMIT, byte_size
from onnxprune.report import Report
from onnxprune.report.details import Details
from onnxprune.surgeon.latency_budget import LatencyBudget
from onnxprune.surgeon.memory import Memory
from onnxprune.surgeon.methods import Operated
from onnxprune.surgeon.options import PruneOptions
from onnxprune.surgeon.outcome import Quality
from onnxprune.surgeon.selection.fisher_blocks import ProvedBlock

SCHEMA = 1
SLACK = 1.05
"""A latency above what was asked for by less than this ratio is noise."""


def prune_report(
    *,
    source: Source,
    models: Mapping[str, onnx.ModelProto],
    files: Mapping[str, onnx.ModelProto],
    sparse: Sequence[str],
    costs: Mapping[str, Cost],
    latencies: Mapping[str, NDArray[np.float64]],
    operated: Operated,
    final: Reduced,
    quality: Quality,
    options: PruneOptions,
    latency: LatencyBudget | None,
    memory: Memory,
    labelled: bool,
    provider: str,
    seconds: float,
) -> Report:
    """Put a report together.

    Args:
        source: The model as it was read.
        models: Under ``before``, ``tidied``, ``after``; every tensor dense.
        files: The same as they are stored: with sparse tensors, where there are any.
        sparse: Names of the tensors that are sparse in the result.
        costs: Of these.
        latencies: Milliseconds of single runs under the same names.
        operated: New parameters and how they were found.
        final: The result, with what the lossless passes took out.
        quality: Comparison on held-out samples.
        options: What was asked for.
        latency: What the latency that was asked for came to, if one was.
        memory: Samples and what they take.
        labelled: Whether the calibration data have labels.
        provider: Execution provider.
        seconds: Of the whole run.
    """
    layers = [_layer(target.layer, target.name, operated) for target in operated.found.targets]
    removed = sum(entry.removed for entry in final.entries.values())
    weights, zeros = (sum(layer[key] for layer in layers) for key in ("weights", "zeros"))
    return Report(
        {
            "schema": SCHEMA,
            "exactness": "APPROXIMATE",
            "model": {
                "path": str(source.path) if source.path else None,
                "sha256": fingerprint(source.model),
                "opset": standard_opset(source.model),
            },
            "method": options.method,
            "structure": options.structure,
            "asked": {n: getattr(options, n) for n in ("sparsity", "macs", "params", "latency") if getattr(options, n)},
            "share_of_the_way": operated.share,
            **{name: _stage(models[name], costs[name], files[name]) for name in ("before", "tidied", "after")},
            "weights": {"total": weights, "zeros": zeros, "sparsity": zeros / weights},
            "layers": layers,
            "kept": operated.found.refused,
            "removed_units": removed,
            "blocks": [_block(block) for block in operated.blocks],
            "sparse_tensors": list(sparse),
            "latency_budget": None if latency is None else asdict(latency),
            "calibration": {
                **asdict(memory),
                "labelled": labelled,
                "labels_used": options.labels,
                "seed": options.seed,
            },
            "quality": {name: value for name, value in asdict(quality).items() if value is not None},
            "mismatch": {"held_out": operated.mismatch, "stages": operated.history},
            "steps": operated.steps,
            "provider": provider.removesuffix("ExecutionProvider").lower(),
            "seconds": round(seconds, 2),
            "speed": speed_sentence(options.structure, costs, removed, bool(sparse)),
            "notes": [*operated.notes, *_notes(options, operated, costs, latency, labelled, sparse)],
        },
        Details(latencies=latencies),
    )


def _block(block: ProvedBlock) -> dict[str, Any]:
    """Objective of the selection there, where exchanges end, the best found, and the bound."""
    result = block.result
    return {
        "weights": len(block.index),
        "chosen": block.chosen,
        "local": result.local,
        "value": result.value,
        "bound": result.bound if np.isfinite(result.bound) else None,
        "gap": result.gap if np.isfinite(result.gap) else None,
        "seconds": round(result.seconds, 3),
    }


def speed_sentence(structure: str, costs: Mapping[str, Cost], removed: int, sparse: bool) -> str:
    """What the user gets: speed, or a smaller file only.

    Args:
        structure: As in the options.
        costs: Of ``before`` and ``after``, latency included.
        removed: Number of units that are gone.
        sparse: Whether tensors are stored sparse.
    """
    before, after = costs["before"], costs["after"]
    fewer = 1 - after.macs / before.macs if before.macs else 0.0
    gained = f"{fewer:.1%} fewer multiply-adds"
    if before.latency_ms and after.latency_ms:
        gained += f", {after.latency_ms / before.latency_ms:.0%} of the latency (measured)"
    if structure == "units":
        return f"Whole units are gone: {gained}."
    sentences = [f"Units that became empty are gone: {gained}."] if removed else []
    sentences.append(
        "Sparse tensors make the file smaller; ONNX Runtime makes them dense when it loads it, so they bring no speed."
        if sparse
        else "Single zeros make the file smaller once it is compressed; ONNX Runtime is no faster for them."
    )
    return " ".join([*sentences, "Speed comes from --structure units."])


def _notes(
    options: PruneOptions,
    operated: Operated,
    costs: Mapping[str, Cost],
    latency: LatencyBudget | None,
    labelled: bool,
    sparse: Sequence[str],
) -> list[str]:
    notes = []
    if operated.share < 1:
        notes.append(f"It was stopped: this is the last finished stage, {operated.share:.0%} of the way.")
    if labelled and not options.classify and options.metric is None:
        notes.append("The data have labels; --task classify reports the accuracy.")
    if options.sparse and not sparse:
        notes.append("No tensor is smaller when stored sparse (worthwhile above about two thirds of zeros).")
    before, after = costs["before"].latency_ms, costs["after"].latency_ms
    if latency is not None and before and after and after > SLACK * latency.asked * before:
        notes.append(f"{after / before:.0%} of the latency is left in the end; {latency.asked:.0%} was asked for.")
    return notes


def _layer(layer: str, name: str, operated: Operated) -> dict[str, Any]:
    values = operated.values[name]
    size, zeros = int(values.size), int((values == 0).sum())
    return {"name": layer, "weights": size, "zeros": zeros, "sparsity": zeros / size}


def _stage(model: onnx.ModelProto, cost: Cost, written: onnx.ModelProto) -> dict[str, Any]:
    zeros = sum(_zeros(tensor) for tensor in model.graph.initializer)
    return {**cost.to_json(), "nonzero": cost.params - zeros, "compressed_bytes": _compressed(written)}


def _compressed(model: onnx.ModelProto) -> int | None:
    """Bytes after zlib at its usual level; None where the model is too large to be one piece."""
    return len(zlib.compress(model.SerializeToString(), 6)) if byte_size(model) <= LIMIT else None


def _zeros(tensor: onnx.TensorProto) -> int:
    values = onnx.numpy_helper.to_array(tensor)
    return int((values == 0).sum()) if values.dtype.kind == "f" else 0
