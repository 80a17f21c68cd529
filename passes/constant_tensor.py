"""Tensors that are constant as a whole: graph outputs, and operands of sums and products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.bounds import Bounds
from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph, label
from onnxprune.operators import Shape, op_of
from onnxprune.operators.interval import Array
from onnxprune.operators.linear import LINEAR
from onnxprune.pass_api import PassReport
from onnxprune.removable import ABSORBED

EXPAND_SINCE = 8
"""Opset that brought Expand."""
BINARY = ("Add", "Sub", "Mul")


@dataclass(frozen=True)
class _Constant:
    tensor: gs.Tensor
    values: NDArray[np.float32]
    """In the tensor's type and rank; axes along which nothing changes have length 1."""
    rounding: float
    radius: float
    """How far the tensor may be from the unrounded values."""


def replace_constants(graph: Graph, facts: Facts) -> PassReport:
    """Put constants for tensors that never vary, where that drops more than it adds; from the back to the front."""
    report = PassReport()
    for node in reversed(list(graph.nodes)):
        outputs = [t for t in node.outputs if t.name]
        found = _constant(graph, outputs[0], facts.bounds) if len(outputs) == 1 else None
        if found is None or found.tensor.name in graph.captured:
            continue
        everywhere = _constant(graph, found.tensor, facts.bounds_anywhere) is not None
        if found.tensor.name in graph.output_names:
            done = _replace_output(graph, facts, found, report)
        else:
            done = _replace_operand(graph, facts, found, report)
        if done:
            report.modified = report.values_kept = True
            report.needed_domain |= not everywhere
            report.rounding = max(report.rounding, found.rounding)
            report.changes["constant tensors"] += 1
    return report


def _constant(graph: Graph, tensor: gs.Tensor, bounds: Bounds) -> _Constant | None:
    kind, found = graph.types.get(tensor.name), bounds[tensor.name]
    if kind is None or kind.shape is None or kind.dtype is None or kind.dtype.kind != "f" or found.ndim == 0:
        return None
    if found.ndim != len(kind.shape) or not np.isfinite([found.lower.min(), found.upper.max()]).all():
        return None
    exact = np.where(found.lower == found.upper, found.lower, found.lower / 2 + found.upper / 2)
    with np.errstate(over="ignore"):
        radius = np.where(found.lower == found.upper, 0.0, np.nextafter(found.upper - found.lower, np.inf))
    if (radius > ABSORBED * np.abs(exact).max(initial=0.0)).any() or not _fits(exact.shape, kind.shape):
        return None
    exact = _compressed(exact)
    with np.errstate(over="ignore"):
        values = exact.astype(kind.dtype)
    rounding = float(np.abs(values.astype(np.float64) - exact).max(initial=0.0))
    return _Constant(tensor, values, rounding, float(radius.max(initial=0.0))) if np.isfinite(rounding) else None


def _fits(sizes: tuple[int, ...], shape: Shape) -> bool:
    """Whether values broadcast to a symbolic shape that has no empty axis."""
    return all(size in (1, dim) and dim != 0 for size, dim in zip(sizes, shape, strict=True))


def _compressed(values: Array) -> Array:
    """Axes along which all entries are equal reduced to length 1."""
    for axis in range(values.ndim):
        first = values.take([0], axis=axis)
        if (values == first).all():
            values = first
    return values


def _replace_output(graph: Graph, facts: Facts, found: _Constant, report: PassReport) -> bool:
    shape = graph.types[found.tensor.name].shape or ()
    nodes = _build(graph, found, shape)
    gone = _only_for(graph, found.tensor)
    if nodes is None or not _pays(facts, gone, found, len(nodes)):
        return False
    _note(report, found.tensor.name, found, 1.0)
    anchor = found.tensor.inputs[0]
    at = next(i for i, node in enumerate(graph.nodes) if node is anchor)
    graph.nodes[at:at] = nodes
    _drop(graph, facts, gone, report)
    nodes[-1].outputs = [found.tensor]
    return True


def _build(graph: Graph, found: _Constant, shape: Shape) -> list[gs.Node] | None:
    """Nodes (without the last one's output) that give the values the shape of the tensor; None if it is unknown."""
    name = str(found.tensor.name)
    values = gs.Constant(graph.fresh(f"{name}_constant"), found.values)
    if found.values.shape == shape:
        return [gs.Node("Constant", f"{name}_constant", {"value": values})]
    if graph.opset < EXPAND_SINCE:
        return None
    nodes: list[gs.Node] = []
    pieces: list[gs.Tensor] = []
    for dim in shape:
        piece = _size(graph, name, dim, nodes)
        if piece is None:
            return None
        pieces.append(piece)
    if all(isinstance(dim, int) for dim in shape):
        nodes, target = [], gs.Constant(graph.fresh(f"{name}_shape"), np.array(shape, np.int64))
    else:
        target = gs.Variable(graph.fresh(f"{name}_shape"), np.int64)
        nodes.append(gs.Node("Concat", f"{name}_shape", {"axis": 0}, inputs=pieces, outputs=[target]))
    nodes.append(gs.Node("Expand", f"{name}_constant", inputs=[values, target]))
    return nodes


def _size(graph: Graph, name: str, dim: int | str | None, nodes: list[gs.Node]) -> gs.Tensor | None:
    """A size as a tensor of length 1: a number, or read off an input that has it."""
    if isinstance(dim, int):
        return gs.Constant(graph.fresh(f"{name}_size"), np.array([dim], np.int64))
    for tensor in graph.surgeon.inputs:
        kind = graph.types.get(tensor.name)
        if dim is None or kind is None or kind.shape is None or dim not in kind.shape:
            continue
        sizes = gs.Variable(graph.fresh(f"{name}_sizes"), np.int64)
        picked = gs.Variable(graph.fresh(f"{name}_size"), np.int64)
        place = gs.Constant(graph.fresh(f"{name}_axis"), np.array([kind.shape.index(dim)], np.int64))
        nodes.append(gs.Node("Shape", sizes.name, inputs=[tensor], outputs=[sizes]))
        nodes.append(gs.Node("Gather", picked.name, {"axis": 0}, inputs=[sizes, place], outputs=[picked]))
        return picked
    return None


def _replace_operand(graph: Graph, facts: Facts, found: _Constant, report: PassReport) -> bool:
    tensor = found.tensor
    readers = list(tensor.outputs)
    if any(_is_constant(graph, facts, reader) for reader in readers):
        return False  # what they compute could not be replaced either, so they still need the tensor
    factors = [_factor(graph, facts, reader, found) for reader in readers]
    gone = _only_for(graph, tensor)
    known = [factor for factor in factors if factor is not None]
    if not readers or len(known) < len(factors) or not _pays(facts, gone, found, 0):
        return False
    for reader, factor in zip(readers, known, strict=True):
        value = gs.Constant(graph.fresh(f"{tensor.name}_constant"), found.values)
        reader.inputs[0 if reader.inputs[0] is tensor else 1] = value
        _note(report, reader.outputs[0].name, found, factor)
    _drop(graph, facts, gone, report)
    return True


def _note(report: PassReport, name: str, found: _Constant, factor: float) -> None:
    """Report by how much a tensor may move when the constant stands for what it was."""
    for table, amount in ((report.deviations, found.radius), (report.moved, found.rounding)):
        if amount:
            table[name] = table.get(name, 0.0) + amount * factor


def _is_constant(graph: Graph, facts: Facts, node: gs.Node) -> bool:
    return all(_constant(graph, t, facts.bounds) is not None for t in node.outputs if t.name)


def _factor(graph: Graph, facts: Facts, reader: gs.Node, found: _Constant) -> float | None:
    """Change of a sum or product per change of the tensor; None where the constant cannot stand for it."""
    if op_of(reader) not in BINARY or all(t is found.tensor for t in reader.inputs):
        return None
    index = 0 if reader.inputs[0] is found.tensor else 1
    view = graph.view(reader)
    other, out = view.in_shape(1 - index), view.out_shape()
    if other is None or other != out or None in other or len(other) < found.values.ndim:
        return None
    if op_of(reader) != "Mul":
        return 1.0
    factor = float(facts.bounds[reader.inputs[1 - index].name].magnitude().max())
    return factor if not found.radius or factor < np.finfo(np.float32).max / 2 else None


def _only_for(graph: Graph, tensor: gs.Tensor) -> list[gs.Node]:
    """The nodes nobody needs once a tensor is given."""
    needed = set(graph.output_names) | graph.captured
    gone = []
    for node in reversed(graph.nodes):
        if any(t.name in needed and t is not tensor for t in node.outputs if t.name):
            needed.update(t.name for t in node.inputs if t.name and t is not tensor)
        else:
            gone.append(node)
    return gone


def _pays(facts: Facts, gone: list[gs.Node], found: _Constant, added: int) -> bool:
    """Whether a layer goes (or more nodes than are added), no parameters come, and nothing protected is lost."""
    ids = {id(node) for node in gone}
    held = any(id(units.node) in ids and facts.held[units.components].any() for units in facts.groups.units)
    if held:
        return False
    constants = [np.asarray(t.values) for node in gone for t in node.inputs if isinstance(t, gs.Constant)]
    spared = sum(values.size for values in constants if values.dtype.kind in "fV")
    layers = any(op_of(node) in LINEAR for node in gone)
    return (layers or len(gone) > added) and spared >= found.values.size


def _drop(graph: Graph, facts: Facts, gone: list[gs.Node], report: PassReport) -> None:
    ids = {id(node) for node in gone}
    for units in facts.groups.units:
        if id(units.node) in ids:
            report.removed[label(units.node)] = list(range(len(units.components)))
    for node in gone:
        graph.detach(node)
