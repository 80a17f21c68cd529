"""Fitting the surviving weights, biases and scales to the dense network: masked stochastic descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.surgeon.matching import Matching, Values

Mask = NDArray[np.bool_]
FIRST, SECOND, EPSILON = 0.9, 0.99, 1e-12
MOVED = 0.002
"""By how much the objective grows when every weight of the dense network makes a first step of random sign."""
TRIED, DRAWS, PROBED = 0.01, 3, 128
"""Relative step, draws and samples by which that is measured."""
RATES = (0.0005, 0.2)


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
            pace = share * self.rate * _size(self.objective.dense[name]) / (1 - FIRST**self._steps)
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


def first_rate(objective: Matching, seed: int) -> float:
    """Size of the first steps, relative to each tensor's root mean square, that suits a network.

    The objective is quadratic around the dense network, where it is zero: one step of random signs, as large as the
    first one of Adam, tells how sensitive the network is, and so how large a step moves it by :data:`MOVED`. Networks
    of many layers take smaller steps than those of few.
    """
    rng = np.random.default_rng([seed, 1])
    part = objective.data.take(slice(0, PROBED))
    found = []
    for _ in range(DRAWS):
        values = {name: _shaken(dense, rng) for name, dense in objective.dense.items()}
        found.append(objective.loss(values, part))
    growth = float(np.mean(found)) / TRIED**2
    return float(np.clip(math.sqrt(MOVED / growth), *RATES)) if 0 < growth < math.inf else TRIED


def _shaken(dense: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    signs = rng.integers(0, 2, dense.shape) * 2 - 1
    return np.asarray((dense + TRIED * _size(dense) * signs).astype(dense.dtype))


def _size(dense: NDArray[Any]) -> float:
    """Root mean square of what the dense network has in a tensor."""
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
