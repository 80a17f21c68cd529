"""Upper bounds on the number of cells: from the architecture, and from what is known about the units over a domain.

All are exact whole numbers. They count open cells; patterns that also count lower-dimensional sets may be more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, cached_property, lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import InputError
from onnxprune.regions.network import RegionNetwork


def trivial(units: int) -> int:
    """2^units."""
    return 1 << units


def zaslavsky(inputs: int, units: int) -> int:
    """Cells of an arrangement of planes: sum_{j <= min(n_0, n_1)} C(n_1, j) (Zaslavsky 1975)."""
    return binomial_sums(units, inputs)[-1]


def montufar(inputs: int, widths: Sequence[int]) -> int:
    """prod_l sum_{j <= d_l} C(n_l, j) with d_l = min(n_0 .. n_l) (Montufar 2017, Proposition 3)."""
    found, d = 1, inputs
    for width in widths:
        d = min(d, width)
        found *= zaslavsky(d, width)
    return found


def serra(inputs: int, widths: Sequence[int]) -> int:
    """Units that are off take dimensions away from later layers (Serra, Tjandraatmadja, Ramalingam 2018, Theorem 1)."""
    chosen = cache(partial(binomial_sums, most=inputs))

    @cache
    def below(layer: int, d: int) -> int:
        if layer == len(widths):
            return 1
        n, sums = widths[layer], chosen(widths[layer])
        return sum((sums[j + 1] - sums[j]) * below(layer + 1, min(d, n - j)) for j in range(min(d, n) + 1))

    return below(0, inputs)


def maxout(inputs: int, widths: Sequence[int], rank: int) -> int:
    """Maxout units of some rank k: prod_l sum_{j <= d_l} C(k (k - 1) / 2 n_l, j) (Serra et al. 2018, Theorem 10)."""
    if rank < 1:
        raise InputError(f"A maxout unit cannot have rank {rank}.", hint="It is 1 or more.")
    found, d = 1, inputs
    for width in widths:
        d = min(d, width)
        planes = rank * (rank - 1) // 2 * width
        found *= binomial_sums(planes, d)[-1]
    return found


def one_input(widths: Sequence[int]) -> int:
    """For n_0 = 1: prod (n_l + 1), attained where n_l >= 3 (Serra et al. 2018, Theorem 7)."""
    return math.prod(width + 1 for width in widths)


def empirical(network: RegionNetwork) -> int:
    """With units that never switch, ranks of reachable rows, and signs of weights (Serra, Ramalingam 2020)."""
    return Remaining(network).bound(())


class Remaining:
    """Upper bounds on the cells below a node of the depth-first walk.

    The bound of Serra and Ramalingam (2020, Theorem 4) for the layers to come, R(l, d) = sum_j C(u_l, j)
    R(l + 1, min(d, r_l, a_l + u_l - j)), where u_l counts only units that can switch at all with so many units of
    the layer before on: a unit with bias <= 0 needs one with a positive weight, one with bias >= 0 a negative one.

    Args:
        network: The network.
        closed: Count patterns that may be lower-dimensional: nothing better than 2^units is known.
    """

    def __init__(self, network: RegionNetwork, closed: bool = False) -> None:
        self.network = network
        self.closed = closed
        self._starts = [0, *np.cumsum(network.sizes).tolist()]
        self._below = cache(self._layers)
        self._sums = lru_cache(maxsize=256)(partial(binomial_sums, most=network.dimension))

    def bound(self, prefix: Sequence[int]) -> int:
        """Cells whose first units are on (1) or off (0) like this."""
        layers, left = self.network.layers, self.network.unstable - len(prefix)
        if self.closed or left == 0:
            return 1 << left
        d, on, number = self.network.dimension, 0, 0
        for number, layer in enumerate(layers):
            start, stop = self._starts[number], self._starts[number + 1]
            on = sum(prefix[start:stop])
            if len(prefix) < stop:
                break
            d = min(d, layer.rank, len(layer.active) + on) if self.network.plain else d
        undecided = self._starts[number + 1] - max(len(prefix), self._starts[number])
        return min(1 << left, self._layer(number, d, undecided, on))

    def _layers(self, number: int, d: int, able: int) -> int:
        """Cells of layers from ``number`` on, on a d-dimensional piece where so many units of the first can switch."""
        if number == len(self.network.layers):
            return 1
        return self._layer(number, d, able, self.network.sizes[number] - able)

    def _layer(self, number: int, d: int, undecided: int, on: int) -> int:
        """The same with a layer of which so many units are undecided, and at most ``on`` others are on."""
        plain, rank = self.network.plain, self.network.layers[number].rank
        d = min(d, rank) if plain else d
        most, sums, found = min(undecided, d), self._sums(undecided), 0
        begin, state = 0, self._behind(number, d, on + undecided)
        for j in range(1, most + 2):  # below as many units that are off the state behind is often the same
            following = self._behind(number, d, on + undecided - j) if j <= most else (-1, -1)
            if following != state:
                found += (sums[j] - sums[begin]) * self._below(number + 1, *state)
                begin, state = j, following
        return found

    def _behind(self, number: int, d: int, active: int) -> tuple[int, int]:
        """Dimension behind a layer with so many unstable units on, and units of the next one that can switch."""
        network = self.network
        after = min(d, len(network.layers[number].active) + active) if network.plain else d
        if number + 1 == len(network.layers):
            return after, 0
        if not network.plain:
            return after, network.sizes[number + 1]
        always, reach = self._switching[number + 1]
        return after, min(network.sizes[number + 1], always + int(reach[min(active, len(reach) - 1)]))

    @cached_property
    def _switching(self) -> list[tuple[int, NDArray[np.int64]]]:
        """Per layer: units that may switch whatever the layer before does; and how many more k of its units let."""
        found: list[tuple[int, NDArray[np.int64]]] = []
        at = 0
        for number, layer in enumerate(self.network.layers):
            if number == 0 or layer.output:
                found.append((layer.size, np.zeros(1, dtype=np.int64)))
                at = len(self.network.low) if number == 0 else at
                continue
            before, block = self.network.layers[number - 1], self.network.blocks.blocks[number]
            rows = block.weights[layer.unstable].toarray()
            bias = block.bias[layer.unstable][:, None]
            helps = (
                ((bias <= 0) & (rows > 0)) | ((bias >= 0) & (rows < 0)) | ((block.slack[layer.unstable] > 0)[:, None])
            )
            always = helps[:, at + before.active].any(axis=1)
            reach = helps[~always][:, at + before.unstable].sum(axis=0)
            found.append((int(always.sum()), np.concatenate([[0], np.cumsum(np.sort(reach)[::-1])])))
            at += before.units
        return found


def binomial_sums(count: int, most: int) -> list[int]:
    """Sums of the first k binomial coefficients C(count, j), for k from 0 to min(count, most) + 1."""
    sums, term = [0], 1
    for j in range(min(count, most) + 1):
        sums.append(sums[-1] + term)
        term = term * (count - j) // (j + 1)
    return sums
