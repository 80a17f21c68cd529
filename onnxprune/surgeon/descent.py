"""Fitting the surviving weights, biases and scales to the dense network: masked stochastic descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune.surgeon.matching import Matching, Values

Mask = NDArray[np.bool_]
FIRST, SECOND, EPSILON = 0.9, 0.99, 1e-12


@dataclass
class Descent:
    """Adam (Kingma and Ba, 2015, algorithm 1) on the weights that stay, in steps relative to each tensor's size.

    Attributes:
        objective: What is made small.
        values: Parameters; changed in place of the dictionary, never in place of an array.
        masks: Per weight tensor what stays; other parameters are free.
        rate: Size of the first steps as a share of the root mean square of a tensor.
        batch: Samples of one step.
        rng: Draws the batches.
    """

    objective: Matching
    values: Values
    masks: dict[str, Mask]
    rate: float
    batch: int
    rng: np.random.Generator
    _first: Values = field(default_factory=dict)
    _second: Values = field(default_factory=dict)
    _steps: int = 0
    _queue: list[int] = field(default_factory=list)

    def mask(self, masks: Mapping[str, Mask]) -> None:
        """Set more weights to zero."""
        self.masks = dict(masks)
        for name, kept in masks.items():
            self.values[name] = np.where(kept, self.values[name], 0).astype(self.values[name].dtype)

    def step(self, share: float) -> float:
        """One step on the next batch; the objective before it.

        Args:
            share: Of the first step's size.
        """
        loss, gradients = self.objective.gradient(self.values, self._next())
        self._steps += 1
        for name, gradient in gradients.items():
            kept = self.masks.get(name)
            slope = gradient if kept is None else np.where(kept, gradient, 0)
            first = self._first.get(name, np.zeros_like(slope))
            second = self._second.get(name, np.zeros_like(slope))
            self._first[name] = first = FIRST * first + (1 - FIRST) * slope
            self._second[name] = second = SECOND * second + (1 - SECOND) * slope * slope
            pace = share * self.rate * self._size(name) / (1 - FIRST**self._steps)
            move = pace * first / (np.sqrt(second / (1 - SECOND**self._steps)) + EPSILON)
            changed = (self.values[name] - move).astype(self.values[name].dtype)
            self.values[name] = changed if kept is None else np.where(kept, changed, 0).astype(changed.dtype)
        return loss

    def _next(self) -> NDArray[np.int64]:
        count = len(self.objective.data)
        if len(self._queue) < min(self.batch, count):
            self._queue += [int(i) for i in self.rng.permutation(count)]
        taken, self._queue = self._queue[: self.batch], self._queue[self.batch :]
        return np.array(taken)

    def _size(self, name: str) -> float:
        """Root mean square of what the dense network has in this tensor."""
        dense = self.objective.dense[name]
        return float(np.sqrt((dense.astype(np.float64) ** 2).mean())) or 1.0


def cosine(step: int, steps: int) -> float:
    """Share of the first step's size: half a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))


def descend(descent: Descent, steps: int, stopped: Callable[[], bool]) -> None:
    """Steps that shrink to nothing."""
    for step in range(steps):
        if stopped():
            return
        descent.step(cosine(step, steps))
