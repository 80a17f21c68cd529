"""Finds out which tensors of an optimized model stand for which of the original: what the certificate will say.

Nothing here is trusted: rows are paired by their weights, and the checker compares what comes out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune.certificate.pairing import ALIKE, Views, middle, multiples, paired
from onnxprune.verify.forms import Form
from onnxprune.verify.meanings import meaning
from onnxprune.verify.network import Node
from onnxprune.verify.reasons import Rejected
from onnxprune.verify.relation import Relation
from onnxprune.verify.sides import Anchor, constant
from onnxprune.verify.terms import Indices

Floats = NDArray[np.float64]
SCALING = frozenset("BatchNormalization Add Sub Mul Div Pad".split())
"""Nodes behind a layer that are often folded into it."""


@dataclass
class Search(Relation):
    """A walk that finds its own anchors.

    Attributes:
        found: Anchors by tensor of the original.
        refused: Why pairings were dropped.
        unsure: Rows of activations of the optimized model that have to be proved stably active, by their input.
        late: Whether tensors that only affine nodes read are left without a counterpart: rows that are equal in
            the optimized model cannot be mistaken for one another there.
    """

    found: dict[str, Anchor] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unsure: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    late: bool = False

    def anchor(self, name: str, form: Form | None) -> Anchor | None:
        """The best pairing of rows there is; None where the tensor has no counterpart."""
        if form is None or form.whole == name:
            choice = None if form is None or name not in self.before.net.outputs else Anchor(name)
        else:
            node = self.before.net.producer[name]
            affine = node.op in self.before.affine.operators and not self._folded_soon(name)
            choice = self._carried_by(name, form)
            if choice is None and affine and not (self.late and self._passes(name)):
                choice = self._best(name, form)
                if choice is not None and choice.rows is not None:
                    choice = self._with_carrier(name, form, choice) or choice
            if choice is None and not form.whole and form.bare.all() and self._still(name):
                choice = Anchor(name)
        if choice is not None:
            self.found[name] = choice
        return choice

    def _still(self, name: str) -> bool:
        """Whether a tensor of this name is (nearly) constant in both models, or has to be there in any case."""
        if name in self.before.net.outputs:
            return True
        shapes = self.before.net.sample(name), self.after.net.sample(name)
        if name not in self.after.bounds or shapes[0] is None or shapes[0] != shapes[1]:
            return False
        return bool(constant(self.before.bounds[name]).all() and constant(self.after.bounds[name]).all())

    def _passes(self, name: str) -> bool:
        """Whether only affine nodes read a tensor."""
        readers = self.before.net.readers.get(name, [])
        return name not in self.before.net.outputs and all(r.op in self.before.affine.operators for r in readers)

    def _folded_soon(self, name: str) -> bool:
        """Whether what scales or shifts a tensor next has been folded into what computes it."""
        readers = self.before.net.readers.get(name, [])
        if len(readers) != 1 or readers[0].op not in SCALING or name in self.before.net.outputs:
            return False
        variable = [n for n in readers[0].inputs if n and n not in self.before.net.constants]
        return variable == [name] and readers[0].op not in {r.op for r in self.after.net.readers.get(name, [])}

    def anchored(self, name: str, form: Form | None, anchor: Anchor) -> Form | None:
        """As in the check; a pairing that turns out wrong is dropped."""
        self.forms[name] = form
        try:
            return super().anchored(name, form, anchor)
        except Rejected as error:
            if name in self.before.net.outputs:
                raise
            del self.found[name]
            self.refused[name] = error.what
            return form

    def unproved(self, tensor: str, source: str, rows: Indices) -> None:
        """Rows that evidence is needed for."""
        del tensor
        self.unsure[source] |= {int(row) for row in rows}

    def image(self, tensor: str, *, inside: bool = False) -> Form | None:
        """As in the check; activations that nothing of the original is like hand everything on."""
        node = self.after.net.producer.get(tensor)
        if node is not None and not inside and self._bends(node):
            rows = self._unpaired(tensor, node)
            if len(rows):
                self.open_rows = {**self.open_rows, tensor: rows}
        return super().image(tensor, inside=inside)

    def _bends(self, node: Node) -> bool:
        told = meaning(self.after.given(node))
        return told is not None and told.straight is not None

    def _unpaired(self, tensor: str, node: Node) -> Indices:
        """Rows of an activation's output that no row of the original is."""
        shape = self.after.net.shape(node.outputs[0])
        axis = min(1, len(shape) - 1) if shape else 0
        taken: set[int] = set()
        for form in self.forms.values():
            if form is not None and form.whole == tensor:
                return np.zeros(0, dtype=np.int64)
            for (name, windows), term in () if form is None else form.terms.items():
                if name == tensor and windows is None and term.picks and term.columns is not None:
                    axis = form.axis if form is not None and form.axis is not None else axis
                    taken |= set(term.columns[:, 0].tolist())
        count = self.after.net.size(tensor, axis)
        return np.zeros(0, dtype=np.int64) if count is None else np.setdiff1d(np.arange(count), list(taken))

    def _best(self, name: str, form: Form) -> Anchor | None:
        """The pairing of most rows; activations are only taken for idle where nothing fits otherwise."""
        for idle in (False, True) if self._handed_all() else (False,):
            best: tuple[float, Anchor, Mapping[str, Indices]] | None = None
            for other in self._candidates(name, form, idle=idle):
                before = self.open_rows
                target = self.image(other)
                pairing = None if target is None else self._pairing(name, other, form, target)
                if pairing is not None and (best is None or pairing[0] > best[0]):
                    best = (*pairing, self.open_rows)
                self.open_rows = before
                if best is not None and best[0] >= 1:
                    break
            if best is not None:
                self.open_rows = best[2]
                return best[1]
        return None

    def _handed_all(self) -> bool:
        """Whether an activation of the original may have no counterpart at all."""
        return any(len(walk.handed) and not len(walk.kept) for walk in self.walks)

    def _candidates(self, name: str, form: Form, *, idle: bool) -> list[str]:
        """Tensors of the optimized model that are computed from the same tensors, the one of this name first."""
        sources = {form.whole} if form.whole else {tensor for tensor, _ in form.terms}
        if not sources:
            return []
        nodes = [n for n in self.after.net.nodes if n.op in self.after.affine.operators]
        names = [n for node in nodes for n in node.outputs if n and n not in self.atoms and self._fitting(name, n)]
        if name in self.before.net.outputs:
            names = [n for n in names if n == name]
        names = [n for n in names if n not in self.after.net.outputs or n == name]
        names = [n for n in names if sources & self._roots(n, idle=idle)]
        near = self._in_front(name)
        return sorted(names, key=lambda n: near.index(n) if n in near else len(near))

    def _in_front(self, name: str) -> list[str]:
        """A tensor, and what it is scaled and shifted from: names that it may have taken over."""
        found = [name]
        node = self.before.net.producer.get(name)
        while node is not None and node.op in SCALING:
            source = next((n for n in node.inputs if n not in self.before.net.constants), "")
            found.append(source)
            node = self.before.net.producer.get(source)
        return found

    def _fitting(self, name: str, other: str) -> bool:
        """Whether two tensors differ in the length of one axis at most."""
        one, two = self.before.net.sample(name), self.after.net.sample(other)
        if one is None or two is None or len(one) != len(two):
            return False
        return sum(a != b for a, b in zip(one, two, strict=True)) <= 1 and all(
            b <= a for a, b in zip(one, two, strict=True)
        )

    def _roots(self, tensor: str, *, idle: bool) -> set[str]:
        """Tensors that stand for ones of the original from which a tensor is computed.

        Args:
            tensor: A tensor of the optimized model.
            idle: Whether activations that nothing of the original is like may be passed.
        """
        found, todo, seen = set(), [tensor], {tensor}
        while todo:
            name = todo.pop()
            node = self.after.net.producer.get(name)
            stands = name in self.atoms and name != tensor
            if stands or node is None:
                found.add(name)
            if node is None or (stands and not self._bends(node)):
                continue
            affine = node.op in self.after.affine.operators
            if (affine and not stands) or (self._bends(node) and (idle or stands)):
                fresh = [n for n in node.inputs if n and n not in self.after.net.constants and n not in seen]
                todo += fresh
                seen.update(fresh)
        return found

    def _pairing(self, name: str, other: str, form: Form, target: Form) -> tuple[float, Anchor] | None:
        """How well a tensor fits, and which rows are which."""
        if form.whole and form.whole == target.whole:
            return 2.0, Anchor(other)
        shape = self.before.net.shape(name)
        axis = next((a for a in (form.axis, target.axis) if a is not None), None)
        axis = min(1, len(shape) - 1) if axis is None and shape else axis
        counts = [net.size(n, axis) if axis is not None else None
                  for net, n in ((self.before.net, name), (self.after.net, other))]  # fmt: skip
        if axis is None or counts[0] is None or counts[1] is None:
            return None
        rows, others = form.along(axis, counts[0]), target.along(axis, counts[1])
        if rows is None or others is None:
            return None
        views = Views(self.after, axis)
        which = paired(rows, others, views)
        share = len(np.unique(which[which >= 0])) / others.rows
        folded = {reader.op for reader in self.before.net.readers.get(name, [])} <= SCALING
        if share == 0 or (share < 1 and (folded or name in self.before.net.outputs)):
            return None
        factors = multiples(rows, others, which, views)
        if (which == np.arange(len(which))).all() and others.rows == rows.rows:
            return 2.0, Anchor(other)
        return share, Anchor(other, which, factors if (factors != 1).any() else None)

    def _carried_by(self, name: str, form: Form) -> Anchor | None:
        """Constant rows as multiples of one that stayed, in front of padded convolutions."""
        if meaning(self.before.given(self.before.net.producer[name])) is None:
            return None
        for image in [tensor for (tensor, windows), term in form.terms.items() if windows is None and term.picks]:
            channel, factors = form.matched(image)
            found = self._with_carrier(
                name, form, Anchor(image, channel, np.where(channel >= 0, factors.floats()[0], 1.0))
            )
            if found is not None:
                return found
        return None

    def _with_carrier(self, name: str, form: Form, anchor: Anchor) -> Anchor | None:
        """The same with constant rows in terms of constant ones: of equal ones, in front of padding of any multiple."""
        count = self.after.net.size(anchor.tensor, form.axis) if form.axis is not None else None
        if form.axis is None or count is None or anchor.rows is None:
            return None
        if len(anchor.rows) != form.rows:
            return None
        bounds, other = self.before.rows(name, form.axis, form.rows), self.after.rows(anchor.tensor, form.axis, count)
        (value, worth), channel = (middle(b) for b in (bounds, other)), anchor.rows
        fixed = constant(bounds) & (value != 0)
        usable = constant(other) & (worth != 0)
        which, times = channel.copy(), np.ones(form.rows) if anchor.factors is None else anchor.factors.copy()
        for row in np.flatnonzero(fixed & (channel < 0)):
            equal = np.flatnonzero(usable & (np.abs(worth - value[row]) <= ALIKE * np.abs(value[row])))
            fresh = np.setdiff1d(equal, which)
            if len(fresh):
                which[row] = fresh[0]
        carriers = np.flatnonzero((which >= 0) & fixed & usable[which])
        loose = np.flatnonzero(fixed & (which < 0))
        if len(carriers) and any(self._padded(n) for n in self._behind(name)):
            carrier = which[carriers[0]]
            which[loose], times[loose] = carrier, value[loose] / worth[carrier]
        return Anchor(anchor.tensor, which, times) if (which != channel).any() else None

    def _behind(self, name: str) -> list[Node]:
        """Readers of a tensor, and of what treats its channels one by one."""
        found = list(self.before.net.readers.get(name, []))
        for node in found:
            if meaning(self.before.given(node)) is not None:
                found += self.before.net.readers.get(node.outputs[0], [])
        return found

    def _padded(self, node: Node) -> bool:
        padding = any(int(p) for p in node.get("pads", [])) or str(node.get("auto_pad", "NOTSET")) != "NOTSET"
        return node.op == "ConvTranspose" or (node.op == "Conv" and padding)


def names(found: Mapping[str, Anchor]) -> dict[str, str]:
    """Tensors of the original that stand for whole tensors of the other model."""
    return {name: anchor.tensor for name, anchor in found.items() if anchor.rows is None}
