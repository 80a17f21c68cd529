"""Ground truth for derivatives: central differences of ONNX's reference evaluator in float64, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from scipy.special import erf

from onnxprune.graph.graph import Graph
from onnxprune.surgeon.differentiation import Derivatives

Tensor = NDArray[Any]
ROWS = 3
STEP = 1e-6
TOLERANCE = 1e-4


class Erf(OpRun):
    """As ONNX's, which computes in float32."""

    def _run(self, x: Tensor) -> tuple[Tensor]:
        return (erf(x),)


class Gelu(OpRun):
    """As ONNX's, which computes in float32."""

    def _run(self, x: Tensor, approximate: str = "none") -> tuple[Tensor]:
        if approximate == "tanh":
            return (0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),)
        return (0.5 * x * (1 + erf(x / np.sqrt(2))),)


class GroupNormalization(OpRun):
    """As ONNX's, which computes in float32."""

    def _run(
        self, x: Tensor, scale: Tensor, shift: Tensor, epsilon: float = 1e-5, num_groups: int = 1, stash_type: int = 1
    ) -> tuple[Tensor]:
        rows = x.reshape(len(x), num_groups, -1)
        rows = rows - rows.mean(axis=2, keepdims=True)
        rows = rows / np.sqrt((rows**2).mean(axis=2, keepdims=True) + epsilon)
        column = (1, -1, *[1] * (x.ndim - 2))
        return (rows.reshape(x.shape) * scale.reshape(column) + shift.reshape(column),)


@dataclass
class Problem:
    """A model, the weights to differentiate in, the tensors to differentiate, and points.

    Attributes:
        model: The model; floats are float32 or float64.
        weights: Initializers.
        taps: Tensors.
        feeds: Inputs with a leading axis of samples.
        dtype: Element type of the derivatives.
    """

    model: onnx.ModelProto
    weights: Sequence[str]
    taps: Sequence[str]
    feeds: Mapping[str, Tensor]
    dtype: DTypeLike = np.float64
    values: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stored = {t.name: numpy_helper.to_array(t) for t in self.model.graph.initializer}
        self.values = {name: stored[name].astype(np.float64) for name in self.weights}
        self.evaluator = ReferenceEvaluator(
            doubled(self.model, self.weights, self.taps), new_ops=[Erf, Gelu, GroupNormalization]
        )
        self.derivatives = Derivatives(Graph(self.model), self.weights, self.taps, dtype=self.dtype, threads=1)

    def reference(self, values: Mapping[str, Tensor]) -> list[Tensor]:
        """Taps for every sample, each run by itself."""
        count = len(next(iter(self.feeds.values())))
        runs: list[Any] = []
        for row in range(count):
            one = {value.name: self._sample(value, row) for value in self.model.graph.input}
            runs.append(self.evaluator.run(None, {**one, **values}))
        return [np.stack([np.asarray(run[k]) for run in runs]) for k in range(len(self.taps))]

    def _sample(self, value: onnx.ValueInfoProto, row: int) -> Tensor:
        dims = value.type.tensor_type.shape.dim
        sample: Tensor = self.feeds[value.name][row]
        batched = bool(dims) and (not dims[0].HasField("dim_value") or dims[0].dim_value == 1)
        sample = sample[None] if batched else sample
        return sample.astype(np.float64) if sample.dtype.kind == "f" else sample


def doubled(model: onnx.ModelProto, weights: Sequence[str], taps: Sequence[str]) -> onnx.ModelProto:
    """The model in float64, with some initializers as inputs and the taps as outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i in (TensorProto.FLOAT, TensorProto.FLOAT16):
                attribute.i = TensorProto.DOUBLE
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float64)))
    kept = []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        array = array.astype(np.float64) if array.dtype.kind == "f" else array
        if tensor.name in weights:
            graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.DOUBLE, array.shape))
        else:
            kept.append(numpy_helper.from_array(array, tensor.name))
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    del graph.initializer[:], graph.value_info[:], graph.output[:]
    graph.initializer.extend(kept)
    graph.output.extend(helper.make_tensor_value_info(tap, TensorProto.DOUBLE, None) for tap in taps)
    return copy


def check(problem: Problem, seed: int = 0, *, tolerance: float = TOLERANCE, step: float = STEP) -> None:
    """Values, both directions, their adjointness, per-sample gradients, the loss and the curvature."""
    rng = np.random.default_rng(seed)
    known, taps, feeds = problem.derivatives, problem.taps, problem.feeds
    assert not known.refused, known.refused
    wanted = problem.reference(problem.values)
    found = known.forward(feeds, problem.values)
    for tap, truth in zip(taps, wanted, strict=True):
        close(found[tap], truth, tolerance, f"value of {tap}")
    direction = {name: rng.normal(size=v.shape) for name, v in problem.values.items()}
    moved = [
        problem.reference({name: v + sign * step * direction[name] for name, v in problem.values.items()})
        for sign in (1, -1)
    ]
    slopes = [(plus - minus) / (2 * step) for plus, minus in zip(*moved, strict=True)]
    tangents = known.push(feeds, problem.values, direction)
    for tap, truth in zip(taps, slopes, strict=True):
        close(tangents[tap], truth, tolerance, f"tangent of {tap}")
    cotangents = {tap: rng.normal(size=found[tap].shape) for tap in taps}
    gradients = known.pull(feeds, problem.values, cotangents)
    assert {name: g.shape for name, g in gradients.items()} == {n: v.shape for n, v in problem.values.items()}
    check_adjoint(tangents, cotangents, gradients, direction, tolerance)
    check_samples(problem, tangents, cotangents, gradients, direction, tolerance)
    check_compositions(problem, found, cotangents, direction, tolerance)


def check_adjoint(
    tangents: Mapping[str, Tensor],
    cotangents: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    direction: Mapping[str, Tensor],
    tolerance: float,
) -> None:
    left = sum(float((cotangents[tap] * t).sum()) for tap, t in tangents.items())
    right = sum(float((g * direction[name]).sum()) for name, g in gradients.items())
    size = sum(float(np.abs(cotangents[tap] * t).sum()) for tap, t in tangents.items())
    assert abs(left - right) <= tolerance * (size + 1e-6), (left, right)


def check_samples(
    problem: Problem,
    tangents: Mapping[str, Tensor],
    cotangents: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    direction: Mapping[str, Tensor],
    tolerance: float,
) -> None:
    each = problem.derivatives.per_sample(problem.feeds, problem.values, cotangents)
    rows = len(next(iter(problem.feeds.values())))
    for name, gradient in gradients.items():
        assert each[name].shape == (rows, *gradient.shape)
        close(each[name].sum(axis=0), gradient, tolerance, f"sum over samples for {name}")
    left = sum((cotangents[tap] * t).reshape(rows, -1).sum(axis=1) for tap, t in tangents.items())
    right = sum((g * direction[name]).reshape(rows, -1).sum(axis=1) for name, g in each.items())
    size = sum(np.abs(cotangents[tap] * t).sum() for tap, t in tangents.items())
    np.testing.assert_allclose(left, right, rtol=0, atol=tolerance * (size + 1e-6))


def check_compositions(
    problem: Problem,
    found: Mapping[str, Tensor],
    shifts: Mapping[str, Tensor],
    direction: Mapping[str, Tensor],
    tolerance: float,
) -> None:
    known, feeds, values = problem.derivatives, problem.feeds, problem.values
    scales = {tap: 0.5 + number for number, tap in enumerate(problem.taps)}
    targets = {tap: y + shifts[tap] for tap, y in found.items()}
    loss, gradient = known.squared_loss(feeds, values, targets, scales)
    residual = {tap: -scales[tap] * shift for tap, shift in shifts.items()}
    expected = 0.5 * sum(scales[tap] * float((shift**2).sum()) for tap, shift in shifts.items())
    assert abs(loss - expected) <= tolerance * expected
    for name, wanted in known.pull(feeds, values, residual).items():
        close(gradient[name], wanted, 10 * tolerance, f"gradient of the loss in {name}")
    product = known.curvature(feeds, values, direction, scales)
    scaled = {tap: scales[tap] * t for tap, t in known.push(feeds, values, direction).items()}
    for name, wanted in known.pull(feeds, values, scaled).items():
        close(product[name], wanted, tolerance, f"curvature in {name}")


def close(found: Tensor, truth: Tensor, tolerance: float, what: str) -> None:
    assert found.size == truth.size, what
    scale = max(float(np.abs(truth).max(initial=0.0)), 1e-2)
    np.testing.assert_allclose(found.reshape(-1), truth.reshape(-1), rtol=0, atol=tolerance * scale, err_msg=what)


def model(
    body: str,
    inputs: str,
    weights: Mapping[str, Tensor] | None = None,
    *,
    outputs: Sequence[str] = ("y",),
    constants: str = "",
    opset: int = 21,
) -> onnx.ModelProto:
    """A model from the text of its nodes; ``weights`` become float32 initializers, arrays of integers stay so."""
    text = f'<ir_version: 10, opset_import: ["": {opset}]> g ({inputs}) => ({", ".join(f"float {o}" for o in outputs)})'
    found = onnx.parser.parse_model(f"{text} <{constants}> {{ {body} }}")
    for output in found.graph.output:
        output.ClearField("type")
    for name, values in (weights or {}).items():
        array = np.asarray(values)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        found.graph.initializer.append(numpy_helper.from_array(array, name))
    return onnx.shape_inference.infer_shapes(found, data_prop=True)


def samples(found: onnx.ModelProto, rng: np.random.Generator, rows: int = ROWS) -> dict[str, Tensor]:
    """Random inputs with a leading axis of samples in place of a batch of one."""
    result = {}
    for value in found.graph.input:
        dims = [d.dim_value if d.HasField("dim_value") else 1 for d in value.type.tensor_type.shape.dim]
        shape = (rows, *dims[1:]) if dims[:1] == [1] else (rows, *dims)
        kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        array = rng.integers(0, 2, shape) if kind.kind in "iub" else rng.normal(size=shape)
        result[value.name] = array.astype(kind)
    return result
