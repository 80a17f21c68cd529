"""Run a network in float64 with a proved bound on the error of every value: what a run shows is then beyond doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.bounds.static import StaticGraph
from onnxprune.operators.interval import Array, gamma, up
from onnxprune.operators.relaxation import Pieces
from onnxprune.operators.tape import NumpyTape


@dataclass(frozen=True)
class Values:
    """Values of a flat tensor at some points, and how far they may be from the values in real arithmetic.

    Attributes:
        value: Shape (points, entries).
        error: Shape (1, entries), for all points.
    """

    value: Array
    error: Array


HELD = 1 << 24
"""Entries of values that are held at once."""


class Evaluator:
    """Runs the affine and piecewise-linear part of a graph; what is behind other operators is left out.

    Args:
        net: The graph.
    """

    def __init__(self, net: StaticGraph) -> None:
        self._net = net
        self._pieces: dict[int, Pieces | None] = {}
        self._last = {t.name: number for number, node in enumerate(net.graph.nodes) for t in node.inputs}

    def batch(self, keep: frozenset[str]) -> int:
        """How many points to run at once, so that what is kept stays within ``HELD`` entries."""
        return max(1, HELD // max(1, sum(self._net.size(name) or 0 for name in keep) + 4 * self._net.widest))

    def run(self, points: Mapping[str, Array], keep: frozenset[str] | None = None) -> dict[str, Values]:
        """Values of all tensors that can be computed.

        Args:
            points: Per input, shape (points, entries), inside the box of the domain; taken as exact.
            keep: Tensors whose values are wanted; None for all.

        Returns:
            Per tensor; a point whose values exceed the tensors' types is not part of the domain: all its are NaN.
        """
        known = {name: Values(rows, np.zeros((1, rows.shape[1]))) for name, rows in points.items()}
        with np.errstate(over="ignore", invalid="ignore"):  # points that leave the tensors' types become NaN below
            bad = np.zeros(max((len(rows) for rows in points.values()), default=0), dtype=bool)
            for number, node in enumerate(self._net.graph.nodes):
                results = self._affine(node, known) or self._activation(node, known) or self._choice(node, known)
                for tensor, result in zip(node.outputs, results or (), strict=False):
                    known[tensor.name] = result
                    bad |= ~(np.abs(result.value) + result.error <= self._net.largest(tensor.name)).all(axis=1)
                for tensor in node.inputs if keep is not None else ():
                    if tensor.name not in (keep or ()) and self._last[tensor.name] == number:
                        known.pop(tensor.name, None)
        found = {name: v for name, v in known.items() if keep is None or name in keep}
        if not bad.any():
            return found
        return {name: Values(np.where(bad[:, None], np.nan, v.value), v.error) for name, v in found.items()}

    def _variable(self, node: gs.Node, known: Mapping[str, Values]) -> list[Values | None] | None:
        """Values of the inputs (None for constants); None where one is not known."""
        found: list[Values | None] = []
        for tensor in node.inputs:
            constant = not tensor.name or isinstance(tensor, gs.Constant)
            if not constant and tensor.name not in known:
                return None
            found.append(None if constant else known[tensor.name])
        return found if any(v is not None for v in found) else None

    def _affine(self, node: gs.Node, known: Mapping[str, Values]) -> list[Values] | None:
        given = self._variable(node, known)
        if given is None or self._net.constant_part(node) is None:
            return None
        exact = [None if v is None else v.value for v in given]
        reach = [None if v is None else _size(v) for v in given]
        wrong = [None if v is None else v.error for v in given]
        values = self._net.apply(node, exact, NumpyTape())
        sizes = self._net.apply(node, reach, NumpyTape(absolute=True))
        errors = self._net.apply(node, wrong, NumpyTape(absolute=True, shifts=False))
        if values is None or sizes is None or errors is None:
            return None
        terms = max([v.value.shape[1] for v in given if v is not None] + [v.shape[1] for v in values])
        moves = node.op in MOVES
        return [
            Values(v, e if moves else up(up(e * (1 + gamma(terms))) + up(gamma(terms) * s)))
            for v, s, e in zip(values, sizes, errors, strict=True)
        ]

    def _activation(self, node: gs.Node, known: Mapping[str, Values]) -> list[Values] | None:
        operator, source = self._net.operator(node), node.inputs[0].name if node.inputs else ""
        if operator is None or source not in known:
            return None
        if id(node) not in self._pieces:
            self._pieces[id(node)] = operator.pieces(self._net.view(node))
        pieces = self._pieces[id(node)]
        shape = self._net.shape(source)
        if pieces is None or shape is None:
            return None

        def flat(values: Array) -> Array:
            return np.broadcast_to(values, shape or ()).reshape(-1)

        x, slope, offset = known[source], flat(pieces.slope), flat(pieces.offset)
        total, steep = slope * x.value + offset, np.abs(slope)
        reach = _size(x)
        size = np.abs(slope) * reach + np.abs(offset)
        for at, weight in zip(pieces.knots, pieces.bends, strict=True):
            knot, bend = flat(at), flat(weight)
            over = np.maximum(x.value - knot, 0.0)
            total, steep = total + bend * over, steep + np.abs(bend)
            size = size + np.abs(bend) * (reach + np.abs(knot))
        rectifies = len(pieces.knots) == 1 and not slope.any() and not offset.any() and _one_at_zero(pieces)
        rounding = 0.0 if rectifies else gamma(4 * len(pieces.knots)) * size
        return [Values(total, x.error if rectifies else up(up(steep * x.error) + rounding))]

    def _choice(self, node: gs.Node, known: Mapping[str, Values]) -> list[Values] | None:
        operator, given = self._net.operator(node), self._variable(node, known)
        choices = None if operator is None or given is None else operator.choices(self._net.view(node))
        if choices is None or given is None or any(v is None for v in given):
            return None
        value = np.concatenate([v.value for v in given if v is not None], axis=1)
        error = np.concatenate([v.error for v in given if v is not None], axis=1)
        missing = choices.indices < 0
        sign = 1.0 if choices.largest else -1.0
        picked = np.where(missing, -np.inf, sign * value[:, choices.indices]).max(axis=-1)
        return [Values(sign * picked, np.where(missing, 0.0, error[:, choices.indices]).max(axis=-1))]


def _size(found: Values) -> Array:
    """How large the true values can be at any of the points, shape (1, entries)."""
    return np.asarray(np.abs(found.value).max(axis=0, keepdims=True, initial=0.0) + found.error)


MOVES = frozenset(
    "Concat Dropout Expand Flatten Gather Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze".split()
)
"""Operators that only move entries: nothing is rounded."""


def _one_at_zero(pieces: Pieces) -> bool:
    return not np.any(pieces.knots[0]) and bool(np.all(pieces.bends[0] == 1))
