"""Cost curves of every unit's weights: the Gauss-Newton matrix of a layer as a Kronecker product.

For a layer with inputs x and pre-activations s the curvature of the objective in its weights is close to
``E[x x'] (x) E[c c']`` with c the objective's square-root cotangents at s (Martens and Grosse, 2015). Units then do
not interact, all share the matrix of the inputs, and removing weights of unit o with all others of it refitted costs
``E[c_o^2] w_P' (M_PP)^-1 w_P / 2`` (Optimal Brain Surgeon; Yu et al., 2022, section 3.2, for a set P).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.bounds.static import StaticGraph
from onnxprune.surgeon.curvature import signs
from onnxprune.surgeon.matching import CHUNK, Matching, Values
from onnxprune.surgeon.moments import input_moments
from onnxprune.surgeon.selection import Removals, greedy_removals, pattern_removals, refit
from onnxprune.surgeon.stages import Masks
from onnxprune.surgeon.targets import Target

Array = NDArray[np.float64]
PROBES = 6
RIDGE = 1e-3
WIDEST = 1024
"""Inputs of a unit that are refitted together at most."""
WORK = 1e10
"""Multiply-adds of the eliminations of one stage; beyond, the inputs of a unit are cut into blocks."""


@dataclass(frozen=True)
class Curve:
    """What it costs to remove more and more weights of one block of inputs of one unit.

    Attributes:
        target: The layer.
        unit: The unit.
        columns: The inputs of the block, as columns of the layer's normal form.
        removals: The order of removal, for all units of the layer.
        row: Of this unit in it.
        gone: How many are removed already.
        costs: Shape (steps + 1,), added cost with so many more removed.
    """

    target: Target
    unit: int
    columns: NDArray[np.intp]
    removals: Removals
    row: int
    gone: int
    costs: Array

    def kept(self, more: int) -> NDArray[np.bool_]:
        """Which inputs of the block stay when so many more go."""
        found = np.ones(len(self.columns), dtype=bool)
        found[self.removals.order[self.row, : self.gone + more]] = False
        return found


def refitted(moments: Mapping[str, Array], targets: Sequence[Target], values: Values, masks: Masks) -> Values:
    """The weights that stay, fitted to give the outputs that all weights gave on the same inputs.

    Args:
        moments: Second moments of the inputs, per weight tensor.
        targets: The layers.
        values: Parameters with all weights.
        masks: Which of them stay.
    """
    found = {}
    for target in targets:
        rows, kept = target.normal_of(values[target.name]), target.normal_of(masks[target.name])
        fresh = np.array(rows)
        outs = len(rows) // target.normal.groups
        for group in range(target.normal.groups):
            units = slice(group * outs, (group + 1) * outs)
            width = rows.shape[1]
            for columns in np.array_split(np.arange(width), -(-width // WIDEST)):
                part = moments[target.name][group][np.ix_(columns, columns)]
                fresh[units, columns[0] : columns[-1] + 1] = refit(
                    part, rows[units][:, columns], kept[units][:, columns], ridge=RIDGE
                )
        found[target.name] = target.stored_of(fresh)
    return found


@dataclass(frozen=True)
class Costs:
    """What removals cost at one point of the pruning.

    Attributes:
        curves: Of all blocks of inputs of all units.
        moments: Second moments of the inputs, per weight tensor.
        targets: The layers.
    """

    curves: list[Curve]
    moments: dict[str, Array]
    targets: Sequence[Target]


@dataclass(frozen=True)
class Curves:
    """Cost curves of all layers at one point of the pruning.

    Attributes:
        objective: Gives the curvature.
        static: The graph with its sizes.
        targets: The layers.
        pattern: N and M where N of M neighbours are to stay.
        rng: Draws probes and samples.
    """

    objective: Matching
    static: StaticGraph
    targets: Sequence[Target]
    pattern: tuple[int, int] | None
    rng: np.random.Generator

    def at(self, values: Values, masks: Masks, reach: float) -> Costs:
        """The curves.

        Args:
            values: Parameters.
            masks: What is left.
            reach: Curves go on to this share of the weights that are left in a block (1: to the end).
        """
        moments = input_moments(self.objective, self.static, values, self.targets, self.rng)
        weights = self._unit_weights(values, moments)
        block = self._block()
        found: list[Curve] = []
        for target in self.targets:
            rows = target.normal_of(values[target.name])
            there = target.normal_of(masks[target.name]) if target.name in masks else np.ones_like(rows, dtype=bool)
            outs = len(rows) // target.normal.groups
            for group in range(target.normal.groups):
                units = slice(group * outs, (group + 1) * outs)
                for columns in self._columns(target, there[units], block):
                    part = moments[target.name][group][np.ix_(columns, columns)]
                    curves = self._block_curves(part, rows[units][:, columns], there[units][:, columns], reach)
                    for row, (removals, gone, costs) in enumerate(curves):
                        unit = group * outs + row
                        weight = weights[target.name][unit]
                        found.append(Curve(target, unit, columns, removals, row, gone, costs * weight))
        return Costs(found, moments, self.targets)

    def _block_curves(
        self, moments: Array, rows: NDArray[np.float32], there: NDArray[np.bool_], reach: float
    ) -> list[tuple[Removals, int, Array]]:
        size = rows.shape[1]
        most = size if self.pattern is None else pattern_removals(size, self.pattern)
        gone = (~there).sum(axis=1)
        left = float((size - gone).mean())
        steps = int(min(most, gone.max(initial=0) + np.ceil(reach * left)))
        removals = greedy_removals(moments, rows, steps, removed=~there, group=self.pattern, ridge=RIDGE)
        return [(removals, int(g), removals.costs[i, g:] - removals.costs[i, g]) for i, g in enumerate(gone)]

    def _columns(self, target: Target, there: NDArray[np.bool_], block: int) -> list[NDArray[np.intp]]:
        """Blocks of inputs; for patterns along the channels of one tap, otherwise those some unit still reads."""
        inputs, taps = target.normal.weights.shape[1:]
        if self.pattern is not None:
            order = np.arange(inputs * taps).reshape(inputs, taps).T.reshape(-1)
            block = max(block // self.pattern[1], 1) * self.pattern[1]
            return [order[i : i + block] for i in range(0, len(order), block)]
        alive = np.flatnonzero(there.any(axis=0))
        parts = -(-len(alive) // block)
        return [part for part in np.array_split(alive, max(parts, 1)) if len(part)]

    def _block(self) -> int:
        """The largest block with which the eliminations stay within their work."""
        shapes = [(t.normal.n_out, t.size // t.normal.n_out) for t in self.targets]
        block = max(width for _, width in shapes)
        while block > 32 and sum(r * w * min(w, block) ** 2 / 3 for r, w in shapes) > WORK:
            block = block * 3 // 4
        return block

    def _unit_weights(self, values: Values, moments: dict[str, Array]) -> dict[str, Array]:
        """What the curvature of the inputs is multiplied with, per unit of every layer.

        Cotangents at different positions of a map are taken as independent, which they are not (think of a global
        mean behind it). So a layer with several positions is rescaled: its weights' diagonal of the Kronecker
        product is brought to the sum that probes of the Gauss-Newton matrix itself see.
        """
        curvature = self._output_curvature(values)
        weights = {t.name: curvature[t.normal.writes[0]] for t in self.targets}
        spread = [t for t in self.targets if t.uses > 1]
        seen = dict.fromkeys((t.name for t in spread), 0.0)
        for _ in range(PROBES if spread else 0):
            index = self.rng.permutation(len(self.objective.data))[:CHUNK]
            feeds = self.objective.data.take(index).inputs
            row = self.objective.derivatives.pull(feeds, values, signs(self.objective, len(index), self.rng))
            for target in spread:
                product = (row[target.name] * values[target.name]).astype(np.float64)
                seen[target.name] += float((product**2).sum()) / PROBES
        for target in spread:
            squares = target.normal_of(values[target.name]).astype(np.float64) ** 2
            diagonals = np.repeat(
                np.array([np.diag(part) for part in moments[target.name]]), len(squares) // target.normal.groups, axis=0
            )
            expected = float(weights[target.name] @ (squares * diagonals).sum(axis=1))
            if expected > 0:
                weights[target.name] = weights[target.name] * (seen[target.name] / expected)
        return weights

    def _output_curvature(self, values: Values) -> dict[str, Array]:
        """Per layer output, the mean of the squared cotangents of every unit, summed over positions."""
        objective = self.objective
        axes = {t.normal.writes[0]: t.normal.out_axis for t in self.targets}
        found: dict[str, Array] = {}
        for _ in range(PROBES):
            index = self.rng.permutation(len(objective.data))[:CHUNK]
            feeds = objective.data.take(index).inputs
            seeds = signs(objective, len(index), self.rng)
            for name, rows in objective.derivatives.cotangents(feeds, values, seeds, list(axes)).items():
                axis = axes[name] if rows.ndim == len(self.static.shape(name) or ()) else rows.ndim - 1
                squares = (rows.astype(np.float64) ** 2).sum(axis=tuple(a for a in range(rows.ndim) if a != axis))
                found[name] = found.get(name, np.float64(0)) + squares / PROBES
        return found
