"""States of units over a domain: what bounds prove about each pre-activation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.bounds.interval import Bounds
from onnxprune.graph.graph import Graph, label
from onnxprune.graph.groups import ChannelGroups, Units
from onnxprune.operators import Axis, activation, op_of, operator_for, smooth_activation
from onnxprune.operators.elementwise import Elementwise

ACTIVATIONS = frozenset(
    op for family in (activation, smooth_activation) for cls in family.OPERATORS for op in cls.op_types
)


class State(Enum):
    """State of a unit over the domain, in real arithmetic."""

    INACTIVE = "inactive"
    ACTIVE = "active"
    CONSTANT = "constant"
    UNSTABLE = "unstable"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class LayerStates:
    """States of the units of one layer."""

    name: str
    op: str
    activation: str
    """Operator type of the activation, "" for a layer that is read as it is."""
    states: tuple[State, ...]
    margins: NDArray[np.float64] = field(repr=False)
    """Per unit how far the proved bound is on its side of the threshold; NaN where nothing is proved."""
    lower: NDArray[np.float64] = field(repr=False)
    """Per unit the proved lower bound of the pre-activation."""
    upper: NDArray[np.float64] = field(repr=False)
    """Per unit the proved upper bound of the pre-activation."""

    def count(self, state: State) -> int:
        """Number of units in a state."""
        return sum(s is state for s in self.states)


def unit_states(
    graph: Graph, groups: ChannelGroups, bounds: Bounds, switching: Mapping[Axis, NDArray[np.bool_]] | None = None
) -> list[LayerStates]:
    """States of all units, layer by layer.

    A unit is inactive when its activation always returns 0, constant when it always returns the same other
    value, active when its activation is the identity on the whole range of its pre-activation. Units with
    activations that are not piecewise linear are constant or unstable; a layer without an activation is
    affine, its units are active or constant.

    Args:
        graph: The graph.
        groups: Its channel groups.
        bounds: Bounds on its tensors.
        switching: Per pre-activation, units that runs have shown to be unstable.
    """
    return [_states(graph, units, bounds, switching or {}) for units in groups.units if not _is_inner(graph, units)]


def _is_inner(graph: Graph, units: Units) -> bool:
    return bool(op_of(units.node) == "BatchNormalization")


def _states(graph: Graph, units: Units, bounds: Bounds, switching: Mapping[Axis, NDArray[np.bool_]]) -> LayerStates:
    size = len(units.components)
    name, axis = units.axis
    activation = _activation(graph, units.node)
    before = activation.inputs[0].name if activation is not None else name
    after = activation.outputs[0].name if activation is not None else name
    low, high = bounds.channel(after, axis, size)
    pre_low, pre_high = bounds.channel(before, axis, size)
    straight = (-np.inf, np.inf) if activation is None else _identity_range(graph, activation)
    shown = switching.get((before, axis), np.zeros(size, dtype=bool))
    states, margins = [], np.full(size, np.nan)
    for i in range(size):
        if low[i] == high[i]:
            states.append(State.INACTIVE if low[i] == 0 else State.CONSTANT)
            margins[i] = -pre_high[i]
        elif straight is not None and pre_low[i] >= straight[0] and pre_high[i] <= straight[1]:
            states.append(State.ACTIVE)
            margins[i] = min(pre_low[i] - straight[0], straight[1] - pre_high[i])
        elif straight is None or shown[i]:
            states.append(State.UNSTABLE)
        else:
            states.append(State.UNDECIDED)
    kind = "" if activation is None else op_of(activation)
    return LayerStates(label(units.node), op_of(units.node), kind, tuple(states), margins, pre_low, pre_high)


def _activation(graph: Graph, node: gs.Node) -> gs.Node | None:
    """The activation behind a layer, across additions of a bias and BatchNormalization; None if there is none."""
    for reader in _chain(graph, node):
        if op_of(reader) in ACTIVATIONS:
            return reader
    return None


def _chain(graph: Graph, node: gs.Node) -> Iterator[gs.Node]:
    tensor = node.outputs[0]
    for _ in range(4):
        if len(tensor.outputs) != 1 or tensor.name in graph.output_names:
            return
        reader = tensor.outputs[0]
        yield reader
        constant = all(isinstance(t, gs.Constant) for t in reader.inputs if t is not tensor)
        if op_of(reader) not in ("Add", "Sub", "BatchNormalization") or not constant:
            return
        tensor = reader.outputs[0]


def _identity_range(graph: Graph, activation: gs.Node) -> tuple[float, float] | None:
    operator = operator_for(str(activation.op), activation.domain)
    return operator.identity_on(graph.view(activation)) if isinstance(operator, Elementwise) else None
