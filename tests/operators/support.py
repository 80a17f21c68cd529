"""A small model around one operator, and the checks that serve every family.

Bounds are compared with runs in ONNX Runtime, channel links with an actual removal: whatever the links call
free is removed, the node is resized, and the smaller model must give the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxprune.operators import registry
from onnxprune.operators.base import NodeView, Operator, TensorType
from onnxprune.operators.channels import Axis, ChannelMap, Resized
from onnxprune.operators.interval import Interval

Tensor = NDArray[Any]

RULES: dict[str, Operator] = {op_type: rule for (domain, op_type), rule in registry().items() if not domain}

BINDINGS = ({"N": 1, "H": 4, "W": 6}, {"N": 3, "H": 7, "W": 5}, {"N": 2, "H": 6, "W": 9})
"""Sizes of the dynamic dimensions, for which the same bounds must hold."""


@dataclass(frozen=True)
class Case:
    """A small model in text form; the last node is the one under test.

    Attributes:
        body: The nodes.
        inputs: Typed graph inputs.
        constants: Typed initializers.
        opset: Operator set.
        outputs: Names of the graph outputs.
        tolerance: Relative rounding to allow in float32.
    """

    body: str
    inputs: str = "float[N,4,H,W] x"
    constants: str = ""
    opset: int = 18
    outputs: tuple[str, ...] = ("y",)
    tolerance: float = 0.0

    def __str__(self) -> str:
        return f"{self.body} [{self.inputs}] opset {self.opset}"

    @cached_property
    def model(self) -> onnx.ModelProto:
        header = f'<ir_version: 10, opset_import: ["": {self.opset}]>'
        outputs = ", ".join(f"float {name}" for name in self.outputs)
        text = f"{header} g ({self.inputs}) => ({outputs}) <{self.constants}> {{ {self.body} }}"
        model = onnx.parser.parse_model(text)
        for output in model.graph.output:
            output.ClearField("type")
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)

    def graph(self) -> gs.Graph:
        return gs.import_onnx(self.model)

    def node(self, graph: gs.Graph | None = None) -> NodeView:
        graph = graph or self.graph()
        types = {
            name: TensorType(
                None if tensor.dtype is None else np.dtype(tensor.dtype),
                None if tensor.shape is None else tuple(tensor.shape),
            )
            for name, tensor in graph.tensors().items()
        }
        return NodeView(graph.nodes[-1], types, self.opset)

    def intervals(self, given: Mapping[str, Interval]) -> Sequence[Interval] | None:
        """Bounds of the node's outputs from bounds of the graph's inputs; initializers are points."""
        node = self.node()
        inputs: list[Interval | None] = []
        for k in range(node.n_inputs):
            constant = node.constant(k)
            known = given.get(node.input(k)) if constant is None else Interval.point(constant)
            inputs.append(known or (Interval.everything() if node.has_input(k) else None))
        return RULES[node.op].interval(node, inputs)

    def links(self) -> ChannelMap | None:
        node = self.node()
        links = ChannelMap(static_sizes(node))
        return links if RULES[node.op].channels(node, links) else None


@cache
def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_model(model: onnx.ModelProto, feeds: Mapping[str, Tensor]) -> list[Tensor]:
    return list(session(model.SerializeToString(deterministic=True)).run(None, dict(feeds)))


def static_sizes(node: NodeView) -> dict[Axis, int]:
    shapes = [(node.input(k), node.in_shape(k)) for k in range(node.n_inputs) if node.has_input(k)]
    shapes += [(node.output(k), node.out_shape(k)) for k in range(node.n_outputs)]
    return {
        (name, axis): size for name, sizes in shapes for axis, size in enumerate(sizes or ()) if isinstance(size, int)
    }


def input_shapes(case: Case, binding: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    return {
        value.name: tuple(
            binding[dim.dim_param] if dim.dim_param else dim.dim_value for dim in value.type.tensor_type.shape.dim
        )
        for value in case.model.graph.input
    }


def random_interval(rng: np.random.Generator, dims: Sequence[int | str], *, full: bool = False) -> Interval:
    """Bounds on a grid of eighths, with exact zeros and points; axes written out or uniform at random."""
    if not full and rng.random() < 0.1:
        dims = []
    lengths = [dim if isinstance(dim, int) and (full or rng.random() < 0.6) else 1 for dim in dims]
    low = rng.integers(-16, 16, lengths) / 8
    kind = rng.random(lengths)
    width = np.where(kind < 0.2, 0, rng.integers(0, 16, lengths) / 8)
    return Interval.of(np.where(kind < 0.1, 0.0, low), np.where(kind < 0.1, 0.0, low + width))


def sample(rng: np.random.Generator, x: Interval, dims: tuple[int, ...]) -> Tensor:
    share = np.clip(rng.integers(-4, 13, dims) / 8, 0, 1)
    return (x.lower + share * (x.upper - x.lower)).astype(np.float32)


def check_bounds(case: Case, seed: int) -> None:
    """At every size, random tensors within random bounds lead to outputs within the derived bounds."""
    rng = np.random.default_rng(seed)
    symbolic = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in case.model.graph.input
    }
    given = {name: random_interval(rng, dims) for name, dims in symbolic.items()}
    found = case.intervals(given)
    if found is None:
        return
    for binding in BINDINGS:
        dims = input_shapes(case, binding)
        feeds = {name: sample(rng, given[name], dims[name]) for name in dims}
        for result, values in zip(found, run_model(case.model, feeds), strict=True):
            assert result.ndim in {0, values.ndim}
            assert all(n in {1, size} for n, size in zip(result.shape, values.shape, strict=False))
            slack = case.tolerance * max(1.0, float(np.abs(values).max(initial=0)))
            assert (values >= result.lower - slack).all()
            assert (values <= result.upper + slack).all()


def check_exact(case: Case, seed: int) -> None:
    """With everything written out, monotone operators give exactly their values at both ends."""
    rng = np.random.default_rng(seed)
    dims = input_shapes(case, {})
    given = {name: random_interval(rng, dims[name], full=True) for name in dims}
    found = case.intervals(given)
    assert found is not None
    for side in ("lower", "upper"):
        feeds = {name: np.asarray(getattr(given[name], side), np.float32) for name in dims}
        for result, values in zip(found, run_model(case.model, feeds), strict=True):
            np.testing.assert_array_equal(np.broadcast_to(getattr(result, side), values.shape), values)


def spread(links: ChannelMap, gone: dict[Axis, set[int]]) -> dict[Axis, set[int]]:
    """Everything that goes together with some indices."""
    changed = True
    while changed:
        changed = False
        for link in links.links:
            for a, b, i, j in (
                (link.left, link.right, link.left_index, link.right_index),
                (link.right, link.left, link.right_index, link.left_index),
            ):
                pulled = {int(y) for x, y in zip(i, j, strict=True) if int(x) in gone.get(a, ())}
                if not pulled <= gone.setdefault(b, set()):
                    gone[b] |= pulled
                    changed = True
    return {axis: indices for axis, indices in gone.items() if indices}


def check_removal(case: Case, seed: int) -> int:
    """Remove random free indices along each axis of each tensor; count how many removals were possible."""
    rng = np.random.default_rng(seed)
    links = case.links()
    assert links is not None
    locked = set(links.locks) | (set(links.sizes) - links.mentioned)
    done = 0
    for axis, size in links.sizes.items():
        if size < 2:
            continue
        chosen = set(rng.choice(size, rng.integers(1, size), replace=False).tolist())
        gone = spread(links, {axis: chosen})
        emptied = any(len(indices) == links.sizes[a] for a, indices in gone.items())
        if not emptied and not locked & set(gone):
            remove_and_compare(case, links, gone, rng)
            done += 1
    return done


def remove_and_compare(case: Case, links: ChannelMap, gone: Mapping[Axis, set[int]], rng: np.random.Generator) -> None:
    kept = {axis: np.setdiff1d(np.arange(links.sizes[axis]), list(indices)) for axis, indices in gone.items()}

    def cut(name: str, values: Tensor) -> Tensor:
        for (tensor, axis), indices in kept.items():
            if tensor == name:
                values = np.take(values, indices, axis)
        return values

    graph = case.graph()
    node = case.node(graph)
    for name, tensor in graph.tensors().items():
        if isinstance(tensor, gs.Constant):
            tensor.values = cut(name, np.asarray(tensor.values))
        else:
            tensor.shape = None
    RULES[node.op].resize(node, Resized(kept))
    dims = input_shapes(case, BINDINGS[1])
    feeds = {name: rng.integers(-16, 16, size).astype(np.float32) / 8 for name, size in dims.items()}
    for tensor in graph.inputs:
        tensor.shape = list(cut(tensor.name, feeds[tensor.name]).shape)
    smaller = gs.export_onnx(graph)
    smaller = onnx.shape_inference.infer_shapes(smaller, strict_mode=True)
    got = run_model(smaller, {name: cut(name, values) for name, values in feeds.items()})
    wanted = run_model(case.model, feeds)
    for name, values, reference in zip(case.outputs, got, wanted, strict=True):
        np.testing.assert_allclose(values, cut(name, reference), rtol=0, atol=case.tolerance * 4)


def end_lists(x: Interval) -> list[Any]:
    return [x.lower.tolist(), x.upper.tolist()]


def pairs(links: ChannelMap, left: Axis, right: Axis) -> list[tuple[int, int]]:
    """Linked index pairs between two axes, in either direction of writing."""
    found: list[tuple[int, int]] = []
    for link in links.links:
        if (link.left, link.right) == (left, right):
            found += zip(link.left_index.tolist(), link.right_index.tolist(), strict=True)
        elif (link.right, link.left) == (left, right):
            found += zip(link.right_index.tolist(), link.left_index.tolist(), strict=True)
    return sorted(found)


SEED = st.integers(0, 2**32 - 1)
