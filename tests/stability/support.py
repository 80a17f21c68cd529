"""Tiny networks as models, and proofs about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune import parse_domain
from onnxprune.bounds.blocks import Blocks
from onnxprune.domain import Domain
from onnxprune.domain.types import Box
from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups
from onnxprune.operators import Axis
from onnxprune.samples import input_specs
from onnxprune.stability.cascade import prove
from onnxprune.stability.proofs import Plan, Proofs
from onnxprune.witness import Observed, corner_feeds, observe
from tests.nets import Builder

Corners = Mapping[str, NDArray[np.float64]]


def blind(_: Sequence[Axis], __: Corners) -> dict[Axis, Observed]:
    """Runs nothing."""
    return {}


def prove_all(model: onnx.ModelProto, domain: Domain | Sequence[str], *, runs: bool = False, **options: Any) -> Proofs:
    """Proofs about a model, with or without runs of it in single precision."""
    graph, specs = Graph(model), input_specs(model)
    where = domain if isinstance(domain, Domain) else parse_domain(list(domain), specs)

    def look(axes: Sequence[Axis], corners: Corners) -> Mapping[Axis, Observed]:
        (spec,), rng = specs, np.random.default_rng(0)
        shape = tuple(d if isinstance(d, int) else 8 for d in spec.shape or ())
        batches = [where.sample(specs, {spec.name: shape}, rng, kind) for kind in ("corner", "uniform")]
        if spec.name in corners:
            batches += list(corner_feeds(corners[spec.name], spec, where, shape))
        batches = [feeds for feeds in batches if where.contains(feeds)]
        return observe(model, axes, batches, provider="CPUExecutionProvider", custom_ops=())

    plan = Plan(**{"budget": 20.0, **options})
    return prove(graph, ChannelGroups(graph), where, plan, look if runs else blind)


def dense_model(blocks: Blocks) -> onnx.ModelProto:
    """The same network as Gemm and Relu; layers read the columns in front of them that their weights touch.

    The pre-activations are called g0, g1, ...
    """
    inputs = len(blocks.low)
    b = Builder(np.random.default_rng(0))
    parts, widths = ["x"], [inputs]
    for index, block in enumerate(blocks.blocks):
        table = block.weights.toarray()
        first = 0
        while first + 1 < len(parts) and not table[:, : sum(widths[: first + 1])].any():
            first += 1
        source = parts[first] if first + 1 == len(parts) else b.node("Concat", parts[first:], axis=1)
        weights = b.weight(np.asarray(table[:, sum(widths[:first]) :], np.float32))
        bias = b.weight(np.asarray(block.bias, np.float32))
        b.nodes.append(
            onnx.helper.make_node("Gemm", [source, weights, bias], [f"g{index}"], name=f"g{index}", transB=1)
        )
        parts.append(b.node("Relu", [f"g{index}"]))
        widths.append(block.units)
    last = b.weight(np.ones((widths[-1], 1), np.float32))
    return b.model("x", ["batch", inputs], b.node("MatMul", [parts[-1], last]))


def box_of(blocks: Blocks) -> Domain:
    """The box of a network as a domain."""
    return Domain({"x": Box(blocks.low[None], blocks.high[None])})
