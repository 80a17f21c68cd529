"""Operators that move whole ranges of an axis: Concat, Split, Slice, Pad, Expand.

The general affine rule covers them, too, but entry by entry where ranges are not adjacent in memory.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import pairwise

import numpy as np

from onnxprune.operators.indexing import cuts
from onnxprune.operators.onnx_tape import Symbol
from onnxprune.operators.static import filled, is_float, output_sizes, reals
from onnxprune.surgeon.differentiation.rule import Call, Rule


def _zeros(call: Call, shape: Sequence[int]) -> Symbol:
    return call.tape.constant(np.zeros(tuple(shape)))


class Concat(Rule):
    """Side by side."""

    def _axis(self, call: Call) -> int:
        return int(call.node.attr("axis", 1)) % len(call.shape)

    def forward(self, call: Call) -> list[Symbol] | None:
        """All parts, constant ones included."""
        if not is_float(call.node) or not call.shape:
            return None
        operands = [call.operand(slot) for slot in range(call.node.n_inputs)]
        parts = [x if isinstance(x, Symbol) else call.tape.constant(x) for x in operands]
        return [call.tape.concatenate(parts, self._axis(call))]

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """The range of each part."""
        c, axis, start = cotangents[0], self._axis(call), 0
        found: dict[int, Symbol] = {}
        for slot in range(call.node.n_inputs):
            stop = start + call.input_shape(slot)[axis]
            if c is not None and slot in wanted:
                found[slot] = call.tape.cut(c, axis, start, stop)
            start = stop
        return found

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """Zeros for parts that do not move."""
        parts = [_zeros(call, call.input_shape(slot)) if t is None else t for slot, t in enumerate(tangents)]
        return [call.tape.concatenate(parts, self._axis(call))]


class Split(Rule):
    """Ranges of an axis."""

    def _parts(self, call: Call) -> tuple[int, list[int]] | None:
        """The axis, and the size of every part; None where an output is omitted."""
        sizes = [output_sizes(call.node, k) for k in range(call.node.n_outputs)]
        axis = int(call.node.attr("axis", 0)) % len(call.input_shape(0))
        known = [shape[axis] for shape in sizes if shape is not None]
        return (axis, known) if len(known) == len(sizes) else None

    def _cut(self, call: Call, x: Symbol) -> list[Symbol]:
        axis, sizes = self._parts(call) or (0, [])
        ends = np.cumsum([0, *sizes]).tolist()
        return [call.tape.cut(x, axis, start, stop) for start, stop in pairwise(ends)]

    def forward(self, call: Call) -> list[Symbol] | None:
        """All parts."""
        return None if self._parts(call) is None else self._cut(call, call.given(0))

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """Side by side."""
        axis, sizes = self._parts(call) or (0, [])
        shape = call.input_shape(0)
        parts = [
            _zeros(call, (*shape[:axis], size, *shape[axis + 1 :])) if c is None else c
            for c, size in zip(cotangents, sizes, strict=True)
        ]
        return {0: call.tape.concatenate(parts, axis)}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """The ranges."""
        assert tangents[0] is not None
        return self._cut(call, tangents[0])


class Borders(Rule):
    """What cuts off borders, or adds zeros there; subclasses say how many along each axis."""

    def borders(self, call: Call) -> dict[int, tuple[int, int]] | None:
        """Zeros in front and behind, negative where something is cut off; None where that is not known."""
        raise NotImplementedError

    def slots(self, call: Call) -> set[int]:
        """The first input."""
        return {0}

    def _moved(self, call: Call, x: Symbol, sign: int) -> Symbol:
        for axis, (before, behind) in (self.borders(call) or {}).items():
            x = call.tape.embed(x, axis, sign * before, sign * behind)
        return x

    def forward(self, call: Call) -> list[Symbol] | None:
        """Borders added or cut off."""
        x = call.inputs[0]
        return None if x is None or self.borders(call) is None else [self._moved(call, x, 1)]

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """The opposite."""
        return {} if cotangents[0] is None else {0: self._moved(call, cotangents[0], -1)}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """The same."""
        assert tangents[0] is not None
        return [self._moved(call, tangents[0], 1)]


class Slice(Borders):
    """Ranges with step 1."""

    def borders(self, call: Call) -> dict[int, tuple[int, int]] | None:
        """What is cut off."""
        sizes = call.input_shape(0)
        found = {}
        for axis, cut in (cuts(call.node, len(sizes)) or {-1: None}).items():
            if cut is None or cut.step != 1:
                return None
            kept = cut.positions(sizes[axis])
            if not len(kept):
                return None
            found[axis] = (-int(kept[0]), int(kept[-1]) + 1 - sizes[axis])
        return found


class Pad(Borders):
    """Zeros at constant places."""

    def borders(self, call: Call) -> dict[int, tuple[int, int]] | None:
        """The padding, negative numbers included."""
        node, rank = call.node, len(call.input_shape(0))
        pads = node.ints("pads", 1)
        axes = node.ints("axes", 3) if node.has_input(3) else list(range(rank))
        value = reals(node, 2) if node.has_input(2) else np.asarray(float(node.attr("value", 0.0)))
        if pads is None or axes is None or value is None or value.any() or node.attr("mode", "constant") != "constant":
            return None
        half = len(pads) // 2
        return {axis % rank: (pads[k], pads[half + k]) for k, axis in enumerate(axes)}


class Expand(Rule):
    """Axes of length 1 repeated, to a shape that does not vary."""

    def forward(self, call: Call) -> list[Symbol] | None:
        """Repeated."""
        x, fits = call.inputs[0], call.node.constant(1) is not None
        return None if x is None or not fits else [filled(call.tape, x, call.shape)]

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """The same, as the caller sums."""
        return {} if cotangents[0] is None else {0: cotangents[0]}

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """Repeated."""
        assert tangents[0] is not None
        return [filled(call.tape, tangents[0], call.shape)]


RULES: dict[str, Rule] = {"Concat": Concat(), "Expand": Expand(), "Pad": Pad(), "Slice": Slice(), "Split": Split()}
