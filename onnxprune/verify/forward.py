"""Bounds on every tensor of a model, one pass in execution order: the rules of the operators applied to intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxprune.verify.network import Network, Node
from onnxprune.verify.numbers import Interval

Rule = Callable[["Given"], Sequence[Interval] | None]
RULES: dict[str, Rule] = {}
"""By operator; None as a result means that nothing is known."""

Refine = Callable[[str, Mapping[str, Interval]], Interval | None]
"""Asked after every tensor for better bounds on it, given all bounds so far."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Publish a rule for some operators."""

    def publish(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return publish


@dataclass
class Given:
    """What a rule may look at: the node, its model, and bounds on its inputs."""

    node: Node
    net: Network
    known: Mapping[str, Interval]
    exact: bool

    def bounds(self, index: int) -> Interval:
        """Bounds on an input, of the rank of the tensor with axes of full length or 1, or without axes."""
        name = self.node.inputs[index]
        if name in self.net.constants:
            values = self.net.constants[name]
            return self.point(values) if values.dtype.kind in "fiubV" else self.everything(name)
        return self.known.get(name) or self.everything(name)

    def point(self, values: Any) -> Interval:
        """Exactly these values."""
        return Interval.point(values, exact=self.exact)

    def everything(self, name: str) -> Interval:
        """The range of a tensor's element type."""
        return Interval.of(*(np.array(end) for end in self.net.largest(name)), exact=self.exact)

    def constant(self, index: int) -> Any:
        """Values of a constant input, None where it is none."""
        return self.net.constants.get(self.node.inputs[index]) if self.node.has(index) else None

    def sample(self, index: int) -> tuple[int, ...] | None:
        """Shape of one sample of an input."""
        return self.net.sample(self.node.inputs[index])

    def result(self, index: int = 0) -> tuple[int, ...] | None:
        """Shape of one sample of an output."""
        return self.net.sample(self.node.outputs[index])

    def full(self, index: int) -> Interval | None:
        """Bounds on every entry of one sample of an input; None where its shape is open."""
        return full(self.bounds(index), self.sample(index))


def full(found: Interval, shape: tuple[int, ...] | None) -> Interval | None:
    """Bounds repeated along all axes of a shape."""
    if shape is None or found.ndim not in (0, len(shape)):
        return None
    if any(have not in (1, want) for have, want in zip(found.shape, shape, strict=False)):
        return None
    return found if found.shape == shape else found.map(lambda m: np.broadcast_to(m, shape))


@dataclass
class Forward:
    """One sweep over a model.

    Attributes:
        net: The model.
        inputs: Bounds on its inputs.
        exact: Whether to compute without rounding.
        finite: Whether every value is known to be finite: true of the original on its domain, by definition.
        refine: Better bounds from elsewhere.
    """

    net: Network
    inputs: Mapping[str, Interval]
    exact: bool = False
    finite: bool = True
    refine: Refine | None = None
    bounds: dict[str, Interval] = field(default_factory=dict)

    def run(self, stop: str | None = None) -> dict[str, Interval]:
        """Bounds by tensor; tensors of open rank, or of which nothing is known, have bounds without axes.

        Args:
            stop: The last tensor that is wanted; by default all.
        """
        for name in self.net.inputs:
            self._note(name, self.inputs[name])
        for node in self.net.nodes:
            if stop in self.bounds:
                break
            self.step(node)
        return self.bounds

    def step(self, node: Node) -> None:
        """One node."""
        given = Given(node, self.net, self.bounds, self.exact)
        found = RULES.get(node.op)
        with np.errstate(all="ignore"):
            results = found(given) if found is not None and node.inputs else None
        for index, name in enumerate(node.outputs):
            if name:
                known = results is not None and index < len(results)
                self._note(name, results[index] if known and results is not None else given.everything(name))

    def _note(self, name: str, found: Interval) -> None:
        shape = self.net.shape(name)
        if shape is None or found.ndim not in (0, len(shape)):
            found = found.over(tuple(range(found.ndim))).map(lambda m: m.reshape(()))
        elif any(have > 1 and have != want for have, want in zip(found.shape, shape, strict=False)):
            found = Interval.of(*(np.array(end) for end in self.net.largest(name)), exact=self.exact)
        low, high = self.net.largest(name)
        kind = self.net.kinds.get(name)
        if kind is not None and kind.dtype is not None and kind.dtype.kind in "iub":
            ends = found.floats()
            if (ends[0] < low).any() or (ends[1] > high).any():  # it may have wrapped around
                found = found.like(np.array(low), np.array(high))
        elif self.finite:
            found = found.clamped(low, high)
        self.bounds[name] = found
        better = self.refine(name, self.bounds) if self.refine is not None else None
        if better is not None:
            self.bounds[name] = found.meet(better)
