"""Small models in text form, and what the tests do with them again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from onnxprune.cli.main import main

Tensor = NDArray[Any]
Feeds = dict[str, Tensor]

HIDDEN = 8
DEAD = (1, 4, 6)
"""Units of :func:`weights` that Relu makes 0 for every input; all others vary."""


def parse(
    body: str,
    inputs: str = "float[N,4] x",
    outputs: str = "float[N,3] y",
    weights: Mapping[str, Tensor] | None = None,
    *,
    opset: int = 17,
    ir: int = 8,
    imports: str = "",
    functions: str = "",
) -> ModelProto:
    """A model from the text of its nodes; ``weights`` become initializers."""
    header = f'<ir_version: {ir}, opset_import: ["": {opset}{imports}]>'
    model = onnx.parser.parse_model(f"{header} net ({inputs}) => ({outputs}) {{ {body} }} {functions}")
    for name, values in (weights or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
    return model


def weights(
    *,
    dtype: Any = np.float32,
    features: int = 4,
    hidden: int = HIDDEN,
    outputs: int = 3,
    dead: tuple[int, ...] = DEAD,
    kernel: tuple[int, ...] = (),
) -> dict[str, Tensor]:
    """Two layers: ``w1`` (hidden, features, *kernel), ``b1``, ``w2`` (outputs, hidden, *kernel), ``b2``."""
    rng = np.random.default_rng(7)
    arrays = {
        "w1": rng.normal(size=(hidden, features, *kernel)),
        "b1": rng.normal(size=hidden),
        "w2": rng.normal(size=(outputs, hidden, *kernel)),
        "b2": rng.normal(size=outputs),
    }
    for unit in dead:
        arrays["w1"][unit] = 0.0
        arrays["b1"][unit] = -1.0
    return {name: values.astype(dtype) for name, values in arrays.items()}


DENSE = """
    h = Gemm <transB = 1> (x, w1, b1)
    r = Relu (h)
    y = Gemm <transB = 1> (r, w2, b2)
"""
CONV = """
    h = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    r = Relu (h)
    y = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)
"""


def dense(**options: Any) -> ModelProto:
    """Gemm, Relu, Gemm with the dead units :data:`DEAD`; options as for :func:`parse`."""
    return parse(DENSE, weights=weights(), **options)


def conv(**options: Any) -> ModelProto:
    """Two padded 3x3 convolutions with a Relu between, on images of any size."""
    options.setdefault("inputs", "float[N,4,H,W] x")
    options.setdefault("outputs", "float[N,3,H,W] y")
    return parse(CONV, weights=weights(kernel=(3, 3)), **options)


def untouchable() -> ModelProto:
    """A model in which no pass finds anything to do."""
    return parse(DENSE, weights=weights(dead=()))


def session(model: ModelProto) -> onnxruntime.InferenceSession:
    """A quiet session with all graph optimizations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def feeds(model: ModelProto, seed: int = 0, sizes: Mapping[str, int] | None = None) -> Feeds:
    """Random inputs; symbolic and unknown dimensions are 2 unless ``sizes`` says otherwise."""
    rng = np.random.default_rng(seed)
    constants = {tensor.name for tensor in model.graph.initializer}
    result: Feeds = {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        shape = [
            dim.dim_value if dim.HasField("dim_value") else (sizes or {}).get(dim.dim_param, 2)
            for dim in tensor.shape.dim
        ]
        if not tensor.HasField("shape"):
            shape = [2, 4]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        spread = rng.integers(0, 2, shape) if dtype.kind in "biu" else rng.normal(size=shape) * 2
        result[value.name] = np.asarray(spread).astype(dtype)
    return result


def run(model: ModelProto, inputs: Feeds) -> list[Tensor]:
    """All outputs of a model."""
    return [np.asarray(value) for value in session(model).run(None, inputs)]


def assert_equal_models(original: ModelProto, result: ModelProto, *, tolerance: float = 1e-5, runs: int = 3) -> None:
    """Both give the same outputs, under the same names, on random inputs."""
    assert [v.name for v in result.graph.output] == [v.name for v in original.graph.output]
    one, other = session(original), session(result)
    assert {v.name for v in other.get_inputs()} == {v.name for v in one.get_inputs()}
    for seed in range(runs):
        inputs = feeds(original, seed, {"N": 1 + seed, "H": 5 + seed, "W": 6, "T": 3 + seed})
        for expected, found in zip(one.run(None, inputs), other.run(None, inputs), strict=True):
            a, b = np.asarray(expected), np.asarray(found)
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            if a.dtype.kind in "fV":
                wide, close = a.astype(np.float64), b.astype(np.float64)
                scale = max(1.0, float(np.abs(wide[np.isfinite(wide)]).max(initial=0.0)))
                np.testing.assert_allclose(close, wide, rtol=0, atol=tolerance * scale)
            else:
                np.testing.assert_array_equal(a, b)


def initializer(model: ModelProto, name: str) -> Tensor:
    """Values of a weight."""
    found = [tensor for tensor in model.graph.initializer if tensor.name == name]
    assert len(found) == 1, f"{len(found)} initializers are called {name}"
    return onnx.numpy_helper.to_array(found[0])


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder: contents by relative path, None for a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@dataclass(frozen=True)
class Ran:
    """What one call of the command line did."""

    code: int
    out: str
    err: str


def command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Ran:
    """Run the command line in this process."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse leaves this way
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return Ran(code, captured.out, captured.err)
