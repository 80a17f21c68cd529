"""The constraints hold at every true assignment, and the exact encoding allows nothing else."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from onnxprune.mip import Encoding, LayerLP, Solver, Status, UnitMILP, Verdict, encode
from onnxprune.operators.interval import Array
from tests.mip.support import network, random_network, run

SEEDS = st.integers(0, 2**31)


def assignment(encoding: Encoding, point: Array) -> Array:
    """The columns of an encoding at an input; auxiliary columns from the pre-activations."""
    blocks = encoding.blocks
    values = run(blocks, point)
    x = np.full(encoding.system.columns, np.nan)
    columns = np.concatenate([point, *(np.maximum(g, 0.0) for g in values)])[: len(encoding.place)]
    known = encoding.place >= 0
    x[encoding.place[known]] = columns[known]
    for (block, unit), parts in encoding.parts.items():
        g = values[block][unit]
        x[list(parts)] = (max(g, 0.0), max(-g, 0.0)) if len(parts) == 2 else (g,)
    rows, whole = encoding.system.rows.toarray(), np.flatnonzero(encoding.system.integer)
    for column in whole:  # h <= U z: active where the positive part is not 0
        partners = [np.flatnonzero(row) for row in rows if row[column] < 0]
        positive = [c for found in partners for c in found if c != column]
        row = next(row for row in rows if row[column] < 0 and row[positive[0]] == 1)
        x[column] = float(x[positive[0]] > 0) if row[column] < 0 else 0.0
    return x


def violation(encoding: Encoding, x: Array) -> Fraction:
    """Largest violation in rational arithmetic."""
    system = encoding.system
    worst = max(
        [Fraction(0)]
        + [Fraction(float(a)) - Fraction(float(v)) for a, v in zip(system.low, x, strict=True)]
        + [Fraction(float(v)) - Fraction(float(a)) for a, v in zip(system.high, x, strict=True)]
    )
    for row, low, high in zip(system.rows.toarray(), system.row_low, system.row_high, strict=True):
        value = sum((Fraction(float(a)) * Fraction(float(v)) for a, v in zip(row, x, strict=True)), Fraction(0))
        worst = max([worst, *(s * (value - Fraction(float(e))) for s, e in ((1, high), (-1, low)) if np.isfinite(e))])
    return worst


@settings(max_examples=120, deadline=None)
@given(seed=SEEDS, whole=st.booleans(), window=st.sampled_from([None, 0, 1, 2]), skips=st.booleans())
def test_true_assignments_satisfy_every_row(seed: int, whole: bool, window: int | None, skips: bool) -> None:
    """In whole numbers and quarters nothing is rounded, so that not even the last bit may be violated."""
    rng = np.random.default_rng(seed)
    blocks = random_network(rng, inputs=int(rng.integers(1, 4)), skips=skips)
    index = len(blocks.blocks) - 1
    encoding = encode(blocks, {index: np.arange(blocks.blocks[index].units)}, whole=whole, window=window)
    for _ in range(5):
        point = blocks.low + rng.integers(0, 5, size=len(blocks.low)) / 4 * (blocks.high - blocks.low)
        x = assignment(encoding, point)
        assert not np.isnan(x).any()
        assert violation(encoding, x) <= 0
        for unit, g in enumerate(run(blocks, point)[index]):
            row = encoding.preactivation(index, unit)
            value = row.coefficients @ x
            assert value + row.low <= g <= value + row.high


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_the_triangle_is_rounded_outward(seed: int) -> None:
    """Corners of ReLU over bounds with many digits lie within the constraint, in rational arithmetic."""
    rng = np.random.default_rng(seed)
    low, high = -rng.random() * 10.0 ** rng.integers(-8, 9), rng.random() * 10.0 ** rng.integers(-8, 9)
    blocks = network([([[1.0]], [0.0]), ([[1.0]], [-high / 3])], [low], [high])
    encoding = encode(blocks, {1: np.array([0])}, whole=False)
    for value in (low, high, 0.0):
        assert violation(encoding, assignment(encoding, np.array([value]))) <= 0


def test_fixed_inputs_and_units_take_no_columns() -> None:
    blocks = network([([[1, 1], [0, 2], [1, 0]], [0, 1, -1]), ([[1, 1, 1]], [-4])], [0, 0.5], [2, 0.5])
    encoding = encode(blocks, {1: np.array([0])}, whole=True)
    assert encoding.place[:2].tolist() == [0, -1]
    assert encoding.place[3] == -1  # 2 * 0.5 + 1
    assert encoding.point(np.full(encoding.system.columns, 1.0)) == pytest.approx([1, 0.5])
    answers = [UnitMILP(blocks, 1).prove(0, sign, 10).verdict for sign in (1, -1)]
    assert answers == [Verdict.POINT, Verdict.POINT]
    assert LayerLP(blocks, 1).bound(0, 1).bound == pytest.approx(1.5)  # 2.5 + 2 + 1 - 4
    assert LayerLP(blocks, 1).bound(0, -1).bound == pytest.approx(1.5)  # 4 - (0.5 + 2 + 0)


def test_inactive_units_are_zero_and_active_ones_the_identity() -> None:
    """h0 = 0, h1 = x + 3: g = x + 3 - 4 lies in [-2, 0] without any binary."""
    blocks = network([([[1], [1]], [-2, 3]), ([[5, 1]], [-4])], [-1], [1])
    encoding = encode(blocks, {1: np.array([0])}, whole=True)
    assert not encoding.system.integer.any()
    assert LayerLP(blocks, 1, units=np.array([0])).bound(0, 1).bound == pytest.approx(0, abs=1e-9)
    assert LayerLP(blocks, 1, units=np.array([0])).bound(0, -1).bound == pytest.approx(2)


@pytest.mark.parametrize("slack", [1e-12, 1e-3, 0.5])
def test_slack_widens_rows_on_both_sides(slack: float) -> None:
    """h = x up to slack, g = h - x up to slack: |g| <= 2 slack."""
    blocks = network([([[1.0]], [1.5]), ([[-1.0, 1.0]], [-1.5])], [-1], [1], slack=slack, dense_columns=True)
    for sign in (1, -1):
        bound = LayerLP(blocks, 1, units=np.array([0])).bound(0, sign).bound
        assert 2 * slack <= bound <= 2 * slack + 1e-9


def test_slack_keeps_a_side_from_being_proved() -> None:
    """g = x - 1.25 over [0, 1] is at most -0.25; with a slack of 0.3 that is no longer certain."""
    for slack, verdict in ((0.0, Verdict.PROVED), (0.2, Verdict.PROVED), (0.3, Verdict.POINT)):
        blocks = network([([[1.0]], [-1.25])], [0], [1], slack=slack)
        assert UnitMILP(blocks, 0, units=np.array([0])).prove(0, 1, 10).verdict is verdict


def test_blocks_of_other_operators_are_boxes() -> None:
    """Nothing is known about the first block but -3 <= h <= 2: its outputs may be negative."""
    blocks = network([([[1.0]], [0.0]), ([[1.0]], [0.0])], [-1], [1])
    other = replace(blocks.blocks[0], exact=False, low=np.array([-3.0]), high=np.array([2.0]))
    other = replace(other, weights=sparse.csr_array((1, 0)))
    target = replace(blocks.blocks[1], low=np.array([-3.0]), high=np.array([2.0]))
    blocks = replace(blocks, blocks=(other, target))
    lp = LayerLP(blocks, 1)
    assert lp.bound(0, 1).bound == pytest.approx(2)
    assert lp.bound(0, -1).bound == pytest.approx(3)
    assert lp.bound(0, 1).point is None
    with pytest.raises(ValueError, match="Nothing but bounds"):
        encode(blocks, {0: np.array([0])}, whole=False)


def test_constraints_of_the_domain() -> None:
    """x + y <= 1 over [0, 1]^2, so x + y - 1.5 <= -0.5; the third input is fixed and shifts the limit."""
    rows = [[1, 1, 1]]
    layers = [([[1.0, 1.0, 0.0]], [-1.5])]
    for limit, expected in ((3.0, -0.5), (2.5, -1.0)):
        blocks = network(layers, [0, 0, 2], [1, 1, 2], rows=rows, limits=[limit])
        assert LayerLP(blocks, 0).bound(0, 1).bound == pytest.approx(expected, abs=1e-9)
        assert UnitMILP(blocks, 0).prove(0, 1, 10).verdict is Verdict.PROVED


def test_unbounded_pre_activations_are_relaxed() -> None:
    """Without finite bounds there is no big-M and no triangle; what is left is valid."""
    blocks = network([([[1.0]], [0.0]), ([[-1.0]], [1.0])], [-1], [1])
    for low, high in ((-np.inf, np.inf), (-1e300, 1e300), (np.nan, np.nan)):
        first = replace(blocks.blocks[0], low=np.array([low]), high=np.array([high]))
        loose = replace(blocks, blocks=(first, blocks.blocks[1]))
        for whole in (False, True):
            encoding = encode(loose, {1: np.array([0])}, whole=whole)
            assert not encoding.system.integer.any()
            row = encoding.preactivation(1, 0)
            solution = Solver(encoding.system).solve(row.coefficients, 10)
            assert solution.status is Status.OPTIMAL
            assert solution.value == pytest.approx(0)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_wide_and_narrow_boxes(size: float) -> None:
    """max(0, x) + max(0, -x) - 0.75 size over [-size, size] is above 0; minus 1.25 size it is below."""
    for offset, verdict in ((0.75, Verdict.POINT), (1.25, Verdict.PROVED)):
        layers = [([[1.0], [-1.0]], [0.0, 0.0]), ([[1.0, 1.0]], [-offset * size])]
        blocks = network(layers, [-size], [size])
        milp = UnitMILP(blocks, 1)
        assert milp.prove(0, 1, 10).verdict is verdict
        assert milp.margin(0) == pytest.approx(1e-5 * size, rel=0.5)


def test_a_unit_that_was_not_encoded_is_refused() -> None:
    blocks = network([([[1, 0], [0, 1]], [0, 0]), ([[1, 0], [0, 1]], [-0.5, -0.5])], [-1, -1], [1, 1])
    encoding = encode(blocks, {1: np.array([0])}, whole=False)
    assert encoding.place[1] == -1
    with pytest.raises(ValueError, match="was not encoded"):
        encoding.preactivation(1, 1)
