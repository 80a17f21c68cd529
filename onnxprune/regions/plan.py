"""Which nodes of a graph are affine, which bend, and where the piecewise-linear part ends."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxprune.bounds.static import StaticGraph
from onnxprune.errors import InputError
from onnxprune.operators.relaxation import Choices, Pieces

ORDERED = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
"""Operators behind which the largest output is the largest input."""
AFFINE = "affine"
HINT = "Linear regions are those of affine operators and activations such as Relu and LeakyRelu."

Kind = Pieces | Choices | str


@dataclass(frozen=True)
class Plan:
    """How every node is followed.

    Attributes:
        kinds: By position of the node: affine, a piecewise-linear activation, or a maximum.
        last: By tensor the position of the last node that reads it.
        output: The tensor whose largest entry is the class; None where it is not followed.
        ignored: Operators at the end that are not followed.
    """

    kinds: dict[int, Kind]
    last: dict[str, int]
    output: str | None
    ignored: tuple[str, ...]

    @property
    def rectifiers(self) -> int:
        """Piecewise-linear activations, one for each of their knots."""
        return sum(len(kind.knots) for kind in self.kinds.values() if isinstance(kind, Pieces))


def plan_of(net: StaticGraph) -> Plan:
    """Sort the nodes into affine, piecewise linear, and an end that is left out.

    Raises:
        InputError: Something that is not piecewise linear stands before a piecewise-linear activation.
    """
    known, skipped = set(net.inputs), []
    kinds: dict[int, Kind] = {}
    last: dict[str, int] = {}
    for position, node in enumerate(net.graph.nodes):
        reads = _variable(node)
        last |= dict.fromkeys(reads, position)
        if not reads:
            continue
        kind = _kind(net, node) if all(name in known for name in reads) else None
        if kind is None:
            skipped.append(node)
        else:
            kinds[position] = kind
            known |= {tensor.name for tensor in node.outputs}
    bend = next((node for node in skipped if _bends(net, node)), None)
    if bend is not None:
        what = next(n for n in skipped if all(name in known for name in _variable(n)))
        raise InputError(
            f"Operator {what.op} ({what.name}) is not piecewise linear, or its shape is open, and "
            f"{bend.op} ({bend.name}) needs it.",
            hint=HINT,
        )
    output = _output(net, known)
    if output is not None:
        last[output] = len(net.graph.nodes)
    return Plan(kinds, last, output, tuple(str(node.op) for node in skipped))


def _output(net: StaticGraph, known: set[str]) -> str | None:
    """The first output, or what an operator reads that keeps the order of its entries."""
    name = net.graph.output_names[0]
    makers = {tensor.name: node for node in net.graph.nodes for tensor in node.outputs}
    while name not in known:
        node = makers.get(name)
        if node is None or node.op not in ORDERED:
            return None
        name = node.inputs[0].name
    return name


def _kind(net: StaticGraph, node: gs.Node) -> Kind | None:
    if any(net.size(tensor.name) is None for tensor in (*node.outputs, *node.inputs) if tensor.name):
        return None
    if net.constant_part(node) is not None:
        return AFFINE
    operator, view = net.operator(node), net.view(node)
    pieces = None if operator is None else operator.pieces(view)
    if pieces is not None:
        return pieces
    return None if operator is None else operator.choices(view)


def _bends(net: StaticGraph, node: gs.Node) -> bool:
    operator = net.operator(node)
    if operator is None:
        return False
    view = net.view(node)
    return operator.pieces(view) is not None or operator.choices(view) is not None


def _variable(node: gs.Node) -> list[str]:
    return [t.name for t in node.inputs if t.name and not isinstance(t, gs.Constant)]
