"""Pruning in stages: a little more goes each time, and what stays is fitted to the dense network in between."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.surgeon.descent import Descent, cosine, first_rate
from onnxprune.surgeon.matching import Matching, Values

Masks = Mapping[str, NDArray[np.bool_]]
STAGES = (6, 12)
"""Stages at least, and as many as there are where a tenth of the network is left."""
STAGING = 0.6
"""Share of the steps after which nothing more is pruned."""
TRIAL = 3
"""Steps that are made before others are timed."""


@dataclass(frozen=True)
class Effort:
    """How long to work.

    Attributes:
        stages: How often something is pruned.
        steps: Steps of descent, over all stages.
        seconds: Fewer stages and steps are made where these would take longer.
        batch: Samples of one step.
        stopped: Asked before every step; the last finished stage is the result then.
        progress: Called with a line of text.
        seed: Of batches and probes.
    """

    stages: int
    steps: int
    seconds: float
    batch: int
    stopped: Callable[[], bool]
    progress: Callable[[str], None]
    seed: int


@dataclass
class Pruned:
    """Parameters after the last finished stage.

    Attributes:
        values: All parameters.
        masks: Which weights stay.
        share: How far on the way it is: 1 unless it was stopped.
        steps: Steps made.
        seconds: What is left of the time.
        history: Objective on the samples fitted, a mean for every stage.
    """

    values: Values
    masks: dict[str, NDArray[np.bool_]]
    share: float
    steps: int = 0
    seconds: float = 0.0
    history: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Choice:
    """What stays, and new values for the parameters that are known to do better with it."""

    masks: Masks
    values: Mapping[str, NDArray[Any]] = field(default_factory=dict)


Choose = Callable[[float, Values, Masks], Choice]
"""Decides at a share of the way, given the parameters and what stayed before."""


def share_of(stage: int, stages: int) -> float:
    """Share of the way after a stage: large steps first, while much is left, and ever smaller ones."""
    return 1.0 - (1 - stage / stages) ** 4


def stages_for(left: float) -> int:
    """How many stages: as many more as less is left in the end.

    Args:
        left: Share of the network.
    """
    least, tenth = STAGES
    return int(np.clip(math.ceil(-tenth * math.log10(left)), least, tenth))


def operate(objective: Matching, choose: Choose, effort: Effort) -> Pruned:
    """Prune in stages.

    Args:
        objective: What the pruned network should match.
        choose: Selects what stays.
        effort: How long to work.
    """
    clock = _Clock(effort)
    rate, rng = first_rate(objective, effort.seed), np.random.default_rng(effort.seed)
    descent = Descent(objective, dict(objective.dense), {}, rate, effort.batch, rng)
    best = Pruned(dict(objective.dense), {}, 0.0)
    stage, stages = 0, effort.stages
    while stage < stages:
        if effort.stopped():
            return best
        stage += 1
        effort.progress(f"stage {stage} of {stages}: choosing what goes")
        begin = time.perf_counter()
        choice = choose(share_of(stage, stages), descent.values, descent.masks)
        descent.values.update(choice.values)
        descent.mask(choice.masks)
        clock.chosen(time.perf_counter() - begin, stages - stage)
        if stage == 1:
            stages = clock.stages
        losses: list[float] = []
        while clock.done < clock.steps * (STAGING * stage / stages if stage < stages else 1):
            if effort.stopped():
                return best
            losses.append(clock.step(descent))
            if clock.done % 10 == 0:
                effort.progress(
                    f"stage {stage} of {stages}: step {clock.done} of {clock.steps}, mismatch {losses[-1]:.3g}"
                )
        history = [*best.history, *([float(np.mean(losses))] if losses else [])]
        best = Pruned(
            dict(descent.values), dict(descent.masks), share_of(stage, stages), clock.done, clock.left, history
        )
    return best


class _Clock:
    """Counts steps and seconds, and makes fewer stages and steps where they would take too long."""

    def __init__(self, effort: Effort) -> None:
        self.done, self.steps, self.stages = 0, effort.steps, effort.stages
        self._most = effort.steps
        self._seconds, self._begin, self._stepping, self._choosing = effort.seconds, time.perf_counter(), 0.0, 0.0

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self._seconds - (time.perf_counter() - self._begin)

    def chosen(self, seconds: float, coming: int) -> None:
        """Note how long a choice took; at first, choose how many there will be: half the time is theirs at most."""
        if coming == self.stages - 1:
            self.stages = int(np.clip(0.5 * self._seconds / max(seconds, 1e-9), 2, self.stages))
            coming = self.stages - 1
        self._choosing = coming * seconds

    def step(self, descent: Descent) -> float:
        """One step of descent, a few more than can be afforded at most."""
        begin = time.perf_counter()
        loss = descent.step(cosine(self.done, self.steps))
        self.done += 1
        if self.done > TRIAL:
            self._stepping += time.perf_counter() - begin
            pace = self._stepping / (self.done - TRIAL)
            affordable = self.done + int(max(self.left - self._choosing, 0.0) / max(pace, 1e-9))
            self.steps = max(self.done, min(self._most, affordable))
        return loss
