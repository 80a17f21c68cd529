"""What share of a model the execution providers of phones would take, by ONNX Runtime's own usability checker."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from onnxprune.errors import EnvironmentFailure
from onnxprune.graph.files import save
from onnxprune.mobile.xnnpack import XnnpackOperators

PROVIDERS = {
    "nnapi": "NNAPI",
    "coreml_neuralnetwork": "CoreML NeuralNetwork",
    "coreml_mlprogram": "CoreML MLProgram",
    "xnnpack": "XNNPACK",
}
"""Keys of :func:`usability`, and how the providers call themselves."""

_Check = Callable[[onnx.ModelProto, bool], Any]
"""A model with shapes, and whether open sizes keep a node out; hands back the checker's PartitioningInfo."""


def usability(model: onnx.ModelProto, custom_ops: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """How many nodes each provider would take, in how many pieces.

    Counted as ONNX Runtime's checker does: after its basic optimizations, by operators, ranks and open sizes. It does
    not look at every restriction of a provider, so the counts are upper bounds. XNNPACK, which that checker does not
    know, is judged by :class:`onnxprune.mobile.xnnpack.XnnpackOperators`.

    Args:
        model: The model; never changed.
        custom_ops: Shared libraries with custom operators.

    Returns:
        Per key of :data:`PROVIDERS`: ``nodes`` of the model, ``taken`` of them, in ``partitions``; ``taken_if_fixed``
        and ``partitions_if_fixed``, the same if no size was open; ``not_taken``: operators of nodes that it would not
        take at any size; ``suitable``: the checker's advice for the model as it is, "yes", "maybe" or "no" (None for
        XNNPACK, which computes in the same memory, so that pieces cost little).

    Raises:
        EnvironmentFailure: ONNX Runtime cannot load the model, or its tools do not work.
    """
    inferred = _optimized(model, custom_ops)
    with _hashable_nodes():
        checks = _checks()
        return {key: _counted(check, inferred, advice=key != "xnnpack") for key, check in checks.items()}


def _optimized(model: onnx.ModelProto, custom_ops: Sequence[str]) -> onnx.ModelProto:
    """The model after ONNX Runtime's basic optimizations, with the shapes that inference finds, without weights."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
    with tempfile.TemporaryDirectory() as folder:
        given, optimized, inferred = (Path(folder) / f"{name}.onnx" for name in ("given", "optimized", "inferred"))
        save(model, given)
        options.optimized_model_filepath = str(optimized)
        try:
            for library in custom_ops:
                options.register_custom_ops_library(library)
            ort.InferenceSession(str(given), options, providers=["CPUExecutionProvider"])
            onnx.shape_inference.infer_shapes_path(str(optimized), str(inferred))
        except Exception as error:  # onnxruntime and onnx raise families of plain exceptions
            raise EnvironmentFailure(
                f"ONNX Runtime cannot prepare the model for mobile use: {str(error).strip().splitlines()[0][:300]}",
                hint="Leave out --export.",
            ) from error
        return onnx.load(inferred, load_external_data=False)


def _checks() -> dict[str, _Check]:
    """The checks of ONNX Runtime's tools, and ours for XNNPACK in the same form.

    Raises:
        EnvironmentFailure: The tools cannot be imported.
    """
    try:
        from onnxruntime.tools.mobile_helpers import usability_checker as tool  # noqa: PLC0415 # may import torch
    except Exception as error:  # whatever a broken installation raises
        raise EnvironmentFailure(
            f"ONNX Runtime's mobile tools cannot be imported: {error}", hint="Reinstall onnxruntime, or drop --export."
        ) from error

    def core_ml(file: str, model: onnx.ModelProto, fixed_only: bool) -> Any:
        return tool.check_coreml_partitions(model, fixed_only, file)

    def xnnpack(model: onnx.ModelProto, fixed_only: bool) -> Any:
        return tool.check_partitioning(model.graph, XnnpackOperators(model, fixed=not fixed_only), False)

    return {
        "nnapi": tool.check_nnapi_partitions,
        "coreml_neuralnetwork": partial(core_ml, "coreml_supported_neuralnetwork_ops.md"),
        "coreml_mlprogram": partial(core_ml, "coreml_supported_mlprogram_ops.md"),
        "xnnpack": xnnpack,
    }


def _counted(check: _Check, model: onnx.ModelProto, *, advice: bool) -> dict[str, Any]:
    open_sizes = check(model, False)
    # the checker refuses to look at sizes where inference found none at all: then every one of them is open
    blind = not model.graph.value_info and len(model.graph.node) > 1 and advice
    as_is = None if blind else check(model, True)
    suitable = as_is.suitability().name.lower() if as_is is not None and as_is.num_nodes else "no"
    return {
        "nodes": open_sizes.num_nodes,
        "taken": as_is.num_supported_nodes if as_is is not None else 0,
        "partitions": as_is.num_partitions if as_is is not None else 0,
        "taken_if_fixed": open_sizes.num_supported_nodes,
        "partitions_if_fixed": open_sizes.num_partitions,
        "not_taken": sorted(name.removeprefix("ai.onnx:") for name in open_sizes.unsupported_ops),
        "suitable": suitable if advice else None,
    }


@contextmanager
def _hashable_nodes() -> Iterator[None]:
    """The checker gives onnx.NodeProto a hash for good; other users of onnx shall not notice."""
    before = onnx.NodeProto.__dict__.get("__hash__")
    try:
        yield
    finally:
        if before is not None:
            onnx.NodeProto.__hash__ = before  # type: ignore[method-assign]
        elif "__hash__" in onnx.NodeProto.__dict__:
            del onnx.NodeProto.__hash__
