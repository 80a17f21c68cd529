"""Models that compute and differentiate the taps of a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from onnxprune.operators.onnx_tape import OnnxTape, Symbol
from onnxprune.operators.static import folded
from onnxprune.surgeon.differentiation.plan import Plan, call, given


class Program:
    """A model under construction that has computed all tensors of a plan.

    Args:
        plan: What to compute.
        tape: The model.
        apart: Whether cotangents of weights keep a row per sample.
    """

    def __init__(self, plan: Plan, tape: OnnxTape, *, apart: bool = False) -> None:
        self.tape = tape
        self._plan = plan
        self.apart = apart
        self.known = given(plan.network, tape)
        for step in plan.steps:
            outputs = step.rule.forward(call(step.node, tape, self.known, 0))
            self.known |= {step.node.output(k): x for k, x in enumerate(outputs or ())}

    def value(self, tensor: str) -> Symbol:
        """A tensor for every sample."""
        return self.for_all(self.known[tensor])

    def for_all(self, x: Symbol) -> Symbol:
        """A tensor with a row for every sample."""
        return x if x.rows else self.tape.repeated(x, list(self.known.values()))

    def pull(self, seeds: Mapping[str, Symbol], sources: Collection[str]) -> dict[str, Symbol]:
        """Cotangents of sources from those of taps: sums over samples where a source has no rows.

        Args:
            seeds: By tap.
            sources: Tensors of the network.
        """
        active = self._plan.active(sources)
        found: dict[str, Symbol] = {}
        for name, seed in seeds.items():
            self._note(found, name, seed)
        for step in reversed(self._plan.steps):
            node = step.node
            outputs = [node.output(k) for k in range(step.results)]
            wanted = {slot for slot in step.slots if node.input(slot) in active}
            if not wanted or not any(name in found for name in outputs):
                continue
            now = call(node, self.tape, self.known, step.results, apart=self.apart)
            back = step.rule.pull(now, [found.get(name) for name in outputs], wanted)
            for slot, cotangent in back.items():
                if slot in wanted:
                    self._note(found, node.input(slot), cotangent)
        return {name: found[name] for name in sources if name in found}

    def _note(self, found: dict[str, Symbol], name: str, c: Symbol) -> None:
        """Add to the cotangent of a tensor, summed over what it was broadcast along."""
        target, tape = self.known[name], self.tape
        keeps = target.rows or self.apart or not c.rows
        c = folded(tape, c, target.shape) if keeps else tape.total_rows(c, target.shape)
        found[name] = tape.entrywise("Add", [found[name], c], target.shape) if name in found else c

    def push(self, seeds: Mapping[str, Symbol]) -> dict[str, Symbol]:
        """Tangents of all tensors that move with the sources.

        Args:
            seeds: By source.
        """
        found = dict(seeds)
        for step in self._plan.steps:
            node = step.node
            slots = [slot for slot in step.slots if node.input(slot) in found]
            if not slots:
                continue
            now = call(node, self.tape, self.known, step.results)
            tangents = [found.get(node.input(k)) if k in slots else None for k in range(node.n_inputs)]
            moved = step.rule.push(now, tangents)
            found |= {node.output(k): x for k, x in enumerate(moved)}
        return found
