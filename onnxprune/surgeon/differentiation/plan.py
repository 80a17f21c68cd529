"""Which rule serves which node, and which weights can be differentiated."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnxprune.errors import InputError
from onnxprune.graph.graph import label
from onnxprune.operators import op_of
from onnxprune.operators.onnx_tape import OnnxTape, Symbol
from onnxprune.surgeon.differentiation.network import Network, View
from onnxprune.surgeon.differentiation.registry import rules_for
from onnxprune.surgeon.differentiation.rule import Call, Rule


class CannotRun(InputError):
    """A node cannot be computed sample by sample.

    Attributes:
        weights: Weights that it reads itself, by their names in the file; as constants they may do.
    """

    def __init__(self, network: Network, node: View) -> None:
        name = f"Node '{label(node.node)}' ({op_of(node.node)})"
        super().__init__(f"{name} cannot be run sample by sample.", hint=_HINT)
        read = [node.input(slot) for slot in range(node.n_inputs)]
        self.weights: dict[str, str] = {
            network.weights[tensor]: f"{name} cannot be run while it varies."
            for tensor in read
            if tensor in network.weights
        }


@dataclass(frozen=True)
class Step:
    """A node, how it is computed, and the input slots in which it can be differentiated."""

    node: View
    rule: Rule
    slots: frozenset[int]
    results: int
    """How many of its outputs the rule computes."""


@dataclass(frozen=True)
class Plan:
    """How some tensors of a network are computed and differentiated.

    Attributes:
        network: The network.
        taps: The tensors.
        steps: The nodes they depend on, in order.
        blocked: Tensors whose way to some tap leads through an operator without derivative, and why; others that
            reach a tap map to an empty text.
    """

    network: Network
    taps: tuple[str, ...]
    steps: tuple[Step, ...]
    blocked: dict[str, str]

    @cached_property
    def tensors(self) -> frozenset[str]:
        """What the taps depend on, themselves included."""
        computed = {step.node.output(k) for step in self.steps for k in range(step.results)}
        read = {step.node.input(slot) for step in self.steps for slot in range(step.node.n_inputs)}
        return frozenset(computed | (read - self.network.known.keys() - {""}) | set(self.taps))

    def refusal(self, tensor: str) -> str:
        """Why the taps cannot be differentiated in a tensor or weight; empty where they can."""
        names = [name for name, stored in self.network.weights.items() if stored == tensor] or [tensor]
        reasons = [self.blocked[name] for name in names if name in self.blocked]
        return next((r for r in reasons if r), "") if reasons else "No tap depends on it, but for jumps."

    @cached_property
    def misread(self) -> frozenset[str]:
        """Weights that a node reads where it has no derivative: its settings, as constants no obstacle to others."""
        names = self.network.weights
        read = [(step, step.node.input(slot), slot) for step in self.steps for slot in range(step.node.n_inputs)]
        return frozenset(names[name] for step, name, slot in read if name in names and slot not in step.slots)

    def active(self, sources: Collection[str]) -> set[str]:
        """Tensors that move when the sources do, with a derivative that is known."""
        found = set(sources)
        for step in self.steps:
            if any(step.node.input(slot) in found for slot in step.slots):
                found |= {step.node.output(k) for k in range(step.results)}
        return found


def plan(network: Network, taps: Sequence[str], tape: OnnxTape) -> Plan:
    """Choose the rules.

    Args:
        network: The network.
        taps: The tensors to differentiate.
        tape: A model to try rules on.

    Raises:
        InputError: A tap is no float that varies, or cannot be computed, as a size is open or an operator unknown.
    """
    known = given(network, tape)
    for tap in taps:
        integral = network.dtype(tap) is not None and not network.is_float(tap)
        if tap in network.known or integral or not any(x.rows for x in known.values()):
            raise InputError(f"Tensor '{tap}' cannot be differentiated: it is a constant, or no float.")
    steps = []
    for node in _needed(network, taps):
        step, outputs = _step(network, node, tape, known)
        known |= dict(zip((node.output(k) for k in range(node.n_outputs)), outputs, strict=False))
        steps.append(step)
    return Plan(network, tuple(taps), tuple(steps), _blocked(network, taps, steps))


def given(network: Network, tape: OnnxTape) -> dict[str, Symbol]:
    """Inputs and weights as inputs of a model.

    Raises:
        InputError: A size is open.
    """
    found = {}
    for name in network.inputs:
        shape = network.shape(name)
        if shape is None:
            raise InputError(
                f"Input '{name}' has a size besides the batch that is not fixed.",
                hint="Fix the shapes of the model first.",
            )
        kind = None if network.is_float(name) else network.dtype(name)
        found[name] = tape.input(f"input:{name}", shape, rows=network.varies_with_samples(name), dtype=kind)
    inputs: dict[str, Symbol] = {}
    for name, stored in network.weights.items():
        if stored not in inputs:
            inputs[stored] = tape.input(f"weight:{stored}", network.shape(name) or (), rows=False)
        found[name] = inputs[stored]
    return found


def _needed(network: Network, taps: Sequence[str]) -> list[View]:
    wanted, found = set(taps), []
    for node in reversed(network.nodes):
        if any(node.output(k) in wanted for k in range(node.n_outputs)):
            found.append(node)
            wanted |= {node.input(slot) for slot in range(node.n_inputs) if node.constant(slot) is None}
    return found[::-1]


def call(node: View, tape: OnnxTape, known: dict[str, Symbol], results: int, *, apart: bool = False) -> Call:
    """A node with what is known of its tensors."""
    inputs = tuple(known.get(node.input(k)) if node.constant(k) is None else None for k in range(node.n_inputs))
    return Call(node, tape, inputs, tuple(known[node.output(k)] for k in range(results)), apart)


def _step(network: Network, node: View, tape: OnnxTape, known: dict[str, Symbol]) -> tuple[Step, list[Symbol]]:
    for slot in range(node.n_inputs):
        name = node.input(slot) if node.has_input(slot) and node.constant(slot) is None else ""
        if name and (name not in known or network.shape(name) is None):
            raise InputError(f"Tensor '{name}' of node '{label(node.node)}' has no static type.", hint=_HINT)
    network.complete(node)
    for rule in rules_for(node):
        now = call(node, tape, known, 0)
        outputs = rule.forward(now)
        if outputs is None:
            continue
        for k, x in enumerate(outputs):
            if network.shape(node.output(k)) is None:
                network.note(node.output(k), x.shape)
        if all(x.shape == network.shape(node.output(k)) for k, x in enumerate(outputs)):
            slots = rule.slots(Call(node, tape, now.inputs, tuple(outputs)))
            return Step(node, rule, frozenset(slots), len(outputs)), outputs
    raise CannotRun(network, node)


_HINT = "Fix the shapes of the model, or choose outputs in front of the node."


def _blocked(network: Network, taps: Sequence[str], steps: Sequence[Step]) -> dict[str, str]:
    """Per tensor that reaches a tap: why not all its ways there can be differentiated, or an empty text."""
    found = dict.fromkeys(taps, "")
    for step in reversed(steps):
        node = step.node
        outputs = [name for name in (node.output(k) for k in range(node.n_outputs)) if name in found]
        outputs = [name for name in outputs if network.is_float(name)]
        if not outputs or op_of(node.node) in STEPWISE:
            continue
        computed = {node.output(k) for k in range(step.results)}
        reason = next((found[name] for name in outputs if found[name]), "")
        for slot in range(node.n_inputs):
            name = node.input(slot)
            if not node.has_input(slot) or node.constant(slot) is not None or not network.is_float(name):
                continue
            if slot not in step.slots or not computed.issuperset(outputs):
                found[name] = f"Node '{label(node.node)}' ({op_of(node.node)}), behind it, has no derivative."
            elif reason or name not in found:
                found[name] = found.get(name) or reason
    return found


STEPWISE = frozenset({"Ceil", "Floor", "Hardmax", "Round", "Sign"})
"""Operators whose slope is zero wherever they have one."""
