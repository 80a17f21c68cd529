"""ONNX Runtime sessions: provider choice with a quiet fallback, threads, latency."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.protobuf import LIMIT, byte_size

Feeds = dict[str, NDArray[Any]]

ort.set_default_logger_severity(4)  # its warnings about our probes are noise; failures arrive as exceptions


@cache
def providers() -> tuple[str, ...]:
    """Execution providers that really start here, CPU last. A GPU build without its libraries only lists CUDA."""
    working = []
    for name in ort.get_available_providers():
        if name in ("CPUExecutionProvider", "AzureExecutionProvider", "TensorrtExecutionProvider"):
            continue
        if _starts(name):
            working.append(name)
    return (*working, "CPUExecutionProvider")


def _starts(name: str) -> bool:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy"]
    graph = onnx.helper.make_graph([node], "probe", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    silenced = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            session = ort.InferenceSession(model.SerializeToString(), providers=[name])
        return name in session.get_providers()
    except Exception:  # a provider that cannot start raises whatever its library raises
        return False
    finally:
        os.dup2(silenced, 2)
        os.close(silenced)


def choose_provider(wish: str | None) -> str:
    """Full name of an execution provider from a short one (``cpu``, ``cuda``); default: CPU.

    Raises:
        InputError: The provider is unknown or does not start on this machine.
    """
    if wish is None:
        return "CPUExecutionProvider"
    wanted = wish.lower().removesuffix("executionprovider")
    for name in providers():
        if name.lower().removesuffix("executionprovider") == wanted:
            return name
    available = ", ".join(p.removesuffix("ExecutionProvider").lower() for p in providers())
    raise InputError(f"Provider '{wish}' does not start on this machine.", hint=f"Available: {available}.")


class Runner:
    """A model ready to run.

    Args:
        model: The model, or the path of a file in ONNX or in ONNX Runtime's own format.
        provider: Full name of the execution provider.
        optimize: Let ONNX Runtime optimize the graph (for latency); off for validation.
        threads: Intra-operator threads (0: its default).
        custom_ops: Shared libraries with custom operators.

    Raises:
        EnvironmentFailure: ONNX Runtime cannot load it.
    """

    def __init__(
        self,
        model: onnx.ModelProto | Path,
        *,
        provider: str = "CPUExecutionProvider",
        optimize: bool = False,
        threads: int = 0,
        custom_ops: Sequence[str] = (),
    ) -> None:
        options = ort.SessionOptions()
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        try:
            for library in custom_ops:
                options.register_custom_ops_library(library)
            self._session = _session(model, options, [provider])
        except Exception as error:  # onnxruntime raises its own family of plain exceptions
            raise EnvironmentFailure(
                f"ONNX Runtime cannot load the model: {_first_line(error)}",
                hint="A model with custom operators needs --custom-ops LIB.",
            ) from error
        self.output_names: list[Any] = [value.name for value in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """All outputs for one set of inputs.

        Raises:
            EnvironmentFailure: The model fails on these inputs.
        """
        try:
            results = self._session.run(None, dict(feeds))
        except Exception as error:  # as above
            raise EnvironmentFailure(
                f"ONNX Runtime cannot run the model: {_first_line(error)}",
                hint="Give the sizes of dynamic dimensions with --shape INPUT=1,3,224,224.",
            ) from error
        return list(results)


def _session(model: onnx.ModelProto | Path, options: Any, names: list[str]) -> Any:
    if isinstance(model, Path):
        return ort.InferenceSession(str(model), options, providers=names)
    if byte_size(model) <= LIMIT:
        return ort.InferenceSession(model.SerializeToString(), options, providers=names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        onnx.save_model(copy, path, save_as_external_data=True, location="model.data")
        return ort.InferenceSession(str(path), options, providers=names)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__


def latencies(
    runners: Sequence[Runner],
    feeds: Feeds,
    *,
    seconds: float = 6.0,
    rounds: int = 200,
    stopped: Callable[[], bool] = lambda: False,
) -> list[list[float]]:
    """Milliseconds per run for several models, interleaved so that a drifting machine hits all alike.

    Runs until ``seconds`` are used or ``rounds`` are done, at least 7 rounds after a warm-up; ``stopped`` ends it
    after the round.
    """
    times: list[list[float]] = [[] for _ in runners]
    for runner in runners:
        runner.run(feeds)
    start = time.perf_counter()
    for number in range(rounds):
        if (number >= 7 and time.perf_counter() - start > seconds) or (number and stopped()):
            break
        for runner, measured in zip(runners, times, strict=True):
            begin = time.perf_counter()
            runner.run(feeds)
            measured.append((time.perf_counter() - begin) * 1e3)
    return times
