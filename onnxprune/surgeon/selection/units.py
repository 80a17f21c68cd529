"""Which channels go: removal and exchange of whole channels on the refit cost of everything that reads them.

A reader with weights W and second moments C of its inputs pays ``1/2 tr(W_P (C_PP - C_PQ C_QQ^-1 C_QP) W_P')`` for
losing the inputs P when the weights on Q take over what can be taken over. For a kernel of k x k, all taps of a channel
are one group of variables; channels that several layers read cost the sum; inputs that always stay, such as a constant
channel for the bias, are eliminated beforehand.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.errors import InputError
from onnxprune.surgeon.selection.arrays import Array, Floats, Index, Mask, damped, inverse
from onnxprune.surgeon.selection.swaps import AT_ONCE, LEAST_GAIN, STILL_GOOD, rows_by_least
from onnxprune.surgeon.selection.tableau import Tableau

_PAIRS = 1 << 13
"""Exchanges of groups priced together."""


@dataclass(frozen=True)
class Reader:
    """A layer that reads the channels.

    Attributes:
        moments: Shape (channels * taps + fixed, same), second moments of its inputs, the taps of a channel next to each
            other, inputs that always stay at the end.
        weights: Shape (rows, channels * taps + fixed).
        taps: Inputs per channel.
        trade_off: What the reader's cost counts for.
    """

    moments: Floats
    weights: Floats
    taps: int = 1
    trade_off: float = 1.0


@dataclass(frozen=True)
class Units:
    """Channels to remove.

    Attributes:
        mask: Shape (channels,), True where kept.
        cost: Refit cost of all readers.
        order: Channels in the order of greedy removal; empty where there was none.
        curve: Costs after each removal of that order, from none on.
        moves: Exchanges carried out.
        finished: Whether no exchange gains any more; False where the time or the number of exchanges ended first.
    """

    mask: Mask
    cost: float
    order: Index
    curve: Array
    moves: int = 0
    finished: bool = True


def expand(mask: Mask, reader: Reader) -> Mask:
    """The mask of a reader's weights for a mask of channels; shape (rows, channels * taps + fixed)."""
    rows, size = reader.weights.shape
    wide = np.ones(size, dtype=np.bool_)
    wide[: len(mask) * reader.taps] = np.repeat(mask, reader.taps)
    return np.broadcast_to(wide, (rows, size))


def units_cost(readers: Sequence[Reader], mask: Mask, *, ridge: float = 1e-6) -> float:
    """The refit cost of keeping only some channels, summed over the readers with their trade-offs.

    Args:
        readers: All layers that read the channels.
        mask: Shape (channels,), True where kept.
        ridge: Share of the mean of the diagonal of each C that is added to it, and counts as part of it.

    Raises:
        InputError: If the readers do not fit the mask, or moments are singular and the ridge is too small.
    """
    return sum(t.tableau.cost * t.trade_off for t in _tableaus(readers, mask, ridge))


def greedy_units(readers: Sequence[Reader], channels: int, count: int, *, ridge: float = 1e-6) -> Units:
    """Remove channels one after another, each time the one whose removal costs least.

    Args:
        readers: All layers that read the channels.
        channels: How many there are.
        count: How many go.
        ridge: See :func:`units_cost`.

    Raises:
        InputError: If the readers do not fit, or moments are singular and the ridge is too small.
    """
    states = _tableaus(readers, np.ones(channels, dtype=np.bool_), ridge)
    mask, order, curve = np.ones(channels, dtype=np.bool_), [], [0.0]
    for _ in range(count):
        changes = np.sum([state.trade_off * state.single_changes() for state in states], axis=0)
        chosen = int(np.where(mask, changes, np.inf).argmin())
        for state in states:
            state.move(np.array([chosen]))
        mask[chosen] = False
        order.append(chosen)
        curve.append(_total(states))
    return Units(mask, curve[-1], np.array(order, dtype=np.intp), np.array(curve))


def improve_units(
    readers: Sequence[Reader], mask: Mask, *, ridge: float = 1e-6, seconds: float = np.inf, swaps: int = 1000
) -> Units:
    """Exchange removed for kept channels as long as the cost falls; all pairs are priced.

    Args:
        readers: All layers that read the channels.
        mask: Shape (channels,), the start; the number of kept channels stays.
        ridge: See :func:`units_cost`.
        seconds: Time limit.
        swaps: Exchanges at most.

    Returns:
        A local optimum under exchanges unless the time ended first, never worse than the start.

    Raises:
        InputError: If the readers do not fit, or moments are singular and the ridge is too small.
    """
    began = time.perf_counter()
    states = _tableaus(readers, mask, ridge)
    start, current, moves, finished = _total(states), mask.copy(), 0, False
    while moves < swaps and time.perf_counter() - began < seconds and not finished:
        removed, kept = np.flatnonzero(~current), np.flatnonzero(current)
        finished = not len(removed) or not len(kept)
        if finished:
            break
        changes = np.sum([state.trade_off * state.exchange_changes(removed, kept) for state in states], axis=0)
        done = 0
        for place in rows_by_least(changes)[: min(AT_ONCE, swaps - moves)]:
            pair = np.array([removed[place], kept[int(changes[place].argmin())]], dtype=np.intp)
            if current[pair[1]] and not current[pair[0]]:
                now = sum(state.trade_off * state.change(pair) for state in states)
                if now < -LEAST_GAIN * _total(states) and now <= STILL_GOOD * changes[place].min():
                    for state in states:
                        state.move(pair)
                    current[pair] ^= True
                    done += 1
        moves, finished = moves + done, not done
    cost = units_cost(readers, current, ridge=ridge)
    if cost > start:
        current, cost = mask.copy(), start
    return Units(current, cost, np.zeros(0, dtype=np.intp), np.zeros(0), moves, finished)


class _State:
    """A reader's tableau, asked about channels."""

    def __init__(self, reader: Reader, mask: Mask, ridge: float) -> None:
        size = len(mask) * reader.taps
        moments, weights = np.asarray(reader.moments, np.float64), np.asarray(reader.weights, np.float64)
        if len(moments) < size or weights.shape[1] != len(moments):
            raise InputError(f"A reader with {len(moments)} inputs does not fit {len(mask)} x {reader.taps} of them.")
        system = damped(moments, ridge)
        if len(system) > size:  # the Schur complement: what stays for sure is refitted for sure
            across = system[:size, size:]
            system = system[:size, :size] - across @ inverse(system[size:, size:]) @ across.T
        self.trade_off = reader.trade_off
        self.groups = np.arange(size).reshape(len(mask), reader.taps)
        self.tableau = Tableau(system, weights[:, :size], np.repeat(mask, reader.taps))

    def move(self, channels: Index) -> None:
        self.tableau.move(self.groups[channels].reshape(-1))

    def change(self, channels: Index) -> float:
        return self.tableau.change(self.groups[channels].reshape(-1))

    def single_changes(self) -> Array:
        """Change of the cost when one channel alone changes sides, shape (channels,)."""
        if self.groups.shape[1] == 1:
            return self.tableau.single_changes()
        values = self.tableau.values[self.groups]
        return self._changes(self.groups, values @ values.transpose(0, 2, 1))

    def exchange_changes(self, removed: Index, kept: Index) -> Array:
        """Change of the cost for all pairs, shape (removed, kept)."""
        if self.groups.shape[1] == 1:
            return self.tableau.exchange_changes(removed, kept)
        pairs = np.stack(np.meshgrid(removed, kept, indexing="ij"), axis=-1).reshape(-1, 2)
        sets = self.groups[pairs].reshape(len(pairs), -1)
        gram = self.tableau.values @ self.tableau.values.T
        found = []
        for first in range(0, len(sets), _PAIRS):
            part = sets[first : first + _PAIRS]
            found.append(self._changes(part, gram[part[:, :, None], part[:, None, :]]))
        return np.concatenate(found).reshape(len(removed), len(kept))

    def _changes(self, sets: Index, grams: Array) -> Array:
        """Change of the cost for many sets of weights; shape (sets,), grams of their values (sets, size, size)."""
        inverses = np.linalg.inv(self.tableau.matrix[sets[:, :, None], sets[:, None, :]])
        return np.asarray(-np.einsum("sij,sij->s", inverses, grams) / 2, dtype=np.float64)


def _tableaus(readers: Sequence[Reader], mask: Mask, ridge: float) -> list[_State]:
    return [_State(reader, mask, ridge) for reader in readers]


def _total(states: Sequence[_State]) -> float:
    return sum(state.trade_off * state.tableau.cost for state in states)
