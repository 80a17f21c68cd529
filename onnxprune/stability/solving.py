"""What a worker process does: bounds and proofs of a few units of one block."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from onnxprune.bounds.blocks import Blocks
from onnxprune.mip import LayerLP, Opinion, UnitMILP, Verdict, branch, confirm
from onnxprune.operators.interval import Array

Kind = Literal["relax", "branch", "exact"]
Pair = tuple[int, int]
"""Unit of a block, and 1 or -1."""


@dataclass(frozen=True)
class Task:
    """Some questions about one block.

    Attributes:
        token: Equal for tasks that may share one model.
        blocks: The network.
        index: The block.
        pairs: What is asked.
        solver: Name of the solver.
        seconds: Time limit per pair.
        left: Time limit for all pairs together; those that get none are not answered.
        window: As for the models; None for all blocks before.
        kind: "relax": linear programmes; "branch": trees of them; "exact": programmes with binaries.
        check: Ask a second solver to confirm proofs.
    """

    token: str
    blocks: Blocks
    index: int
    pairs: Sequence[Pair]
    solver: str
    seconds: float
    left: float
    window: int | None = None
    kind: Kind = "relax"
    check: bool = False


@dataclass(frozen=True)
class Found:
    """What came of one pair.

    Attributes:
        pair: The pair.
        bound: ``sign * g <= bound``; inf where nothing is proved.
        trust: "certified" or "solver".
        points: Inputs worth running, shape (points, inputs).
        final: Whether asking again with more time is of no use.
        note: A sentence for the user.
    """

    pair: Pair
    bound: float
    trust: str
    points: Array
    final: bool
    note: str = ""


_models: dict[str, LayerLP | UnitMILP] = {}


def solve(task: Task) -> list[Found]:
    """Answer a task, as far as time allows; the model is kept for the next task with the same token."""
    began = time.perf_counter()
    model = _models.get(task.token)
    if model is None:
        _models.clear()
        kind = UnitMILP if task.kind == "exact" else LayerLP
        model = _models[task.token] = kind(task.blocks, task.index, task.solver, task.window)
    results = []
    for pair in task.pairs:
        seconds = min(task.seconds, began + task.left - time.perf_counter())
        if seconds <= 0:
            break
        if not isinstance(model, LayerLP):
            results.append(_proved(model, task, pair, seconds))
        elif task.kind == "branch":
            results.append(_branched(model, task, pair, seconds))
        else:
            found = model.bound(*pair, seconds)
            results.append(Found(pair, found.bound, "certified", _rows(found.point, task), found.optimal))
            if not found.optimal:
                break
    return results


def _branched(model: LayerLP, task: Task, pair: Pair, seconds: float) -> Found:
    unit, sign = pair
    found = branch(model, unit, sign, seconds, refuted=lambda point: _value(task, unit, sign, point) > 0)
    return Found(pair, found.bound, "certified", found.points, found.finished)


def _value(task: Task, unit: int, sign: int, point: Array) -> float:
    """The pre-activation at a point, as good as float64 has it; the caller runs the real network."""
    columns = point
    for block in task.blocks.blocks[: task.index]:
        if not block.exact:
            return -math.inf
        columns = np.concatenate([columns, np.maximum(block.weights @ columns + block.bias, 0.0)])
    row = task.blocks.blocks[task.index]
    return float(sign * ((row.weights[[unit], :] @ columns)[0] + row.bias[unit]))


def _proved(model: UnitMILP, task: Task, pair: Pair, seconds: float) -> Found:
    unit, sign = pair
    answer = model.prove(unit, sign, seconds)
    if answer.verdict is not Verdict.PROVED:
        point = answer.point
        if point is not None and task.window is None:
            better = model.refute(unit, sign, seconds)
            point = point if better.point is None else better.point
        return Found(pair, math.inf, "solver", _rows(point, task), answer.feasible)
    if task.check:
        second = confirm(
            task.blocks, task.index, unit, sign, first=task.solver, window=task.window, seconds=4 * seconds
        )
        if second.opinion is not Opinion.AGREED:
            name = f"unit {unit} of {task.blocks.blocks[task.index].name}"
            note = f"{second.solver} did not confirm the proof of {name} ({second.opinion.value}): it is not used."
            points = _rows(second.point, task)
            return Found(pair, math.inf, "solver", points, second.opinion is Opinion.DISAGREED, note)
    return Found(pair, 0.0, "solver", _rows(None, task), True)


def _rows(point: Array | None, task: Task) -> Array:
    return np.zeros((0, len(task.blocks.low))) if point is None else point[None]
