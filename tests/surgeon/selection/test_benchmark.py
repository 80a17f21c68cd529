"""The benchmark on a small layer."""

from __future__ import annotations

import numpy as np

from tests.benchmarks.surgeon.layers import Layer
from tests.benchmarks.surgeon.selection import compare, prove_blocks


def test_ours_beats_swaps_that_do_not_know_of_the_refit_and_proofs_agree() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(300, 40)) @ rng.normal(size=(40, 40))
    layer = Layer("w", rng.normal(size=(3, 40)), inputs.T @ inputs / 300, 1)
    lines = compare([(layer, row, sparsity) for row in range(2) for sparsity in (0.5, 0.8)], seconds=5.0)
    assert len(lines) == 2 + 4 + 3
    assert float(lines[-1].removesuffix(".").split()[-1]) < 0.95
    table = prove_blocks([(layer, 0)], 2, rng)
    assert all("0.0e+00" in line or "e-1" in line for line in table[2:])
