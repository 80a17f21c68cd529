"""Which units go: channels by what it costs to read them no more, per multiply-add that this saves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.bounds.static import StaticGraph
from onnxprune.errors import InputError
from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups
from onnxprune.surgeon.curvature import group_costs
from onnxprune.surgeon.kronecker import refitted
from onnxprune.surgeon.matching import Matching, Values
from onnxprune.surgeon.moments import input_moments
from onnxprune.surgeon.stages import Choice, Masks
from onnxprune.surgeon.targets import Parameters, Target

PROBES = 8
Alive = NDArray[np.bool_]


class Channels:
    """The channels of a graph that can go, and what of the parameters goes with them.

    Args:
        graph: The graph.
        found: Layers with weights, and their biases and scales.
    """

    def __init__(self, graph: Graph, found: Parameters) -> None:
        groups = ChannelGroups(graph)
        self.count: int = groups.count
        self.targets = found.targets
        names = {t.name for t in found.targets} | set(found.followers)
        self._axes = {
            name: [
                (axis, groups.of((name, axis))) for axis in range(len(constant.shape)) if (name, axis) in groups.axes()
            ]
            for name, constant in graph.constants().items()
            if name in names
        }
        self._shapes = {name: tuple(graph.constants()[name].shape) for name in self._axes}
        held = np.zeros(self.count, dtype=bool)
        by_name = {str(reader.layer.node.inputs[1].name): reader for reader in groups.readers}
        self.reading: dict[str, NDArray[np.int64]] = {}
        for name, reader in by_name.items():
            target = next((t for t in found.targets if t.name == name), None)
            if target is None:
                held[reader.components] = True
            else:
                self.reading[name] = _by_input(target, reader.components)
        for units in groups.units:
            if not any(str(t.name) in names for t in units.node.inputs):
                held[units.components] = True
        able = groups.removable & ~held
        for name in self.reading:
            self.reading[name] = np.where(able[self.reading[name]], self.reading[name], -1)
        read = np.unique(np.concatenate([np.zeros(0, np.int64), *(r.reshape(-1) for r in self.reading.values())]))
        self.able = np.zeros(self.count, dtype=bool)
        self.able[read[read >= 0]] = True
        self.families: list[NDArray[np.int64]] = self._families()

    def _families(self) -> list[NDArray[np.int64]]:
        """Channels that lie on the same axes: alike in what they cost, counted together for alignment."""
        signature: dict[int, list[tuple[str, int]]] = {int(c): [] for c in np.flatnonzero(self.able)}
        for name, axes in self._axes.items():
            for axis, components in axes:
                for component in np.unique(components):
                    if int(component) in signature:
                        signature[int(component)].append((name, axis))
        families: dict[tuple[tuple[str, int], ...], list[int]] = {}
        for component, places in signature.items():
            families.setdefault(tuple(places), []).append(component)
        return [np.array(members) for members in families.values()]

    def masks(self, alive: Alive) -> dict[str, NDArray[np.bool_]]:
        """What stays of every parameter."""
        found = {}
        for name, axes in self._axes.items():
            kept = np.ones(self._shapes[name], dtype=bool)
            for axis, components in axes:
                shape = [1] * kept.ndim
                shape[axis] = -1
                kept &= alive[components].reshape(shape)
            found[name] = kept
        return found

    def macs(self, alive: Alive) -> int:
        """Multiply-adds per sample of the layers."""
        kept = self.masks(alive)
        return sum(int(kept[t.name].sum()) * t.uses for t in self.targets)

    def parameters(self, alive: Alive) -> int:
        """Weights of the layers."""
        kept = self.masks(alive)
        return sum(int(kept[t.name].sum()) for t in self.targets)

    def savings(self, alive: Alive, *, macs: bool) -> NDArray[np.float64]:
        """Multiply-adds (or weights) that go with each channel."""
        kept, found = self.masks(alive), np.zeros(self.count)
        for target in self.targets:
            for axis, components in self._axes[target.name]:
                others = tuple(a for a in range(kept[target.name].ndim) if a != axis)
                spent = kept[target.name].sum(axis=others) * float(target.uses if macs else 1)
                found += np.bincount(components, weights=spent, minlength=self.count)
        return found


@dataclass(frozen=True)
class UnitChoice:
    """Takes channels out, family by family, always where a multiply-add costs least.

    Attributes:
        objective: Gives the costs.
        static: The graph with its sizes.
        channels: What can go.
        left: Share of the multiply-adds (or weights) that may stay.
        macs: Count multiply-adds; weights otherwise.
        multiple: Channels of a family stay in multiples of it.
        rng: Draws probes.
    """

    objective: Matching
    static: StaticGraph
    channels: Channels
    left: float
    macs: bool
    multiple: int
    rng: np.random.Generator

    def __call__(self, share: float, values: Values, masks: Masks) -> Choice:
        """What stays at a share of the way."""
        alive = self.alive(masks)
        costs = group_costs(self.objective, values, self.channels.reading, self.channels.count, PROBES, self.rng)
        fewer = self.channels.masks(self.reduced(alive, costs, 1 - share * (1 - self.left)))
        readers = [target for target in self.channels.targets if target.name in fewer]
        moments = input_moments(self.objective, self.static, values, readers, self.rng)
        return Choice(fewer, refitted(moments, readers, values, fewer))

    def alive(self, masks: Masks) -> Alive:
        """Channels that are still there."""
        found = np.ones(self.channels.count, dtype=bool)
        if masks:
            for name, group in self.channels.reading.items():
                inside = group >= 0
                found[np.setdiff1d(group[inside], group[inside & masks[name]])] = False
        return found

    def reduced(self, alive: Alive, costs: NDArray[np.float64], left: float) -> Alive:
        """Take out the cheapest channels until the limit is met.

        Raises:
            InputError: It cannot be met.
        """
        spent = self.channels.macs if self.macs else self.channels.parameters
        limit = left * spent(np.ones_like(alive))
        alive = alive.copy()
        while spent(alive) > limit:
            saved = self.channels.savings(alive, macs=self.macs)
            candidates = [part for f in self.channels.families if (part := self._next(f, alive, costs)) is not None]
            if not candidates:
                least = spent(alive) / spent(np.ones_like(alive))
                raise InputError(
                    f"Removing units cannot go below {least:.0%} of the {'multiply-adds' if self.macs else 'weights'}.",
                    hint="Ask for less, or prune weights (--structure weights).",
                )
            ratios = [costs[part].sum() / max(saved[part].sum(), 1.0) for part in candidates]
            alive[candidates[int(np.argmin(ratios))]] = False
        return alive

    def _next(self, family: NDArray[np.int64], alive: Alive, costs: NDArray[np.float64]) -> NDArray[np.int64] | None:
        """The cheapest channels of a family that bring its count down to a multiple; None where none can go."""
        there = family[alive[family]]
        fewer = (len(there) - 1) // self.multiple * self.multiple
        if fewer < 1:
            return None
        return there[np.argsort(costs[there], kind="stable")[: len(there) - fewer]]


def _by_input(target: Target, components: NDArray[np.int64]) -> NDArray[np.int64]:
    """Per weight, as it is stored, the component of the input channel it multiplies."""
    layer = target.normal
    outs, ins, taps = layer.weights.shape
    per_group = outs // layer.groups
    channel = (np.arange(outs) // per_group * ins)[:, None, None] + np.arange(ins)[None, :, None]
    normal = np.broadcast_to(components[channel], (outs, ins, taps))
    return _as_stored(target, normal)


def _as_stored(target: Target, normal: NDArray[np.int64]) -> NDArray[np.int64]:
    """An array in the layer's normal form (out, in per group, taps), in the layout of the weight tensor."""
    layer, shape = target.normal, target.shape
    if layer.node.op == "ConvTranspose":
        outs, ins, taps = normal.shape
        apart = normal.reshape(layer.groups, outs // layer.groups, ins, taps)
        return np.ascontiguousarray(np.swapaxes(apart, 1, 2)).reshape(shape)
    if layer.node.op == "Conv" or layer.weight_out == 0:
        return normal.reshape(shape)
    return np.ascontiguousarray(normal[:, :, 0].T).reshape(shape)
