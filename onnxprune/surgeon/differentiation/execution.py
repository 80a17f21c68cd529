"""Running the models: one session per purpose, many samples in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import InputError
from onnxprune.operators.onnx_tape import OnnxTape, Symbol
from onnxprune.runtime import Runner
from onnxprune.surgeon.differentiation.blocked_layout import with_blocked_convolutions
from onnxprune.surgeon.differentiation.channel_blocks import channel_block
from onnxprune.surgeon.differentiation.plan import Plan
from onnxprune.surgeon.differentiation.program import Program

Arrays = Mapping[str, NDArray[Any]]
Build = Callable[[Program], dict[str, Symbol]]
CPU = "CPUExecutionProvider"
HELD = 1 << 28
"""Entries of tensors that one run may hold."""
QUICK = 1 << 26
"""Entries up to which larger runs are quicker: beyond it, and beyond a few samples, caches are of less use."""
FEW = 32


@dataclass(frozen=True)
class Session:
    """A model ready to run.

    Attributes:
        runner: Runs it.
        inputs: Its inputs and their element types.
        outputs: Names of its results, and whether they have rows.
        chunk: Samples of one run.
    """

    runner: Runner
    inputs: dict[str, tuple[Symbol, np.dtype[Any]]]
    outputs: dict[str, bool]
    chunk: int


class Execution:
    """Runs models made from a plan.

    Args:
        plan: What is computed and differentiated.
        defaults: Weights that are not given.
        provider: Full name of the execution provider.
        threads: Intra-operator threads.
        dtype: Element type.
    """

    def __init__(self, plan: Plan, defaults: Arrays, provider: str, threads: int, dtype: np.dtype[Any]) -> None:
        self.plan = plan
        self._defaults = defaults
        self._provider = provider
        self._threads = threads
        self._dtype = dtype
        self._sessions: dict[Hashable, Session] = {}

    def run(
        self, key: Hashable, build: Build, feeds: Arrays, values: Arrays | None, given: Arrays, *, apart: bool = False
    ) -> dict[str, NDArray[Any]]:
        """Results of a model: those with rows for all samples, others summed over pieces.

        Args:
            key: What the model is for; ``build`` is called once for each.
            build: Says what it computes.
            feeds: Inputs of the graph.
            values: Weights.
            given: Further inputs of the model, by their full names.
            apart: As for :class:`Program`.
        """
        if key not in self._sessions:
            self._sessions[key] = self._session(build, apart=apart)
        session = self._sessions[key]
        arrays = self._inputs(session, feeds, values or {}, given)
        parts = list(_pieces(session, arrays))
        return {
            name: _joined([part[name] for part in parts], rows=rows, dtype=self._dtype)
            for name, rows in session.outputs.items()
        }

    def _session(self, build: Build, *, apart: bool) -> Session:
        tape = OnnxTape(self._dtype, opset=self.plan.network.graph.opset)
        outputs = build(Program(self.plan, tape, apart=apart))
        names = {f"result:{number}": x for number, x in enumerate(outputs.values())}
        model = tape.finish(names)
        block = channel_block() if self._provider == CPU and self._dtype == np.float32 else None
        model = model if block is None else with_blocked_convolutions(model, block)
        runner = Runner(model, provider=self._provider, optimize=True, threads=self._threads)
        kinds = {name: x.rows for name, x in outputs.items()}
        return Session(runner, tape.inputs, kinds, self._chunk(outputs, apart=apart))

    def _chunk(self, outputs: Mapping[str, Symbol], *, apart: bool) -> int:
        network = self.plan.network
        names = [step.node.output(k) for step in self.plan.steps for k in range(step.results)]
        entries = 2 * sum(prod(network.shape(name) or ()) for name in names)
        entries += 3 * sum(prod(x.shape) for x in outputs.values()) if apart else 0
        entries = max(1, entries)
        return max(1, min(HELD // entries, max(FEW, QUICK // entries)))

    def _inputs(self, session: Session, feeds: Arrays, values: Arrays, given: Arrays) -> dict[str, NDArray[Any]]:
        named = {f"weight:{name}": array for name, array in self._defaults.items()}
        named |= {f"input:{name}": array for name, array in feeds.items()}
        named |= {f"weight:{name}": array for name, array in values.items()} | dict(given)
        found = {}
        for name, (symbol, dtype) in session.inputs.items():
            if name not in named:
                raise InputError(f"No values for {_spoken(name)}.", hint="Give an array for it.")
            array = np.asarray(named[name], dtype)
            sizes = symbol.stored
            if array.ndim != len(sizes) or any(b not in (-1, a) for a, b in zip(array.shape, sizes, strict=True)):
                wanted = ", ".join("samples" if size < 0 else str(size) for size in sizes)
                raise InputError(f"Values for {_spoken(name)} have shape {array.shape}, not ({wanted}).")
            found[name] = array
        lengths = {name: len(found[name]) for name, (x, _) in session.inputs.items() if x.rows}
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            counts = ", ".join(f"{_spoken(name)}: {count}" for name, count in lengths.items())
            raise InputError(f"Numbers of samples differ or are zero ({counts}).")
        return found


def _spoken(name: str) -> str:
    kind, _, rest = name.partition(":")
    return f"{kind} '{rest}'"


def _pieces(session: Session, arrays: Mapping[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
    rows = {name for name, (x, _) in session.inputs.items() if x.rows}
    count = len(arrays[next(iter(rows))]) if rows else 1
    for start in range(0, count, session.chunk):
        part = {name: array[start : start + session.chunk] if name in rows else array for name, array in arrays.items()}
        yield dict(zip(session.outputs, session.runner.run(part), strict=True))


def _joined(parts: list[NDArray[Any]], *, rows: bool, dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    if rows:
        return np.concatenate(parts)
    return np.sum(np.stack(parts), axis=0, dtype=np.float64).astype(dtype)
