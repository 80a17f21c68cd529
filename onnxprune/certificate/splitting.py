"""Sub-boxes that prove what linear bounds over the whole box do not, as a tree of cuts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from onnxprune.certificate.needs import Need
from onnxprune.verify.cases import Cuts
from onnxprune.verify.network import Network
from onnxprune.verify.numbers import Interval
from onnxprune.verify.sides import touch
from onnxprune.verify.subboxes import bending, bounded

Floats = NDArray[np.float64]
FEW = 24
"""Free entries of the input up to which it is cut."""
LEAVES = 4096
"""Most sub-boxes."""
BATCH = 64
PATIENCE = 128
"""Sub-boxes from which on needs are given up that cutting does not bring nearer."""
STUCK = 0.9
"""Share of what is missing that has to be gained when there are twice as many sub-boxes."""


def cuts_for(
    net: Network, inputs: Mapping[str, Interval], needs: Mapping[Need, NDArray[np.int64]], stopped: Callable[[], bool]
) -> Cuts | None:
    """A tree of cuts after which as many needs as possible are met; None where that is not the way.

    The sub-box that is furthest from meeting them is cut next, in the middle of its side that matters most.
    """
    if len(inputs) != 1:
        return None
    source, box = next(iter(inputs.items()))
    shape = net.sample(source)
    if shape is None or shape[:1] != (1,):
        return None
    low, high = (np.array(np.broadcast_to(end, shape)).reshape(-1) for end in box.floats())
    if not 0 < (low < high).sum() <= FEW or not np.isfinite([low, high]).all() or np.abs([low, high]).max() > 1e30:
        return None
    wanted = {need.tensor for need in needs}
    tensors = bending(net)
    while tensors and tensors[-1] not in wanted:
        tensors.pop()
    if not wanted <= set(tensors):
        return None
    tree = _Tree(net, source, shape, tensors, inputs, needs)
    tree.grow(low, high, stopped)
    return Cuts(source, *tree.preorder())


class _Tree:
    def __init__(
        self,
        net: Network,
        source: str,
        shape: tuple[int, ...],
        tensors: list[str],
        inputs: Mapping[str, Interval],
        needs: Mapping[Need, NDArray[np.int64]],
    ) -> None:
        self.net, self.source, self.shape, self.tensors, self.inputs = net, source, shape, tensors, inputs
        self.needs = needs
        self.children: dict[int, tuple[int, float, int, int]] = {}
        self.boxes: list[tuple[Floats, Floats]] = []
        self.missing: list[Floats] = []
        """Per sub-box by how much every need is missed."""
        self.sizes = np.zeros(0)
        self.before: Floats = np.array(np.inf)
        self.hopeless = np.zeros(0, dtype=bool)

    def grow(self, low: Floats, high: Floats, stopped: Callable[[], bool]) -> None:
        """Cut until all needs are met, there are enough sub-boxes, or time is up."""
        self._add([(low, high)])
        leaves = {0}
        enough = PATIENCE
        while len(leaves) < LEAVES and not stopped():
            if len(leaves) >= enough:
                self._give_up(sorted(leaves))
                enough = 2 * len(leaves)
            chosen = self._worst(sorted(leaves))[: min(BATCH, LEAVES - len(leaves))]
            if not chosen:
                break
            fresh: list[tuple[Floats, Floats]] = []
            for leaf in chosen:
                least, most = self.boxes[leaf]
                axis = int(((most - least) * self.influence).argmax())
                middle = float(least[axis] / 2 + most[axis] / 2)
                left, right = most.copy(), least.copy()
                left[axis] = right[axis] = middle
                number = len(self.boxes) + len(fresh)
                self.children[leaf] = (axis, middle, number, number + 1)
                fresh += [(least, left), (right, most)]
                leaves.remove(leaf)
                leaves.update((number, number + 1))
            self._add(fresh)

    def _give_up(self, leaves: list[int]) -> None:
        """Leave needs alone that are missed by as much as when there were half as many sub-boxes."""
        worst = np.array([self.missing[leaf] for leaf in leaves]).max(axis=0)
        self.hopeless = (worst > STUCK * self.before) & (worst > 0)
        self.before = worst

    def _worst(self, leaves: list[int]) -> list[int]:
        """Sub-boxes that miss a need, those first that are most to blame; nearly met needs count more."""
        table = np.array([self.missing[leaf] for leaf in leaves])
        worst = table.max(axis=0)
        table[:, self.hopeless] = 0.0
        scores = (table / np.where(worst > 0, worst + 0.1 * self.sizes, 1.0)).sum(axis=1)
        return [leaves[k] for k in np.argsort(-scores) if scores[k] > 0]

    def _add(self, boxes: list[tuple[Floats, Floats]]) -> None:
        lows, highs = (np.array([box[end] for box in boxes]).reshape(-1, *self.shape[1:]) for end in (0, 1))
        cut = {self.source: Interval.of(lows, highs)}
        influence = np.zeros(int(np.prod(self.shape)))
        found = bounded(self.net, self.inputs, cut, self.tensors, {}, False, influence)
        if influence.any() or not self.boxes:
            self.influence = influence if influence.any() else np.ones_like(influence)
        parts, sizes = [np.zeros((len(boxes), 0))], [np.zeros(0)]
        for need, entries in self.needs.items():
            if need.tensor in found:
                least, most = (end[:, entries] for end in found[need.tensor])
                gap = most - need.knot if need.upper else need.knot - least
                parts.append(np.maximum(gap - touch(least, most) / 2, 0.0))
                sizes.append(np.maximum(np.abs(least), np.abs(most)).max(axis=0))
        self.boxes += boxes
        self.missing += list(np.concatenate(parts, axis=1))
        if not len(self.sizes):
            self.sizes = np.concatenate(sizes)
            self.hopeless = np.zeros(len(self.sizes), dtype=bool)

    def preorder(self) -> tuple[NDArray[np.int64], Floats]:
        """Axes and places of cuts, depth first, the parts below a cut first; -1 for leaves.

        Only of those that meet a need which is met in all sub-boxes: the others prove nothing.
        """
        table = np.array(self.missing)
        leaves = [number for number in range(len(table)) if number not in self.children]
        met = (table[leaves] == 0).all(axis=0)
        axes, places, todo = [], [], [0]
        while todo:
            node = todo.pop()
            cut = self.children.get(node) if table[node, met].any() else None
            axes.append(-1 if cut is None else cut[0])
            places.append(0.0 if cut is None else cut[1])
            if cut is not None:
                todo += [cut[3], cut[2]]
        return np.array(axes), np.array(places)
