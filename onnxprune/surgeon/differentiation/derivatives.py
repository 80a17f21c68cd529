"""Gradients and directional derivatives of tensors of a graph in its weights, as ONNX models run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from onnxprune.errors import InputError
from onnxprune.graph.graph import Graph
from onnxprune.operators.onnx_tape import OnnxTape, Symbol
from onnxprune.surgeon.differentiation.execution import Arrays, Execution
from onnxprune.surgeon.differentiation.independence import check_independence
from onnxprune.surgeon.differentiation.network import Network
from onnxprune.surgeon.differentiation.plan import CannotRun, Plan, plan
from onnxprune.surgeon.differentiation.program import Program
from onnxprune.surgeon.differentiation.term import Term


class Derivatives:
    """Differentiates tensors ("taps") of a graph with respect to some of its initializers.

    Every sample is run by itself: a graph whose batch size is open or 1 takes any number of samples. Arrays of
    samples have a leading axis for them, in place of a batch axis of length 1 where the tensor has one. Values of
    weights are inputs of all models, so they may change from call to call; those that are not given are the graph's.

    Args:
        graph: The graph, as read from a file; not changed.
        weights: Names of initializers. One that several nodes share counts once.
        taps: Names of float tensors.
        provider: Full name of the execution provider.
        threads: Intra-operator threads (0: ONNX Runtime's default).
        dtype: Element type. ONNX Runtime's CPU provider has convolutions and some activations in float32 only.

    Attributes:
        weights: Names of the weights that can be differentiated, in the order given.
        refused: The others, each with a sentence why: no tap depends on it, or some tap does so through an operator
            without a derivative.

    Raises:
        InputError: A tensor is unknown, a size besides the batch is open, a tap cannot be computed sample by sample,
            or it mixes the samples of a batch.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Sequence[str],
        taps: Sequence[str],
        *,
        provider: str = "CPUExecutionProvider",
        threads: int = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.taps: tuple[str, ...] = tuple(taps)
        self._dtype = np.dtype(dtype)
        constants = {graph.stored_name(name): constant for name, constant in graph.constants().items()}
        _check_names(graph, [name for name in weights if name not in constants], taps)
        self.refused: dict[str, str] = {
            name: "It holds no floats." for name in weights if constants[name].dtype.kind not in "fV"
        }
        self._plan = self._planned(graph, dict.fromkeys(weights))
        self.weights: tuple[str, ...] = tuple(name for name in dict.fromkeys(weights) if name not in self.refused)
        defaults = {name: np.asarray(constants[name].values) for name in self.weights}
        self._execution = Execution(self._plan, defaults, provider, threads, self._dtype)
        check_independence(self._plan.network, self.taps, self.forward)

    def _planned(self, graph: Graph, wanted: Iterable[str]) -> Plan:
        """The plan for the weights that can be differentiated; the others are refused one after the other."""
        while True:
            weights = {name for name in wanted if name not in self.refused}
            try:
                found = plan(Network(graph, weights), self.taps, OnnxTape(self._dtype, opset=graph.opset))
            except CannotRun as error:
                if not error.weights:
                    raise
                self.refused |= error.weights
                continue
            reasons = {name: reason for name in wanted if name in weights and (reason := found.refusal(name))}
            if not reasons:
                return found
            first = {name: reason for name, reason in reasons.items() if name in found.misread}
            self.refused |= first or reasons

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the weights."""
        network = self._plan.network
        return {stored: network.shape(name) or () for name, stored in network.weights.items()}

    def forward(self, feeds: Arrays, values: Arrays | None = None, at: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
        """Values of the taps.

        Args:
            feeds: Inputs of the graph, with a leading axis of samples.
            values: Weights.
            at: Further tensors that the taps depend on, whose values are wanted, too.

        Returns:
            Per tensor, with a leading axis of samples.
        """
        names = tuple(dict.fromkeys([*self.taps, *at]))
        self._check_at(at)

        def build(program: Program) -> dict[str, Symbol]:
            return {name: program.value(name) for name in names}

        return self._execution.run(("forward", names), build, feeds, values, {})

    def pull(self, feeds: Arrays, values: Arrays | None, cotangents: Arrays) -> dict[str, NDArray[Any]]:
        """Vector-Jacobian product: gradient in every weight of the sum over samples of <cotangent, tap>.

        Args:
            feeds: Inputs of the graph.
            values: Weights.
            cotangents: By tap (missing: zero), shaped as :meth:`forward` returns them.

        Returns:
            Per weight, in its shape.
        """
        taps = self._seeded(cotangents)

        def build(program: Program) -> dict[str, Symbol]:
            return self._gradients(program, self._seeds(program, taps))

        return self._execution.run(("pull", taps), build, feeds, values, _prefixed("cotangent", cotangents, taps))

    def cotangents(
        self, feeds: Arrays, values: Arrays | None, cotangents: Arrays, at: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """Gradient of <cotangent, tap> in intermediate tensors, for each sample by itself.

        Args:
            feeds: Inputs of the graph.
            values: Weights.
            cotangents: By tap (missing: zero).
            at: Tensors that the taps depend on, such as pre-activations, or inputs of the graph.

        Returns:
            Per tensor of ``at``, with a leading axis of samples.

        Raises:
            InputError: No tap depends on a tensor, or one does so through an operator without a derivative.
        """
        taps, at = self._seeded(cotangents), tuple(at)
        self._check_at(at, differentiated=True)

        def build(program: Program) -> dict[str, Symbol]:
            found = program.pull(self._seeds(program, taps), at)
            return {name: _or_zero(program, found, name) for name in at}

        seeds = _prefixed("cotangent", cotangents, taps)
        return self._execution.run(("cotangents", taps, at), build, feeds, values, seeds)

    def push(self, feeds: Arrays, values: Arrays | None, tangents: Arrays) -> dict[str, NDArray[Any]]:
        """Jacobian-vector product: derivative of the taps for a change of the weights.

        Args:
            feeds: Inputs of the graph.
            values: Weights.
            tangents: Changes of weights (missing: none), one for all samples.

        Returns:
            Per tap, with a leading axis of samples.
        """
        moved = self._moved(tangents)

        def build(program: Program) -> dict[str, Symbol]:
            found = self._tangents(program, moved)
            return {tap: _or_zero(program, found, tap) for tap in self.taps}

        return self._execution.run(("push", moved), build, feeds, values, _prefixed("tangent", tangents, moved))

    def squared_loss(
        self, feeds: Arrays, values: Arrays | None, targets: Arrays, scales: Mapping[str, float]
    ) -> tuple[float, dict[str, NDArray[Any]]]:
        """Weighted squared distance of the taps from targets, and its gradient, in one run.

        Args:
            feeds: Inputs of the graph.
            values: Weights.
            targets: By tap (missing: the tap does not count), shaped as :meth:`forward` returns them.
            scales: By tap.

        Returns:
            ``1/2 sum over samples and taps of scale ||tap - target||^2`` and its gradient per weight.
        """
        taps = self._seeded(targets)
        _check_known(taps, scales, "tap with a scale")

        def build(program: Program) -> dict[str, Symbol]:
            tape, seeds, losses = program.tape, {}, {}
            for tap in taps:
                value = program.value(tap)
                error = Term(tape, value) - Term(tape, tape.input(f"target:{tap}", value.shape))
                scale = Term(tape, tape.input(f"scale:{tap}", (), rows=False))
                seeds[tap] = (error * scale).symbol
                losses[f"loss:{tap}"] = (error * error).total(range(len(value.shape))).symbol
            return losses | self._gradients(program, seeds)

        given = _prefixed("target", targets, taps) | {
            f"scale:{tap}": np.array(scales[tap], self._dtype) for tap in taps
        }
        found = self._execution.run(("loss", taps), build, feeds, values, given)
        loss = sum(0.5 * scales[tap] * float(found.pop(f"loss:{tap}").sum(dtype=np.float64)) for tap in taps)
        return float(loss), found

    def curvature(
        self, feeds: Arrays, values: Arrays | None, tangents: Arrays, scales: Mapping[str, float]
    ) -> dict[str, NDArray[Any]]:
        """Gauss-Newton product ``J' S J d`` in one run: :meth:`push`, scaled by tap, then :meth:`pull`.

        Args:
            feeds: Inputs of the graph.
            values: Weights.
            tangents: Changes ``d`` of weights (missing: none).
            scales: By tap (missing: 0), the diagonal of ``S``.

        Returns:
            Per weight.
        """
        moved, taps = self._moved(tangents), tuple(tap for tap in self.taps if tap in scales)

        def build(program: Program) -> dict[str, Symbol]:
            found, seeds = self._tangents(program, moved), {}
            for tap in taps:
                scale = Term(program.tape, program.tape.input(f"scale:{tap}", (), rows=False))
                if tap in found:
                    seeds[tap] = (Term(program.tape, _or_zero(program, found, tap)) * scale).symbol
            return self._gradients(program, seeds)

        given = _prefixed("tangent", tangents, moved) | {f"scale:{t}": np.array(scales[t], self._dtype) for t in taps}
        return self._execution.run(("curvature", moved, taps), build, feeds, values, given)

    def per_sample(self, feeds: Arrays, values: Arrays | None, cotangents: Arrays) -> dict[str, NDArray[Any]]:
        """Gradient of <cotangent, tap> in every weight, for each sample by itself: the empirical Fisher's factor.

        Args:
            feeds: Inputs of the graph.
            values: Weights.
            cotangents: By tap (missing: zero).

        Returns:
            Per weight, with a leading axis of samples.
        """
        taps = self._seeded(cotangents)

        def build(program: Program) -> dict[str, Symbol]:
            return self._gradients(program, self._seeds(program, taps))

        seeds = _prefixed("cotangent", cotangents, taps)
        found = self._execution.run(("per_sample", taps), build, feeds, values, seeds, apart=True)
        return {name: rows.reshape(len(rows), *self.shapes[name]) for name, rows in found.items()}

    def _seeded(self, arrays: Arrays) -> tuple[str, ...]:
        """The taps with a cotangent or a target."""
        _check_known(arrays, self.taps, "tap")
        return tuple(tap for tap in self.taps if tap in arrays)

    def _moved(self, tangents: Arrays) -> tuple[str, ...]:
        _check_known(tangents, self.weights, "weight that can be differentiated")
        return tuple(name for name in self.weights if name in tangents)

    def _check_at(self, at: Sequence[str], *, differentiated: bool = False) -> None:
        for name in at:
            reason = self._plan.refusal(name) if differentiated else ""
            if name not in self._plan.tensors or reason:
                raise InputError(f"Tensor '{name}' cannot be read here. {reason or 'No tap depends on it.'}")

    def _seeds(self, program: Program, taps: Sequence[str]) -> dict[str, Symbol]:
        return {tap: program.tape.input(f"cotangent:{tap}", program.value(tap).shape) for tap in taps}

    def _gradients(self, program: Program, seeds: Mapping[str, Symbol]) -> dict[str, Symbol]:
        """Per weight, the sum over its readers; zero where no tap with a cotangent depends on it."""
        names, tape = self._plan.network.weights, program.tape
        found: dict[str, Symbol] = {}
        for name, c in program.pull(seeds, names).items():
            stored = names[name]
            found[stored] = tape.add(found[stored], c) if stored in found else c
        shapes = self.shapes
        zero = {name: tape.constant(np.zeros(shapes[name])) for name in self.weights if name not in found}
        zero = {name: program.for_all(x) for name, x in zero.items()} if program.apart else zero
        return {name: found[name] if name in found else zero[name] for name in self.weights}

    def _tangents(self, program: Program, moved: Sequence[str]) -> dict[str, Symbol]:
        names, shapes = self._plan.network.weights, self.shapes
        inputs = {name: program.tape.input(f"tangent:{name}", shapes[name], rows=False) for name in moved}
        return program.push({name: inputs[stored] for name, stored in names.items() if stored in inputs})


def _or_zero(program: Program, found: Mapping[str, Symbol], tensor: str) -> Symbol:
    """A derivative for every sample."""
    known = found.get(tensor)
    return program.for_all(program.tape.constant(np.zeros(program.known[tensor].shape)) if known is None else known)


def _prefixed(kind: str, arrays: Arrays, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    return {f"{kind}:{name}": arrays[name] for name in names}


def _check_names(graph: Graph, unknown: Sequence[str], taps: Sequence[str]) -> None:
    for name in unknown:
        raise InputError(
            f"The graph has no initializer '{name}'.", hint="Name one that a node of the main graph reads."
        )
    computed = {value.name for value in graph.inputs} | {t.name for node in graph.nodes for t in node.outputs}
    for name in taps:
        if name not in computed:
            raise InputError(f"The graph has no tensor '{name}'.", hint="Name the output of a node.")


def _check_known(given: Collection[str], known: Collection[str], kind: str) -> None:
    for name in given:
        if name not in known:
            raise InputError(f"'{name}' is no {kind}.", hint=f"Known: {', '.join(known)}.")
