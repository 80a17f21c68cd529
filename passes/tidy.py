"""Clean a model without touching a unit: the baseline everything else is compared with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.facts import Facts
from onnxprune.graph.evaluate import evaluate
from onnxprune.graph.graph import Graph, label
from onnxprune.graph.targets import constant_target
from onnxprune.operators import op_of
from onnxprune.operators.interval import Array
from onnxprune.operators.linear import KERNELS, LinearLayer, linear_layer
from onnxprune.pass_api import Exactness, PassReport

QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
RANDOM = (
    "RandomNormal",
    "RandomUniform",
    "RandomNormalLike",
    "RandomUniformLike",
    "Multinomial",
    "Bernoulli",
    "Dropout",
)
LARGEST_FOLD = 1 << 16
"""Entries up to which a constant result may be larger than what it was computed from."""


@dataclass(frozen=True)
class Tidy:
    """Initializers out of the inputs, constants folded, Identity and Dropout gone, BatchNormalization folded.

    Equal in real arithmetic for every input; new constants are rounded to the element type of the model.
    The signature keeps its real inputs and outputs; initializers that were listed as inputs can no longer be
    overridden.
    """

    name: ClassVar[str] = "tidy"
    exactness: ClassVar[Exactness] = Exactness.ALWAYS
    order: ClassVar[int | None] = 10

    def run(self, graph: Graph, facts: Facts) -> PassReport:
        """Do all of it, to a fixed point."""
        changes: Counter[str] = Counter()
        report = PassReport(changes=changes)
        if graph.initializers_as_inputs:
            changes["initializers taken out of the inputs"] = graph.initializers_as_inputs
            graph.plain_inputs = True
        for step in (
            _constant_nodes,
            _fold_constants,
            _constant_targets,
            _skip_idle,
            _skip_neutral,
            _fold_pads,
            _fold_batch_normalization,
            _to_gemm,
        ):
            step(graph, report)
        if graph.remove_unreachable():
            changes["unreachable nodes"] += 1
        shared = graph.share_equal()
        if shared:
            changes["equal initializers shared"] = shared
        unused = graph.unused_initializers()
        if unused:
            changes["unused initializers"] = unused
        report.modified = bool(changes)
        report.values_kept = not changes.keys() & {"BatchNormalization folded", "Pad nodes folded"}
        return report


def _free(graph: Graph, tensor: gs.Tensor) -> bool:
    """Whether nobody but the nodes of the main graph knows a tensor by name."""
    return tensor.name not in graph.output_names and tensor.name not in graph.captured


def _constant_nodes(graph: Graph, report: PassReport) -> None:
    for node in list(graph.nodes):
        if op_of(node) == "Constant" and _free(graph, node.outputs[0]):
            values = _constant_attribute(node)
            if values is not None:
                _become_constant(graph, node, values)
                report.changes["Constant nodes"] += 1


def _constant_attribute(node: gs.Node) -> np.ndarray | None:
    value = node.attrs.get("value")
    if isinstance(value, gs.Constant):
        return np.asarray(value.values)
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        for key in (name, f"{name}s"):
            if key in node.attrs:
                return np.asarray(node.attrs[key], dtype=dtype)
    return None


def _become_constant(graph: Graph, node: gs.Node, values: np.ndarray) -> None:
    output = node.outputs[0]
    graph.detach(node)
    output.to_constant(np.array(values))
    graph.retype(output.name)


def _fold_constants(graph: Graph, report: PassReport) -> None:
    for node in list(graph.nodes):
        values = _constant_value(graph, node)
        if values is not None:
            _become_constant(graph, node, values)
            report.changes["constant nodes folded"] += 1


def _constant_value(graph: Graph, node: gs.Node) -> np.ndarray | None:
    outputs = [t for t in node.outputs if t.name]
    op = op_of(node)
    if len(outputs) != 1 or op != node.op or not _free(graph, outputs[0]) or op in (*RANDOM, *QUANTIZED):
        return None
    if op == "Shape":
        return _static_shape(graph, node)
    inputs = [t for t in node.inputs if t.name]
    if not inputs or not all(isinstance(t, gs.Constant) and t.name not in graph.sparse for t in inputs):
        return None
    if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
        return None
    kind = graph.types.get(outputs[0].name)
    if kind is None or kind.shape is None or not all(isinstance(d, int) for d in kind.shape):
        return None
    size = int(np.prod([d for d in kind.shape if isinstance(d, int)]))
    if size > LARGEST_FOLD and size > sum(np.asarray(t.values).size for t in inputs):
        return None
    return evaluate(node, graph.opset)


def _static_shape(graph: Graph, node: gs.Node) -> np.ndarray | None:
    shape = graph.view(node).in_shape(0)
    if shape is None:
        return None
    start, end = int(node.attrs.get("start", 0)), node.attrs.get("end")
    sizes = shape[start : None if end is None else int(end)]
    return np.asarray(sizes, dtype=np.int64) if all(isinstance(d, int) for d in sizes) else None


def _constant_targets(graph: Graph, report: PassReport) -> None:
    """Reshape targets computed from sizes become constants, so that channels can be followed through."""
    for node in graph.nodes:
        if op_of(node) == "Reshape" and not isinstance(node.inputs[1], gs.Constant):
            target = constant_target(graph, node)
            if target is not None:
                node.inputs[1] = gs.Constant(graph.fresh(f"{label(node)}_target"), target)
                report.changes["computed Reshape targets"] += 1


def _skip_idle(graph: Graph, report: PassReport) -> None:
    for node in list(graph.nodes):
        if op_of(node) == "Identity" or (op_of(node) == "Dropout" and _inference_dropout(graph, node)):
            kind = str(node.op)
            if graph.bypass(node):
                report.changes[f"{kind} nodes"] += 1


NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0}
"""Second operands that change nothing; for Add and Mul the first operand may be it as well."""


def _skip_neutral(graph: Graph, report: PassReport) -> None:
    """Adding 0 and multiplying by 1 go, unless they widen the tensor."""
    for node in list(graph.nodes):
        kind = op_of(node)
        for index in (1, 0) if kind in ("Add", "Mul") else (1,):
            if kind in NEUTRAL and _is_neutral(graph, node, index):
                given = list(node.inputs)
                node.inputs[0] = given[1 - index]
                if graph.bypass(node):
                    report.changes[f"idle {kind} nodes"] += 1
                else:
                    node.inputs = given
                break


def _is_neutral(graph: Graph, node: gs.Node, index: int) -> bool:
    view = graph.view(node)
    values = view.constant(index)
    if values is None or values.size == 0 or not (values == NEUTRAL[op_of(node)]).all():
        return False
    other, out = view.in_shape(1 - index), view.out_shape()
    return not view.is_constant(1 - index) and other is not None and other == out and None not in other


def _inference_dropout(graph: Graph, node: gs.Node) -> bool:
    view = graph.view(node)
    training = view.constant(2) if view.has_input(2) else np.zeros(())
    mask_unused = len(node.outputs) < 2 or not node.outputs[1].name or not node.outputs[1].outputs
    named = len(node.outputs) > 1 and node.outputs[1].name in graph.output_names
    return training is not None and not bool(np.any(training)) and mask_unused and not named


def _fold_pads(graph: Graph, report: PassReport) -> None:
    """Zeros padded around the image of a convolution are its own padding; padding by nothing goes."""
    for node in list(graph.nodes):
        pads = _zero_pads(graph, node) if op_of(node) == "Pad" else None
        if pads is None:
            continue
        if not any(pads):
            if graph.bypass(node):
                report.changes["idle Pad nodes"] += 1
            continue
        output, half = node.outputs[0], len(pads) // 2
        reader = output.outputs[0] if len(output.outputs) == 1 and _free(graph, output) else None
        if reader is None or op_of(reader) != "Conv" or reader.inputs[0] is not output or not _is_here(graph, reader):
            continue
        if str(reader.attrs.get("auto_pad", "NOTSET")) not in ("NOTSET", "VALID") or any(
            pads[:2] + pads[half : half + 2]
        ):
            continue
        own = [int(p) for p in reader.attrs.get("pads", [0] * (2 * half - 4))]
        reader.attrs.pop("auto_pad", None)
        reader.attrs["pads"] = [a + b for a, b in zip(own, pads[2:half] + pads[half + 2 :], strict=True)]
        graph.bypass(node)
        report.changes["Pad nodes folded"] += 1


def _zero_pads(graph: Graph, node: gs.Node) -> list[int] | None:
    """Pads of a node that adds zeros to every axis in turn; None for any other padding."""
    view = graph.view(node)
    value = view.constant(2) if view.has_input(2) else np.asarray(view.attr("value", 0.0))
    pads, rank = view.ints("pads", 1), len(view.in_shape(0) or ())
    plain = str(view.attr("mode", "constant")) == "constant" and not view.has_input(3) and value is not None
    if pads is None or not plain or np.any(value) or len(pads) != 2 * rank or min(pads, default=0) < 0:
        return None
    return pads


def _is_here(graph: Graph, node: gs.Node) -> bool:
    """Whether a node belongs to the main graph, not to the body of another node."""
    return any(node is other for other in graph.nodes)


def _fold_batch_normalization(graph: Graph, report: PassReport) -> None:
    for node in list(graph.nodes):
        if op_of(node) != "BatchNormalization" or len([t for t in node.outputs if t.name]) != 1:
            continue
        source = node.inputs[0]
        if len(source.inputs) != 1 or len(source.outputs) != 1 or not _free(graph, source):
            continue
        layer = linear_layer(graph.view(source.inputs[0]))
        affine = _scale_and_shift(graph, node)
        if layer is None or layer.bias is None or affine is None or layer.out_axis != 1 or layer.node.op == "MatMul":
            continue
        scale, shift = affine
        if scale.shape != (layer.n_out,):
            continue
        _rescale(graph, layer, scale, layer.bias * scale + shift, report)
        graph.bypass(node)
        report.changes["BatchNormalization folded"] += 1


def _scale_and_shift(graph: Graph, node: gs.Node) -> tuple[Array, Array] | None:
    view = graph.view(node)
    constants = [view.constant(i) for i in range(1, 5)]
    if any(c is None for c in constants) or int(view.attr("training_mode", 0)):
        return None
    gain, shift, mean, variance = (np.asarray(c, dtype=np.float64) for c in constants)
    spread = variance + float(view.attr("epsilon", np.float32(1e-5)))
    if (spread <= 0).any():
        return None
    scale = gain / np.sqrt(spread)
    return scale, shift - mean * scale


def _rescale(graph: Graph, layer: LinearLayer, scale: Array, bias: Array, report: PassReport) -> None:
    """Multiply the rows of a layer and set its bias, rounding once."""
    node = layer.node
    constant = graph.own(node, 1)
    raw = np.asarray(constant.values)
    wide = raw.astype(np.float64)
    if node.op == "ConvTranspose":
        ins, outs = raw.shape[0] // layer.groups, raw.shape[1]
        factors = np.repeat(scale.reshape(layer.groups, outs), ins, axis=0)
        exact = wide * factors.reshape(raw.shape[0], outs, *(1,) * (raw.ndim - 2))
    else:
        exact = wide * np.expand_dims(scale, tuple(a for a in range(raw.ndim) if a != layer.weight_out))
    rounded = exact.astype(raw.dtype)
    graph.set_values(constant, rounded)
    values = bias.astype(raw.dtype)
    gap = max(
        float(np.abs(rounded.astype(np.float64) - exact).max(initial=0.0)),
        float(np.abs(values.astype(np.float64) - bias).max(initial=0.0)),
    )
    report.rounding = max(report.rounding, gap)
    fresh = gs.Constant(graph.fresh(f"{label(node)}_bias"), values)
    if node.op not in KERNELS:
        node.attrs.pop("beta", None)
    if len(node.inputs) > 2:
        node.inputs[2] = fresh
    else:
        node.inputs.append(fresh)


def _to_gemm(graph: Graph, report: PassReport) -> None:
    """MatMul + Add of a bias row, on matrices, is a Gemm."""
    for node in list(graph.nodes):
        if op_of(node) != "MatMul":
            continue
        view = graph.view(node)
        layer, output = linear_layer(view), node.outputs[0]
        shape = view.in_shape(0)
        if layer is None or shape is None or len(shape) != 2 or len(output.outputs) != 1 or not _free(graph, output):
            continue
        add = output.outputs[0]
        if op_of(add) != "Add" or not _is_here(graph, add):
            continue
        bias = add.inputs[1] if add.inputs[0] is output else add.inputs[0]
        kind = graph.types.get(add.outputs[0].name)
        rows = isinstance(bias, gs.Constant) and np.asarray(bias.values).shape in (
            (layer.n_out,),
            (1, layer.n_out),
        )
        if not rows or kind is None or kind.shape is None or len(kind.shape) != 2:
            continue
        target = add.outputs[0]
        graph.detach(add)
        node.op = "Gemm"
        node.inputs.append(bias)
        node.outputs[0] = target
        report.changes["MatMul + Add to Gemm"] += 1
