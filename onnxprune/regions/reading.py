"""A model read for its linear regions: one sample, constants folded, bounds, and which nodes bend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx import helper

from onnxprune.bounds import Bounds, linear_bounds
from onnxprune.bounds.static import StaticGraph
from onnxprune.domain import Domain, parse_domain
from onnxprune.errors import InputError
from onnxprune.graph.evaluate import evaluate
from onnxprune.graph.files import load
from onnxprune.graph.graph import Graph
from onnxprune.graph.kinds import ModelLike
from onnxprune.operators.interval import Array
from onnxprune.regions.plan import AFFINE, HINT, Plan, plan_of
from onnxprune.samples import input_specs

WIDEST_BOX = 1e12
"""Ends beyond which an input counts as unbounded."""
RANDOM = frozenset("RandomNormal RandomUniform RandomNormalLike RandomUniformLike Multinomial Bernoulli".split())


@dataclass(frozen=True, eq=False)
class Reading:
    """A model over a domain.

    Attributes:
        net: Its graph for one sample; where ``outputs`` are given each is read by a Relu of its own.
        domain: Where the inputs lie.
        plan: What its nodes do, those Relus included.
        bounds: Proved bounds on its tensors.
        outputs: Its outputs; empty where they are no affine functions of the units.
        low: Lower ends of the box, all inputs after one another, shape (inputs,).
        high: Upper ends.
    """

    net: StaticGraph
    domain: Domain
    plan: Plan
    bounds: Bounds
    outputs: tuple[str, ...]
    low: Array
    high: Array

    @property
    def dimension(self) -> int:
        """Inputs that are not fixed."""
        return int((self.high > self.low).sum())


def read(model: ModelLike, domain: Domain | str | Sequence[str], bounds: Bounds | None = None) -> Reading:
    """Read a model.

    Args:
        model: Path, bytes or ModelProto; never changed.
        domain: A Domain, or texts as on the command line; every input needs a finite box.
        bounds: Proved bounds on its tensors; by default backward linear bounds.

    Raises:
        InputError: Something that is not piecewise linear stands before an activation, or an input is unbounded.
    """
    proto = load(model).model
    texts = [domain] if isinstance(domain, str) else domain
    where = texts if isinstance(texts, Domain) else parse_domain(list(texts), input_specs(proto))
    outputs = tuple(output.name for output in proto.graph.output)
    try:
        net = StaticGraph(prepared(_rectified_outputs(proto)))
        plan = plan_of(net)
    except InputError:  # perhaps for the sake of the outputs alone, such as behind Softmax
        net, outputs = StaticGraph(prepared(proto)), ()
        plan = plan_of(net)
        if all(kind == AFFINE for kind in plan.kinds.values()):
            raise InputError(
                f"The model is not piecewise linear: {', '.join(sorted(set(plan.ignored)))}.", hint=HINT
            ) from None
    box = net.input_box(where)
    ends = [end for pair in box.values() for end in pair]
    if len(box) != len(net.inputs) or any((~(np.abs(end) <= WIDEST_BOX)).any() for end in ends):
        raise InputError("Linear regions need a finite box for every input.", hint="Give --domain low:high.")
    low, high = (np.concatenate([box[name][side] for name in net.inputs]) for side in (0, 1))
    if (low > high).any():
        raise InputError("The domain is empty.")
    return Reading(net, where, plan, linear_bounds(net.graph, where, known=bounds), outputs, low, high)


def prepared(model: onnx.ModelProto) -> Graph:
    """The graph of a model for a single sample; what it computes is unchanged.

    An open leading axis of an input is the batch and becomes 1. Nodes that compute from constants and sizes alone
    become constants; constant operands of maxima come last.
    """
    single = onnx.ModelProto()
    single.CopyFrom(model)
    for value in single.graph.input:
        sizes = value.type.tensor_type.shape.dim
        if sizes and not sizes[0].HasField("dim_value"):
            sizes[0].dim_value = 1
    del single.graph.value_info[:]  # notes on other batches
    graph = Graph(single)
    for node in list(graph.nodes):
        values = _constant(graph, node)
        if values is not None:
            output = node.outputs[0]
            graph.detach(node)
            output.to_constant(values)
        elif node.op in ("Max", "Min"):  # what bends is looked for in front
            node.inputs = sorted(node.inputs, key=lambda tensor: isinstance(tensor, gs.Constant))
    return graph


def _constant(graph: Graph, node: gs.Node) -> NDArray[np.generic] | None:
    """The value of a node's only output where it is a constant; None elsewhere, and for outputs of the graph."""
    outputs = [tensor.name for tensor in node.outputs if tensor.name]
    if len(outputs) != 1 or outputs[0] in graph.output_names or node.op in RANDOM:
        return None
    if node.op == "Shape":
        return _shape(graph, node)
    if not all(isinstance(tensor, gs.Constant) for tensor in node.inputs if tensor.name):
        return None
    value = node.attrs.get("value")
    if node.op == "Constant" and isinstance(value, gs.Constant):
        return np.asarray(value.values)
    return None if any(isinstance(part, gs.Graph) for part in node.attrs.values()) else evaluate(node, graph.opset)


def _shape(graph: Graph, node: gs.Node) -> NDArray[np.int64] | None:
    shape = graph.view(node).in_shape(0)
    if shape is None:
        return None
    start, end = int(node.attrs.get("start", 0)), node.attrs.get("end")
    sizes = shape[start : None if end is None else int(end)]
    return np.asarray(sizes, dtype=np.int64) if all(isinstance(size, int) for size in sizes) else None


def _rectified_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a Relu behind every output, so that outputs unroll as pre-activations."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    for output in changed.graph.output:
        name = output.name
        while name in taken:
            name += "_"
        changed.graph.node.append(helper.make_node("Relu", [output.name], [name]))
        output.name = name
    return changed
