"""Values standardised over axes of a sample, then scaled and shifted: layer, instance, group and RMS norms.

With h = (x - mean) r and r = (variance + epsilon)^(-1/2), a change t of x changes h by
``r (t - mean(t) - h mean(t h))``: a symmetric map, which serves both directions.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from onnxprune.operators.onnx_tape import Symbol
from onnxprune.operators.static import filled
from onnxprune.operators.tape import Sizes
from onnxprune.surgeon.differentiation.columns import channel_total, column
from onnxprune.surgeon.differentiation.rule import Call, Operand, Rule
from onnxprune.surgeon.differentiation.term import Term


@dataclass(frozen=True)
class Layout:
    """What is standardised.

    Attributes:
        sizes: Shape in which it is.
        axes: Axes of this shape.
        centred: Whether the mean is taken away.
    """

    sizes: Sizes
    axes: tuple[int, ...]
    centred: bool = True


class Normalization(Rule):
    """What all norms share; subclasses say over which axes, and along which their parameters lie."""

    def layout(self, call: Call) -> Layout | None:
        """What is standardised, None where that is not known."""
        raise NotImplementedError

    def parameter(self, call: Call, x: Operand) -> Operand:
        """Scale or shift, so that it broadcasts to the output."""
        return x

    def parameter_cotangent(self, call: Call, slot: int, c: Symbol) -> Symbol:
        """Cotangent of scale or shift from that of its broadcast form."""
        return c

    def forward(self, call: Call) -> list[Symbol] | None:
        """Standardise, scale, shift."""
        x, layout = call.inputs[0], self.layout(call)
        if x is None or layout is None or any(p is not None and p.rows for p in call.inputs[1:]):
            return None
        y, _ = self._standard(call, layout)
        if call.node.has_input(1):
            y = y * self._parameter(call, 1)
        if call.node.has_input(2):
            y = y + self._parameter(call, 2)
        return [y.symbol]

    def _parameter(self, call: Call, slot: int) -> Term:
        return Term(call.tape, self.parameter(call, call.operand(slot)))

    def _standard(self, call: Call, layout: Layout) -> tuple[Term, Term]:
        """The standardised values in the shape of the output, and the factor r."""
        x = Term(call.tape, call.tape.reshape(call.given(0), layout.sizes))
        x = x - x.mean(layout.axes) if layout.centred else x
        r = 1.0 / ((x * x).mean(layout.axes) + float(call.node.attr("epsilon", 1e-5))).apply("Sqrt")
        return self._shaped(call, x * r, call.input_shape(0)), r

    @staticmethod
    def _shaped(call: Call, x: Term, sizes: Sizes) -> Term:
        return Term(call.tape, call.tape.reshape(x.symbol, sizes))

    def _through(self, call: Call, t: Term) -> Term:
        """The symmetric map, times the scale on the side of the output being the caller's part."""
        layout = self.layout(call)
        assert layout is not None
        h, r = self._standard(call, layout)
        h, t = self._shaped(call, h, layout.sizes), self._shaped(call, t, layout.sizes)
        rest = t - t.mean(layout.axes) if layout.centred else t
        return self._shaped(call, r * (rest - h * (t * h).mean(layout.axes)), call.input_shape(0))

    def pull(self, call: Call, cotangents: Sequence[Symbol | None], wanted: Container[int]) -> dict[int, Symbol]:
        """Of the values, the scale and the shift."""
        layout, c = self.layout(call), cotangents[0]
        if c is None or layout is None:
            return {}
        term, found = Term(call.tape, c), {}
        if 0 in wanted:
            scaled = term * self._parameter(call, 1) if call.node.has_input(1) else term
            found[0] = self._through(call, scaled).symbol
        if 1 in wanted:
            found[1] = self.parameter_cotangent(call, 1, (term * self._standard(call, layout)[0]).symbol)
        if 2 in wanted:
            found[2] = self.parameter_cotangent(call, 2, c)
        return found

    def push(self, call: Call, tangents: Sequence[Symbol | None]) -> list[Symbol]:
        """Of the values, the scale and the shift."""
        layout, parts = self.layout(call), []
        assert layout is not None
        x, scale, shift = (*tangents, None, None)[:3]
        if x is not None:
            moved = self._through(call, Term(call.tape, x))
            parts.append(moved * self._parameter(call, 1) if call.node.has_input(1) else moved)
        if scale is not None:
            parts.append(self._standard(call, layout)[0] * Term(call.tape, self.parameter(call, scale)))
        if shift is not None:
            parts.append(Term(call.tape, self.parameter(call, shift)))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return [filled(call.tape, total.symbol, call.input_shape(0))]


class LayerNormalization(Normalization):
    """Over the last axes."""

    def layout(self, call: Call) -> Layout:
        """From the axis on."""
        sizes = call.input_shape(0)
        first = int(call.node.attr("axis", -1)) % len(sizes)
        return Layout(sizes, tuple(range(first, len(sizes))), centred=call.node.op == "LayerNormalization")


class InstanceNormalization(Normalization):
    """Over space, per channel."""

    def layout(self, call: Call) -> Layout | None:
        """All axes behind the channels."""
        sizes = call.input_shape(0)
        return Layout(sizes, tuple(range(2, len(sizes))))

    def parameter(self, call: Call, x: Operand) -> Operand:
        """Along the channels."""
        return column(call.tape, x, len(call.input_shape(0)))

    def parameter_cotangent(self, call: Call, slot: int, c: Symbol) -> Symbol:
        """Per channel."""
        return channel_total(call.tape, c, apart=call.apart)


class GroupNormalization(InstanceNormalization):
    """Over space and the channels of a group; parameters per channel, as from opset 21 on."""

    def layout(self, call: Call) -> Layout | None:
        """The channels of each group in one axis with space."""
        sizes, groups = call.input_shape(0), int(call.node.attr("num_groups"))
        if len(sizes) < 2 or call.input_shape(1) != (sizes[1],):
            return None
        return Layout((sizes[0], groups, sizes[1] // groups, *sizes[2:]), tuple(range(2, len(sizes) + 1)))


RULES: dict[str, Rule] = {
    "GroupNormalization": GroupNormalization(),
    "InstanceNormalization": InstanceNormalization(),
    "LayerNormalization": LayerNormalization(),
    "RMSNormalization": LayerNormalization(),
}
