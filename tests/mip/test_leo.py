"""Proofs unit by unit: verdicts by hand, windows, units at zero, time, second opinions."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from onnxprune.bounds.blocks import Blocks
from onnxprune.errors import InputError
from onnxprune.mip import Opinion, UnitMILP, Verdict, confirm
from tests.mip.support import network, run

BOTH = pytest.mark.parametrize("solver", ["highs", "cbc"])


def hat(offset: float) -> Blocks:
    """g = |x| - offset over [-1, 1]."""
    return network([([[1.0], [-1.0]], [0, 0]), ([[1.0, 1.0]], [-offset])], [-1], [1])


@BOTH
def test_stably_inactive(solver: str) -> None:
    milp = UnitMILP(hat(1.5), 1, solver)
    assert milp.prove(0, 1, 10).verdict is Verdict.PROVED
    assert milp.refute(0, 1, 10).verdict is Verdict.OPEN
    assert milp.refute(0, -1, 10).verdict is Verdict.POINT


@BOTH
def test_stably_active(solver: str) -> None:
    """0.5 + relu(x) - relu(-x) / 4 is never below 0.25, so minus 0.125 it stays above 0."""
    blocks = network([([[1.0], [-1.0]], [0, 0]), ([[1.0, -0.25]], [0.5]), ([[1.0]], [-0.125])], [-1], [1])
    second = replace(blocks.blocks[2], low=np.array([-0.125]))
    blocks = replace(blocks, blocks=(*blocks.blocks[:2], second))
    assert UnitMILP(blocks, 2, solver).prove(0, -1, 10).verdict is Verdict.PROVED


@BOTH
def test_a_witness(solver: str) -> None:
    blocks = hat(0.75)
    milp = UnitMILP(blocks, 1, solver)
    for sign in (1, -1):
        answer = milp.refute(0, sign, 10)
        assert answer.point is not None
        assert sign * run(blocks, answer.point)[1][0] > 0
        assert milp.prove(0, sign, 10).verdict is Verdict.POINT


@BOTH
@pytest.mark.parametrize("offset", [1.0, 1.0 + 1e-7, 1.0 - 1e-7])
def test_units_that_touch_zero_stay_open(solver: str, offset: float) -> None:
    """max g is 0 or so close that tolerances cannot tell: no proof, and no witness by the margin."""
    milp = UnitMILP(hat(offset), 1, solver)
    answer = milp.prove(0, 1, 10)
    assert answer.verdict is Verdict.POINT
    assert milp.refute(0, 1, 10).verdict is Verdict.OPEN


def test_just_outside_the_margin_is_proved() -> None:
    assert UnitMILP(hat(1.0001), 1).prove(0, 1, 10).verdict is Verdict.PROVED


def test_windows_prove_less_and_never_more() -> None:
    """|x| - 1.5 needs the first block; without it h0 + h1 - 1.5 reaches 0.5."""
    assert UnitMILP(hat(1.5), 1, window=1).prove(0, 1, 10).verdict is Verdict.PROVED
    answer = UnitMILP(hat(1.5), 1, window=0).prove(0, 1, 10)
    assert answer.verdict is Verdict.OPEN
    assert answer.feasible
    assert answer.point is None


def test_units_ask_only_for_what_they_depend_on() -> None:
    layers = [(np.eye(3), np.full(3, -0.5)), (np.eye(3), np.full(3, -0.25))]
    blocks = network(layers, np.zeros(3), np.ones(3))
    everything = UnitMILP(blocks, 1).encoding.system.columns
    assert UnitMILP(blocks, 1, units=np.array([1])).encoding.system.columns * 3 == everything


def test_time_is_kept() -> None:
    rng = np.random.default_rng(0)
    sizes = [(60, 40), (60, 60), (60, 60), (5, 60)]
    layers = [(rng.normal(size=s) / np.sqrt(s[1]), np.zeros(s[0])) for s in sizes]
    milp = UnitMILP(network(layers, -np.ones(40), np.ones(40)), 3)
    for seconds in (0.0, 0.5):
        answer = milp.prove(0, 1, seconds)
        assert answer.seconds < seconds + 2.0
    assert milp.prove(0, 1, 0.0).verdict is Verdict.OPEN


@pytest.mark.parametrize("first", ["highs", "cbc"])
def test_second_opinions(first: str) -> None:
    agreed = confirm(hat(1.5), 1, 0, 1, first=first, seconds=10)
    assert agreed.opinion is Opinion.AGREED
    assert {first, agreed.solver} == {"highs", "cbc"}
    wrong = confirm(hat(0.75), 1, 0, 1, first=first, seconds=10)
    assert wrong.opinion is Opinion.DISAGREED
    assert wrong.point is not None
    assert confirm(hat(1.5), 1, 0, 1, first=first, window=0, seconds=10).opinion is Opinion.DISAGREED
    assert confirm(hat(1.5), 1, 0, 1, first=first, seconds=0).opinion is Opinion.OPEN


def test_wrong_names() -> None:
    with pytest.raises(InputError, match='no solver "scip"'):
        UnitMILP(hat(1.5), 1, "scip")
    with pytest.raises(InputError, match='no solver "scip"'):
        confirm(hat(1.5), 1, 0, 1, first="scip", seconds=1)


def test_python_mip_is_loaded_when_a_solve_begins() -> None:
    code = "import sys, onnxprune.mip; sys.exit('mip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
