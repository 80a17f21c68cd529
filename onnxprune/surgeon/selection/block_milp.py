"""Exact CBS-S blocks by a mixed-integer programme: the same optimum, proved by another solver in another way.

Products ``u_km`` stand for ``y_k y_m``. Of Fortet's inequalities only the side is needed that the sign of ``A_km``
pushes against: ``u_km >= y_k + y_m - 1`` where it is positive, ``u_km <= y_k`` and ``u_km <= y_m`` where it is
negative. The equations ``sum_{k != m} u_km = (K - 1) y_m`` (reformulation-linearisation; Adams & Sherali 1986) hold for
every choice of K weights and make the relaxation strong; with ``0 <= u <= 1`` they leave no other u at binary y.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from onnxprune.mip import Solver, System
from onnxprune.surgeon.selection.arrays import Array, Index, Mask
from onnxprune.surgeon.selection.block import Block, BlockResult, improve_block


def prove_block(
    block: Block, start: Mask | None = None, *, seconds: float = 60.0, solver: str = "highs"
) -> BlockResult:
    """Minimise over a block by MILP; the bound is the solver's word, up to 1e-6 of the largest coefficient.

    Args:
        block: Up to about 24 weights.
        start: Shape (b,), True where removed: where local search starts, whose result stands in for a worse one.
        seconds: Time limit.
        solver: One of :data:`onnxprune.mip.SOLVERS`.

    Raises:
        InputError: If there is no such solver.
        EnvironmentFailure: If it cannot be used.
    """
    best = improve_block(block, np.zeros(block.size, dtype=np.bool_) if start is None else start)
    local = value = block.value(best)
    if not 0 < block.count < block.size:
        return BlockResult(best, value, value, local, 0, 0.0)
    system, objective = linearised(block)
    answer = Solver(system, solver).solve(-objective, seconds)
    if answer.x is not None:
        found = np.zeros(block.size, dtype=np.bool_)
        found[np.argsort(-answer.x[: block.size], kind="stable")[: block.count]] = True
        if block.value(found) < value:
            best, value = found, block.value(found)
    bound = -np.inf if answer.bound is None else -answer.bound
    return BlockResult(best, value, min(bound, value), local, 0, answer.seconds)


def linearised(block: Block) -> tuple[System, Array]:
    """The constraints over ``(y, u)``, and the objective to minimise; u in the order of ``np.triu_indices(b, 1)``.

    Args:
        block: At least two weights.
    """
    size = block.size
    first, second = np.triu_indices(size, 1)
    products = block.quadratic[first, second]
    pairs = len(first)
    one, other = (_picks(end, size) for end in (first, second))
    identity = _picks(np.arange(pairs), pairs)
    positive, negative = np.flatnonzero(products > 0), np.flatnonzero(products < 0)
    none = sparse.csr_array((1, pairs))
    left = [np.ones((1, size)), (1.0 - block.count) * np.eye(size), -(one + other)[positive], -one[negative]]
    right = [none, (one + other).T, identity[positive], identity[negative]]
    left, right = [*left, -other[negative]], [*right, identity[negative]]
    rows = sparse.hstack([sparse.vstack([sparse.csr_array(part) for part in side]) for side in (left, right)])
    counts = [1, size, len(positive), len(negative), len(negative)]
    system = System(
        np.zeros(size + pairs),
        np.ones(size + pairs),
        np.arange(size + pairs) < size,
        sparse.csr_array(rows),
        np.repeat([block.count, 0.0, -1.0, -np.inf, -np.inf], counts),
        np.repeat([block.count, 0.0, np.inf, 0.0, 0.0], counts),
    )
    return system, np.concatenate([block.linear + np.diag(block.quadratic) / 2, products])


def _picks(places: Index, size: int) -> sparse.csr_array:
    """The matrix that picks entries, shape (picked, size)."""
    count = len(places)
    return sparse.csr_array((np.ones(count), (np.arange(count), places)), shape=(count, size))
