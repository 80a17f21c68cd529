"""Combinatorial Brain Surgeon, selection and update, as published (Yu, Serra, Ramalingam, Zhe, ICML 2022).

Selection (CBS-S) minimises ``1/2 sum_km A_km y_k y_m`` over ``y`` binary with ``sum y = K``, ``A_km = w_k H_km w_m``
and H the empirical Fisher matrix: the loss change when the weights ``P = {k: y_k = 1}`` are set to 0 and nothing else
moves. With ``h = H_{:,P} w_P``, putting i back gains ``alpha_i = 2 w_i h_i - w_i^2 H_ii``, removing j costs
``beta_j = 2 w_j h_j + w_j^2 H_jj``, and both together change ``sum A y y`` by
``-alpha_i + beta_j - 2 w_i H_ij w_j``. Update (CBS-U) then moves the kept weights to their optimum.

Differences to the published code, each an improvement: large negative weights can be swapped (their threshold compares
``w``, not ``|w|``), and the gain of a swap counts all earlier swaps of its round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxprune.surgeon.selection.arrays import Array, Floats, Index, Mask
from onnxprune.surgeon.selection.fisher import Fisher
from onnxprune.surgeon.selection.magnitude import randomised_magnitude, without_smallest

_RANKS_AT_ONCE = 64


@dataclass(frozen=True)
class Selected:
    """What a selection arrived at.

    Attributes:
        mask: Shape (N,), True where a weight is kept.
        cost: Predicted loss change without a final update: ``1/2 sum A y y`` where nothing else moves.
        swaps: Exchanges accepted.
        rounds: Rounds of local search over all starts, or steps of thresholding.
    """

    mask: Mask
    cost: float
    swaps: int
    rounds: int


def cbs_select(
    weights: Floats,
    gradients: Floats,
    count: int,
    *,
    ridge: float = 1e-5,
    restarts: int = 50,
    seed: int = 0,
    loss: Callable[[Mask], float] | None = None,
    rounds: int = 100,
    reach: int = 10,
    failures: int = 20,
    least_gain: float = 1e-4,
) -> Selected:
    """Local search for CBS-S from global magnitude and from the best of many randomised magnitudes.

    Matrix-free: time and memory are those of a few products with the gradients per round.

    Args:
        weights: Shape (N,).
        gradients: Shape (n, N), per-sample gradients.
        count: How many weights to remove.
        ridge: Added to the diagonal of the Fisher matrix.
        restarts: Randomised starts to choose from; 0 for magnitude alone.
        seed: Of the randomised starts.
        loss: Told the mask of a round, returns the loss on calibration data; the round with the lowest is kept.
            By default the objective itself.
        rounds: Rounds per start at most.
        reach: Partners are tried within so many ranks.
        failures: Ranks without an exchange that end a round.
        least_gain: Decrease of ``sum A y y`` that an exchange must bring.
    """
    fisher, w = Fisher(gradients, ridge), np.asarray(weights, dtype=np.float64)
    starts = [without_smallest(np.abs(w), count)]
    if restarts and 0 < count < len(w):
        starts.append(_best_random_start(fisher, w, count, restarts, np.random.default_rng(seed)))
    search = _Search(fisher, w, reach, failures, least_gain)
    score = loss if loss is not None else (lambda mask: fisher.cost(np.where(mask, 0.0, w)))
    best, best_score, swaps, done = starts[0], np.inf, 0, 0
    for start in starts:
        mask, accepted = start, 1
        for number in range(rounds + 1):
            told = score(mask)
            if told < best_score:
                best, best_score = mask, told
            if not accepted or number == rounds:
                break
            mask, accepted = search.round(mask)
            swaps, done = swaps + accepted, done + 1
    return Selected(best, fisher.cost(np.where(best, 0.0, w)), swaps, done)


def cbs_update(weights: Floats, gradients: Floats, mask: Mask, *, ridge: float = 1e-5) -> Array:
    """CBS-U: the best values of the kept weights, all removed ones taken together.

    ``d_Q = (H_QQ)^-1 H_QP w_P``, which is ``-M_{:,P} (M_PP)^-1 w_P`` with ``M = H^-1`` (Yu et al. 2022, section 5).

    Args:
        weights: Shape (N,).
        gradients: Shape (n, N), per-sample gradients.
        mask: Shape (N,), True where kept.
        ridge: Added to the diagonal of the Fisher matrix.

    Returns:
        The new weights, shape (N,), 0 where removed.
    """
    w = np.asarray(weights, dtype=np.float64)
    return np.where(mask, w + Fisher(gradients, ridge).correction(w, mask), 0.0)


def _best_random_start(fisher: Fisher, w: Array, count: int, restarts: int, rng: np.random.Generator) -> Mask:
    """The randomised magnitude mask of the lowest cost, all costs from one pass over the gradients."""
    masks = [randomised_magnitude(w, count, rng) for _ in range(restarts)]
    removed = np.stack([np.where(mask, 0.0, w) for mask in masks], axis=1)
    images = fisher.through(removed)
    costs = (images**2).sum(axis=0) / fisher.samples + fisher.ridge * (removed**2).sum(axis=0)
    return masks[int(costs.argmin())]


class _Search:
    """Rounds of exchanges between neighbours in rank."""

    def __init__(self, fisher: Fisher, w: Array, reach: int, failures: int, least_gain: float) -> None:
        self.fisher, self.w = fisher, w
        self.own = w**2 * fisher.diagonal()
        self.reach, self.failures, self.least_gain = reach, failures, least_gain

    def round(self, mask: Mask) -> tuple[Mask, int]:
        """One round: ranks by the state at its start, gains by the current state; the new mask and the exchanges."""
        removed_part = np.where(mask, 0.0, self.w)
        image = self.fisher.through(removed_part)
        cross = 2 * self.w * (self.fisher.back(image) + self.fisher.ridge * removed_part)
        removed, kept = np.flatnonzero(~mask), np.flatnonzero(mask)
        removed = removed[np.argsort(-(cross - self.own)[removed], kind="stable")]
        kept = kept[np.argsort((cross + self.own)[kept], kind="stable")]
        mask, accepted, failed = mask.copy(), 0, 0
        for first in range(0, len(removed), _RANKS_AT_ONCE):
            window = _Window(self.fisher, self.w, removed, kept, first, self.reach)
            for rank in range(first, min(first + _RANKS_AT_ONCE, len(removed))):
                partner = window.exchange(rank, image, mask, self.own, self.least_gain)
                if partner is None:
                    failed += 1
                    if failed >= self.failures:
                        return mask, accepted
                else:
                    mask[removed[rank]], mask[partner] = True, False
                    accepted += 1
        return mask, accepted


class _Window:
    """The columns of the gradients that neighbouring ranks need, times their weights."""

    def __init__(self, fisher: Fisher, w: Array, removed: Index, kept: Index, first: int, reach: int) -> None:
        self.fisher, self.w, self.reach, self.first = fisher, w, reach, first
        self.removed = removed[first : first + _RANKS_AT_ONCE]
        self.start = max(0, first - reach)
        self.kept = kept[self.start : first + _RANKS_AT_ONCE + reach]
        self.removed_columns = fisher.columns(self.removed) * w[self.removed]
        self.kept_columns = fisher.columns(self.kept) * w[self.kept]

    def exchange(self, rank: int, image: Array, mask: Mask, own: Array, least_gain: float) -> int | None:
        """The first partner near the rank whose exchange gains enough; the image is then brought up to date.

        Args:
            rank: Of the weight to put back.
            image: Shape (n,), ``G_P w_P``; changed in place.
            mask: The current mask.
            own: Shape (N,), ``w_k^2 H_kk``.
            least_gain: What is enough.
        """
        place = rank - self.first
        low = max(rank - self.reach - self.start, 0)
        partners = self.kept[low : max(rank + self.reach + 1 - self.start, 0)]
        if not len(partners):
            return None
        back = self.removed_columns[:, place]
        out = self.kept_columns[:, low : low + len(partners)]
        weight = self.w[self.removed[place]]
        samples = self.fisher.samples
        alpha = 2 * (back @ image / samples + self.fisher.ridge * weight**2) - own[self.removed[place]]
        beta = 2 * (image @ out) / samples + own[partners]
        change = -alpha + beta - 2 * (back @ out) / samples
        good = np.flatnonzero((change <= -least_gain) & mask[partners])
        if not len(good):
            return None
        chosen = int(good[0])
        image += out[:, chosen] - back
        return int(partners[chosen])
