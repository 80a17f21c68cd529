"""The diagonal that makes a quadratic over binaries convex and its continuous bound as high as possible.

On binaries ``y_i^2 = y_i``, so ``1/2 y'Ay + c'y = 1/2 y'(A - diag s) y + (c + s/2)'y`` for every s. Without the
binaries, but with ``sum y = K``, the right-hand side has a minimum phi(s) wherever ``A - diag s`` is positive definite
across the sum, and its largest value is the bound of the semidefinite relaxation (quadratic convex reformulation;
Billionnet, Elloumi & Plateau 2009). Here a damped Newton method follows ``phi(s) + mu log det`` down to a small mu.
"""

from __future__ import annotations

import numpy as np

from onnxprune.surgeon.selection.arrays import Array
from onnxprune.surgeon.selection.block import Block

_START, _SHRINK, _END = 0.1, 0.3, 1e-4
"""First weight of the barrier, factor from one to the next, and last; of a quadratic with largest entry 1."""
_STEPS = 80


def best_diagonal(block: Block) -> Array:
    """A shift s with ``A - diag s`` positive definite across ``sum y = const``, and phi(s) close to its largest value.

    Args:
        block: At least two weights; its quadratic need not be convex.

    Returns:
        Shape (b,).
    """
    size = block.size
    scale = block.scale or 1.0
    quadratic, linear = block.quadratic / scale, block.linear / scale
    basis = across_sum(size)
    least = float(np.linalg.eigvalsh(basis.T @ quadratic @ basis)[0])
    shift, weight = np.full(size, least - 0.1), _START
    state = _State.at(quadratic, linear, block.count, basis, shift)
    assert state is not None
    for _ in range(_STEPS):
        slack = 0.5 - state.point
        gradient = (0.25 - slack**2) / 2 - weight * np.diag(state.inverse)
        curvature = slack[:, None] * state.inverse * slack + weight * state.inverse**2
        curvature[np.diag_indices(size)] *= 1 + 1e-9  # singular for two weights
        step = np.linalg.solve(curvature, gradient)
        promise = float(gradient @ step)
        if promise < 0.1 * weight * size:
            if weight * size < _END:
                break
            weight *= _SHRINK
            continue
        length = 1.0
        while length > 1e-8:
            tried = _State.at(quadratic, linear, block.count, basis, shift + length * step)
            if tried is not None and tried.merit(weight) > state.merit(weight) + 0.1 * length * promise:
                shift, state = shift + length * step, tried
                break
            length /= 2
        else:
            break
    return shift * scale


def across_sum(size: int) -> Array:
    """An orthonormal basis of the vectors with sum 0, shape (size, size - 1)."""
    start = np.eye(size)
    start[:, 0] = 1.0
    return np.asarray(np.linalg.qr(start)[0][:, 1:], dtype=np.float64)


class _State:
    """The relaxation at one shift: its minimum, where that is, the inverse across the sum, the log-determinant."""

    def __init__(self, minimum: float, point: Array, inverse: Array, volume: float) -> None:
        self.minimum, self.point, self.inverse, self.volume = minimum, point, inverse, volume

    @staticmethod
    def at(quadratic: Array, linear: Array, count: int, basis: Array, shift: Array) -> _State | None:
        """None where the shifted quadratic is not positive definite across the sum."""
        moved, slope = quadratic - np.diag(shift), linear + shift / 2
        inner = basis.T @ moved @ basis
        try:
            factor = np.linalg.cholesky(inner)
        except np.linalg.LinAlgError:
            return None
        inverse = basis @ np.linalg.solve(inner, basis.T)
        middle = np.full(len(linear), count / len(linear))
        steepness = moved @ middle + slope
        point = middle - inverse @ steepness
        minimum = float(middle @ moved @ middle / 2 + slope @ middle - steepness @ inverse @ steepness / 2)
        return _State(minimum, point, inverse, 2 * float(np.log(np.diag(factor)).sum()))

    def merit(self, weight: float) -> float:
        """The bound plus the barrier."""
        return self.minimum + weight * self.volume
