"""Analyses a pass can ask for, computed on demand and dropped when the graph changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnxprune.bounds import Bounds, interval_bounds, linear_bounds
from onnxprune.domain import Domain
from onnxprune.graph.graph import Graph, label
from onnxprune.graph.groups import ChannelGroups
from onnxprune.operators import Interval
from onnxprune.removable import Removable, classify


@dataclass
class Facts:
    """What is known about one graph over one domain.

    Attributes:
        graph: The graph, in the state the facts speak of.
        domain: Where the inputs lie.
        protected: Per layer the unit indices that must stay (alignment, ``--keep``).
        known: Bounds proved before, by tensor; with them a sweep of intervals is enough.
    """

    graph: Graph
    domain: Domain
    protected: Mapping[str, frozenset[int]] = field(default_factory=dict)
    known: Mapping[str, Interval] | None = None

    @cached_property
    def groups(self) -> ChannelGroups:
        """Channel groups, with protected units locked."""
        return ChannelGroups(self.graph)

    @cached_property
    def bounds(self) -> Bounds:
        """Bounds over the domain: what was proved before, or else intervals and backward linear bounds."""
        if self.known is not None:
            return interval_bounds(self.graph, self.domain, known=self.known)
        return linear_bounds(self.graph, self.domain)

    @cached_property
    def bounds_anywhere(self) -> Bounds:
        """Interval bounds over every finite input."""
        return interval_bounds(self.graph, Domain.everything()) if self.domain.restricts else self.bounds

    @cached_property
    def held(self) -> NDArray[np.bool_]:
        """Components with a protected unit."""
        held = np.zeros(self.groups.count, dtype=bool)
        for units in self.groups.units:
            for index in self.protected.get(label(units.node), ()):
                held[units.components[index]] = True
        return held

    @cached_property
    def removable(self) -> Removable:
        """What can go, over the domain."""
        return classify(self.groups, self.bounds)

    @cached_property
    def removable_anywhere(self) -> Removable:
        """What can go for every finite input."""
        return classify(self.groups, self.bounds_anywhere) if self.domain.restricts else self.removable
