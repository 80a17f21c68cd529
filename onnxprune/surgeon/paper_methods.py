"""Published one-shot methods on a graph: magnitude, the Combinatorial Brain Surgeon (CBS), and CHITA.

They prune all weights at once, at the dense network, and change nothing else: biases and scales stay. CBS (Yu, Serra,
Ramalingam and Zhe, ICML 2022) and CHITA (Benbaki et al., ICML 2023) see the loss through the empirical Fisher matrix
``G'G / n + ridge I``, G the per-sample gradients (n x N). The loss is the cross entropy of the labels where the data
have labels, that of the dense network's most likely classes where the task is to classify, and else the squared error
of the outputs (:mod:`onnxprune.surgeon.sample_loss`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import InputError
from onnxprune.graph.graph import Graph
from onnxprune.surgeon.calibration import Calibration
from onnxprune.surgeon.differentiation import Derivatives
from onnxprune.surgeon.fisher_samples import MOST_BYTES, Flattened, Losses, mean_square, most_samples
from onnxprune.surgeon.matching import Values
from onnxprune.surgeon.options import PruneOptions
from onnxprune.surgeon.reach import reachable
from onnxprune.surgeon.sample_loss import CrossEntropy, SquaredError, Tensors
from onnxprune.surgeon.selection import cbs_select, cbs_update, chita, removal_count, without_smallest
from onnxprune.surgeon.selection.arrays import Array, Mask
from onnxprune.surgeon.selection.fisher_blocks import ProvedBlock, prove_blocks
from onnxprune.surgeon.targets import Parameters

SELECTING = (1e-2, 1.0, 1e2)
"""Ridges of CBS-S, relative to the mean of the Fisher matrix's diagonal. The held-out samples choose."""
UPDATING = (1e-2, 1e-1, 1.0, 1e1)
"""Ridges of CBS-U, likewise."""
THRESHOLDING = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridges of CHITA, likewise."""
ROUND_WORK = 4e9
"""Multiply-adds of the loss after a round of CBS-S; fewer samples are taken where all would need more."""
FEWEST = 64
"""Samples of that loss at least."""
SPREAD = 500
"""Samples that tell the variance of the outputs."""


@dataclass(frozen=True)
class Candidate:
    """Weights of the whole network after selection and update.

    Attributes:
        vector: Shape (N,), the weights.
        mask: Shape (N,), True where kept.
        ridge: Of the Fisher matrix by which they were selected.
    """

    vector: Array
    mask: Mask
    ridge: float


@dataclass(frozen=True)
class Published:
    """What a method arrived at.

    Attributes:
        found: What could be pruned.
        values: Its weights, by name.
        masks: Which of them stay; empty where it was stopped before anything was found.
        mismatch: Half the squared error of the outputs on the held-out samples, in units of their variance.
        notes: Sentences for the user.
        blocks: Blocks of CBS's selection that were proved.
    """

    found: Parameters
    values: Values
    masks: dict[str, NDArray[np.bool_]]
    mismatch: float
    notes: list[str]
    blocks: list[ProvedBlock]


def published(
    graph: Graph,
    found: Parameters,
    fit: Calibration,
    held: Calibration,
    options: PruneOptions,
    provider: str,
) -> Published:
    """Prune by ``options.method`` to ``options.sparsity``.

    Args:
        graph: The tidied graph.
        found: What can be pruned, if the outputs can be differentiated in it.
        fit: Samples whose gradients are taken.
        held: Samples that choose the ridge.
        options: Method, sparsity, seed.
        provider: Execution provider.

    Raises:
        InputError: Nothing can be pruned, or the labels do not fit the outputs.
    """
    names = [target.name for target in found.targets]
    derivatives = Derivatives(graph, names, found.outputs, provider=provider, threads=options.threads)
    found = reachable(found, derivatives.refused)
    if not found.targets:
        reason = next(iter(found.refused.values()), "It has no Conv, Gemm or MatMul.")
        raise InputError("The model has no weights that can be pruned.", hint=reason)
    constants = graph.constants()
    dense = {target.name: np.asarray(constants[target.name].values) for target in found.targets}
    flattened = Flattened({target.name: target.shape for target in found.targets})
    weights = flattened.joined(dense)
    count = removal_count(len(weights), options.sparsity or 0.0)
    few = derivatives.forward(fit.take(slice(0, SPREAD)).inputs, dense)
    squared = Losses(derivatives, SquaredError.of(few, options.seed), dense)
    notes: list[str] = []
    blocks: list[ProvedBlock] = []
    answer: Candidate | None
    if options.method == "magnitude":
        mask = without_smallest(np.abs(weights), count)
        answer = Candidate(np.where(mask, weights, 0.0), mask, 0.0)
    else:
        losses = squared
        if fit.labels is not None or options.classify:
            losses = Losses(derivatives, CrossEntropy(found.outputs[0]), dense)
        notes.append(_said(options, labelled=fit.labels is not None))
        search = _Search(losses, found, flattened, weights, count, fit, held, options, notes)
        answer = search.best()
        if answer is not None:
            blocks = search.blocks(answer)
    values, masks = dense, {}
    if answer is not None:
        values, masks = flattened.cast(answer.vector, dense), flattened.apart(answer.mask)
    return Published(found, values, masks, squared.mean(held, values, squared.wanted(held)), notes, blocks)


def _said(options: PruneOptions, *, labelled: bool) -> str:
    if labelled:
        return f"The labels were used: method {options.method} takes gradients of their cross entropy."
    what = "cross entropy of the most likely classes" if options.classify else "squared error of the outputs"
    return f"Without labels, method {options.method} takes gradients of the {what}."


class _Search:
    """Candidates for a range of ridges, and the choice among them."""

    def __init__(
        self,
        losses: Losses,
        found: Parameters,
        flattened: Flattened,
        weights: Array,
        count: int,
        fit: Calibration,
        held: Calibration,
        options: PruneOptions,
        notes: list[str],
    ) -> None:
        self.losses, self.flattened, self.weights, self.count = losses, flattened, weights, count
        self.options = options
        room = most_samples(len(weights))
        if room < len(fit):
            notes.append(f"{room:,} samples are used: the gradients of more exceed {MOST_BYTES >> 30} GiB.")
        self.fit, self.held = fit.take(slice(0, room)), held
        rows, size = len(self.fit), len(weights)
        options.progress(f"per-sample gradients: {rows:,} samples, {size:,} weights, {4e-6 * rows * size:,.0f} MB")
        self.gradients = losses.gradients(self.fit, flattened)
        self.unit = mean_square(self.gradients) or 1.0
        self.wanted = losses.wanted(held)
        work = max(1, sum(target.size * target.uses for target in found.targets))
        self.probe = self.fit.take(slice(0, max(FEWEST, int(ROUND_WORK / work))))
        self.probe_wanted = losses.wanted(self.probe)

    def best(self) -> Candidate | None:
        """The one with the least loss on the held-out samples."""
        best, least = None, np.inf
        for candidate in self._cbs() if self.options.method == "cbs" else self._chita():
            loss = self._loss(self.held, candidate.vector, self.wanted)
            if best is None or loss < least:
                best, least = candidate, loss
        return best

    def blocks(self, best: Candidate) -> list[ProvedBlock]:
        """Blocks of the selection, chosen anew by MILP; as many as were asked for."""
        asked, found = self.options.blocks, list[ProvedBlock]()
        choices = prove_blocks(self.weights, self.gradients, best.mask, asked, ridge=best.ridge, seed=self.options.seed)
        for block in choices:
            found.append(block)
            self.options.progress(f"CBS: block {len(found)} of {asked} proved")
            if self.options.stopped():
                break
        return found

    def _cbs(self) -> Iterator[Candidate]:
        """CBS-S for every ridge, from magnitude and randomised magnitude, each with every ridge of CBS-U."""
        for number, ridge in enumerate(SELECTING):
            if self.options.stopped():
                return
            self.options.progress(f"CBS: selection {number + 1} of {len(SELECTING)}")
            told = cbs_select(
                self.weights,
                self.gradients,
                self.count,
                ridge=ridge * self.unit,
                seed=self.options.seed,
                loss=self._round_loss,
            )
            for update in UPDATING:
                vector = cbs_update(self.weights, self.gradients, told.mask, ridge=update * self.unit)
                yield Candidate(vector, told.mask, ridge * self.unit)

    def _chita(self) -> Iterator[Candidate]:
        """Iterative hard thresholding and back-solve for every ridge."""
        for number, ridge in enumerate(THRESHOLDING):
            if self.options.stopped():
                return
            self.options.progress(f"CHITA: selection {number + 1} of {len(THRESHOLDING)}")
            told, vector = chita(self.weights, self.gradients, self.count, ridge=ridge * self.unit)
            yield Candidate(vector, told.mask, ridge * self.unit)

    def _round_loss(self, mask: Mask) -> float:
        """Loss on calibration samples with the removed weights at 0 and the others as they were."""
        return self._loss(self.probe, np.where(mask, self.weights, 0.0), self.probe_wanted)

    def _loss(self, data: Calibration, vector: Array, wanted: Tensors) -> float:
        """Mean loss; infinite where it overflowed."""
        loss = self.losses.mean(data, self.flattened.cast(vector, self.losses.dense), wanted)
        return loss if np.isfinite(loss) else np.inf
