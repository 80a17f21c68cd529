"""The regions themselves, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from onnxprune.domain import Domain
from onnxprune.errors import InputError
from onnxprune.graph.kinds import ModelLike
from onnxprune.operators.interval import Array
from onnxprune.regions.layers import AffineMap
from onnxprune.regions.network import Pattern, RegionNetwork
from onnxprune.regions.walker import TOLERANCE, Definition, Walker

CHUNK = 256


@dataclass(frozen=True, eq=False)
class Region:
    """One region.

    Attributes:
        pattern: Which unstable units are on.
        witness: An input inside, shape (inputs,).
        gates: Pre-activations of the unstable units, affine in the region.
        outputs: The network's outputs, affine in the region; None where they are unknown.
    """

    pattern: Pattern
    witness: Array
    gates: AffineMap
    outputs: AffineMap | None


def iter_regions(
    model: RegionNetwork | ModelLike,
    domain: Domain | str | Sequence[str] | None = None,
    definition: Definition = "cells",
    *,
    tolerance: float = TOLERANCE,
    centred: bool = False,
) -> Iterator[Region]:
    """All regions, depth first; memory does not grow with their number.

    Args:
        model: A network, or a model with a domain.
        domain: Where the inputs of a model lie.
        definition: "cells" or "patterns".
        tolerance: See :func:`~onnxprune.regions.exact.count_exactly`.
        centred: Move each witness as far from all cuts as it gets, by one more linear programme.

    Raises:
        InputError: A model without a domain; regions merged by their map; what the network raises.
    """
    if definition == "affine":
        raise InputError("Regions merged by their affine map are not listed.", hint='Take "cells".')
    if isinstance(model, RegionNetwork):
        network = model
    elif domain is None:
        raise InputError("Linear regions need a finite box for every input.", hint="Give a domain.")
    else:
        network = RegionNetwork.of_model(model, domain)
    return _regions(network, definition, tolerance, centred)


def _regions(network: RegionNetwork, definition: Definition, tolerance: float, centred: bool) -> Iterator[Region]:
    walker, guide, done = Walker(network, definition, tolerance), Walker(network, definition, tolerance), False
    while not done:
        rows, done = walker.collect(most=CHUNK)
        for row in rows:
            pattern = tuple(int(bit) for bit in row)
            gates, outputs = network.affine_maps(pattern)
            guide.move(pattern)
            witness = guide.witness
            if centred:
                witness = _centre(network, gates, pattern, witness)
            yield Region(pattern, witness, gates, outputs)


def _centre(network: RegionNetwork, gates: AffineMap, pattern: Pattern, witness: Array) -> Array:
    """The input whose smallest slack, relative to a gate's half-range over the box, is largest."""
    spread = np.abs(gates.matrix) @ ((network.high - network.low) / 2)
    keep = spread > 1e-12 * (1.0 + np.abs(gates.shift))
    signs = np.where(np.array(pattern, dtype=np.int64) == 1, 1.0, -1.0)[keep] / spread[keep]
    rows = np.hstack([-signs[:, None] * gates.matrix[keep], np.ones((int(keep.sum()), 1))])
    limits = signs * gates.shift[keep]
    slack = limits - rows[:, :-1] @ witness
    rows = np.vstack([rows, np.hstack([network.rows, np.zeros((len(network.rows), 1))])])
    limits = np.concatenate([limits, network.limits])
    ends = [*zip(network.low.tolist(), network.high.tolist(), strict=True), (0.0, 1.0)]
    found = linprog(np.append(np.zeros(len(witness)), -1.0), rows, limits, bounds=ends)
    if found.status != 0 or found.x is None or found.x[-1] <= slack.min(initial=1.0):
        return witness
    return np.clip(found.x[:-1], network.low, network.high)
