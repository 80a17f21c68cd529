from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.domain import vnnlib
from onnxprune.domain.rounding import outward
from onnxprune.errors import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "models" / "vnncomp"
FILES = sorted(SHARED.rglob("*.vnnlib"))
INF = math.inf

patient = settings(deadline=None)  # a busy machine is no failure
decimals = st.decimals(allow_nan=False, allow_infinity=False)


def declare(inputs: int, outputs: int = 2) -> str:
    names = [f"X_{i}" for i in range(inputs)] + [f"Y_{i}" for i in range(outputs)]
    return "".join(f"(declare-const {name} Real)\n" for name in names)


def bounds(text: str, inputs: int = 2) -> list[tuple[float, float]]:
    found = vnnlib.parse(declare(inputs) + text)
    return list(zip(found.lower.tolist(), found.upper.tolist(), strict=True))


def test_bounds_on_both_sides() -> None:
    text = "(assert (<= X_0 0.5)) (assert (>= X_0 -0.25)) ; a comment (with parentheses\n(assert(>= X_1 1e-3))"
    assert bounds(text) == [(-0.25, 0.5), (float(np.nextafter(0.001, 0)), INF)]


def test_several_bounds_intersect_and_contradictions_stay_visible() -> None:
    assert bounds("(assert (<= X_0 3)) (assert (<= X_0 2)) (assert (>= X_0 5))", 1) == [(5, 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(<= X_0 (- 0.5))", (-INF, -0.5)),
        ("(<= 0.5 X_0)", (0.5, INF)),
        ("(>= 0.5 X_0)", (-INF, 0.5)),
        ("(= X_0 0.5)", (0.5, 0.5)),
        ("(<= (* 2 X_0) 3)", (-INF, 1.5)),
        ("(<= (* X_0 -2.0) 3)", (-1.5, INF)),
        ("(<= (+ X_0 1 2) 4)", (-INF, 1)),
        ("(<= (- X_0 1 2) 4)", (-INF, 7)),
        ("(<= (- X_0) 4)", (-4, INF)),
        ("(<= (+ X_0 X_0) 4)", (-INF, 2)),
        ("(<= X_0 X_0)", (-INF, INF)),
        ("(<= X_0 (+ X_1 (- 3 X_1)))", (-INF, 3)),
        ("(and (<= X_0 1) (and (>= X_0 0)))", (0, 1)),
        ("(<= X_0 1e400)", (-INF, INF)),
        ("(>= X_0 1e400)", (float(np.finfo(np.float64).max), INF)),
    ],
)
def test_forms_of_one_bound(text: str, expected: tuple[float, float]) -> None:
    assert bounds(f"(assert {text})")[0] == expected


def test_quotients_are_rounded_outward() -> None:
    ((lower, upper),) = bounds("(assert (<= (* 3 X_0) 1)) (assert (<= 1 (* 3 X_0)))", 1)
    assert Fraction(lower) < Fraction(1, 3) < Fraction(upper)
    assert upper == np.nextafter(lower, 1)


def test_outputs_say_nothing_about_inputs() -> None:
    text = "(assert (>= Y_0 3)) (assert (<= X_0 Y_1)) (assert (<= (* Y_0 Y_1) (+ X_1 1))) (assert (<= X_1 2))"
    assert bounds(text) == [(-INF, INF), (-INF, 2)]


def test_alternatives_give_their_hull() -> None:
    text = """(assert (or
        (and (>= X_0 0) (<= X_0 1) (>= X_1 5) (<= X_1 6) (<= Y_0 Y_1))
        (and (>= X_0 2) (<= X_0 3) (>= X_1 4) (>= Y_0 7))))
        (assert (<= X_1 9))"""
    assert bounds(text) == [(0, 3), (4, 9)]


def test_alternative_without_inputs_frees_all() -> None:
    assert bounds("(assert (or (<= X_0 1) (<= Y_0 0)))", 1) == [(-INF, INF)]


def test_nested_alternatives() -> None:
    text = "(assert (and (>= X_0 -1) (or (<= X_0 1) (and (<= X_0 4) (or (<= X_0 2) (<= X_0 3))))))"
    assert bounds(text, 1) == [(-1, 3)]


def test_linear_constraints() -> None:
    found = vnnlib.parse(
        declare(3) + "(assert (<= X_0 X_1)) (assert (>= (+ X_0 (* 2.0 X_2) 1) (- X_1 2)))"
        "(assert (or (and (<= X_1 X_2) (<= X_0 7))))"
    )
    assert found.constraints == (
        vnnlib.LinearConstraint(((0, 1.0), (1, -1.0)), 0.0),
        vnnlib.LinearConstraint(((1, 1.0), (0, -1.0), (2, -2.0)), 3.0),
        vnnlib.LinearConstraint(((1, 1.0), (2, -1.0)), 0.0),
    )
    assert found.upper[0] == 7


def test_constraints_of_single_alternatives_are_left_out() -> None:
    found = vnnlib.parse(declare(2) + "(assert (or (<= X_0 X_1) (and (<= X_0 3) (<= X_1 X_0))))")
    assert found.constraints == ()
    assert np.isinf(found.upper).all()


def test_inexact_coefficients_relax_the_bound() -> None:
    box = "(assert (>= X_0 -2)) (assert (<= X_0 1)) (assert (>= X_1 0)) (assert (<= X_1 1))"
    (row,) = vnnlib.parse(declare(2) + box + "(assert (<= (+ (* 0.1 X_0) X_1) 0.3))").constraints
    assert row.terms == ((0, 0.1), (1, 1.0))
    slack = abs(Fraction(1, 10) - Fraction(0.1)) * 2
    assert Fraction(row.bound) >= Fraction(3, 10) + slack
    assert row.bound <= 0.3 + 1e-15


@pytest.mark.parametrize("coefficient", ["0.1", "1e400"])
def test_rows_that_floats_cannot_hold_are_left_out(coefficient: str) -> None:
    found = vnnlib.parse(declare(2) + f"(assert (<= (+ (* {coefficient} X_0) X_1) 0.3))")
    assert found.constraints == ()


@patient
@given(decimals)
def test_decimals_round_outward_to_the_nearest_float(value: Decimal) -> None:
    low, high = outward(value, up=False), outward(value, up=True)
    assert Decimal(low) <= value <= Decimal(high)
    assert high in (low, math.nextafter(low, INF))
    assert (low == high) == (Decimal(float(value)) == value)


@patient
@given(st.lists(st.tuples(decimals, decimals), min_size=1, max_size=5))
def test_files_round_trip(pairs: list[tuple[Decimal, Decimal]]) -> None:
    text = "".join(f"(assert (>= X_{i} {a}))(assert (<= X_{i} {b}))" for i, (a, b) in enumerate(pairs))
    expected = [(outward(a, up=False), outward(b, up=True)) for a, b in pairs]
    assert bounds(text, len(pairs)) == expected


@patient
@given(
    st.lists(st.integers(-9, 9), min_size=3, max_size=3),
    st.integers(-20, 20),
    st.lists(st.fractions(-3, 3, max_denominator=8), min_size=3, max_size=3),
)
def test_linear_comparisons_keep_every_solution(coefficients: list[int], limit: int, point: list[Fraction]) -> None:
    if not any(coefficients):
        return
    terms = " ".join(f"(* {c} X_{i})" for i, c in enumerate(coefficients))
    found = vnnlib.parse(declare(3) + f"(assert (<= (+ {terms}) {limit}))")
    inside = True
    for low, x, high in zip(found.lower.tolist(), point, found.upper.tolist(), strict=True):
        inside &= (low == -INF or Fraction(low) <= x) and (high == INF or x <= Fraction(high))
    for row in found.constraints:
        inside &= sum(Fraction(c) * point[i] for i, c in row.terms) <= Fraction(row.bound)
    if sum(c * x for c, x in zip(coefficients, point, strict=True)) <= limit:
        assert inside
    elif sum(map(bool, coefficients)) > 1:  # a single coefficient may round
        assert not inside


def test_deep_nesting_needs_no_recursion() -> None:
    depth = 20_000
    assert bounds("(assert " + "(and " * depth + "(<= X_0 1)" + ")" * depth + ")", 1) == [(-INF, 1)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("(assert (<= X_0 1)", "s.vnnlib: it ends before all parentheses are closed."),
        ("\n(assert (<= X_0 1)))", "s.vnnlib, line 2: ')' stands outside parentheses."),
        ("assert", "s.vnnlib, line 1: 'assert' stands outside parentheses."),
        ("(assert (<= X_0 one))", "s.vnnlib, line 1: 'one' is neither a number nor a declared variable."),
        ("(assert (<= X_0 nan))", "s.vnnlib, line 1: 'nan' is neither a number nor a declared variable."),
        ("(assert (<= X_9 1))", "s.vnnlib, line 1: 'X_9' is neither a number nor a declared variable."),
        (
            "(assert (not (<= X_0 1)))",
            "s.vnnlib, line 1: unsupported expression '(not ...)' with 1 operands.",
        ),
        ("(assert (<= X_0))", "s.vnnlib, line 1: unsupported expression '(<= ...)' with 1 operands."),
        ("(assert (and X_0 X_0))", "s.vnnlib, line 1: unsupported expression '(and ...)' with 2 operands."),
        ("(assert ((<= X_0 1)))", "s.vnnlib, line 1: unsupported expression '(...)'."),
        ("(check-sat)", "s.vnnlib, line 1: unsupported command '(check-sat ...)' with 0 operands."),
        ("()", "s.vnnlib, line 1: unsupported command '(...)'."),
        (
            "(assert (<= (* X_0 X_0) 1))",
            "s.vnnlib, line 1: a product of two input variables is not linear.",
        ),
        (
            "(assert (<= (and (<= X_0 1)) 1))",
            "s.vnnlib, line 1: a comparison stands where a number is expected.",
        ),
        ("(assert (<= 2 1))", "s.vnnlib, line 1: a comparison of numbers that never holds."),
        ("(assert (<= (+ X_0 1e3000) 1e-3000))", "s.vnnlib, line 1: a number is out of range."),
        ("(declare-const X_2 Real)", "s.vnnlib: 2 of the variables X_0 to X_2 declared."),
    ],
)
def test_errors_name_the_line(text: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        vnnlib.parse("(declare-const X_0 Real)" + text, source="s.vnnlib")
    assert caught.value.what == what
    assert caught.value.hint.startswith(("Use VNN-LIB 1.0: ", "Declare X_0, X_1, ... without gaps."))
    assert str(caught.value).count("\n") == 1


def test_file_without_inputs() -> None:
    with pytest.raises(InputError, match="no variables X_i declared"):
        vnnlib.parse("(declare-const Y_0 Real)")


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot read .*none\.vnnlib: No such file or directory"):
        vnnlib.read(tmp_path / "none.vnnlib")
    (tmp_path / "binary.vnnlib").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="it is no text file"):
        vnnlib.read(tmp_path / "binary.vnnlib")


@pytest.mark.skipif(not FILES, reason="the VNN-COMP files lie in shared/models/vnncomp beside the repository")
class TestVnnComp:
    @pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}"[:60])
    def test_every_input_is_bounded_and_fits_the_model(self, path: Path) -> None:
        found = vnnlib.read(path)
        assert np.isfinite(found.lower).all()
        assert (found.lower <= found.upper).all()
        assert np.isfinite(found.upper).all()
        assert found.constraints == ()
        for file in path.parent.glob("*.onnx"):
            assert found.lower.size == _input_size(file)

    def test_acasxu_bounds(self) -> None:
        found = vnnlib.read(SHARED / "acasxu" / "prop_1.vnnlib")
        expected_lower = ["0.6", "-0.5", "-0.5", "0.45", "-0.5"]
        expected_upper = ["0.679857769", "0.5", "0.5", "0.5", "-0.45"]
        assert found.lower.tolist() == [outward(Decimal(x), up=False) for x in expected_lower]
        assert found.upper.tolist() == [outward(Decimal(x), up=True) for x in expected_upper]

    def test_hull_of_a_file_with_alternatives(self) -> None:
        found = vnnlib.read(SHARED / "nn4sys" / "lindex_1.vnnlib")
        assert found.lower.tolist() == [outward(Decimal("0.0128096500411630"), up=False)]
        assert found.upper.tolist() == [outward(Decimal("0.0128099126741290"), up=True)]


def _input_size(path: Path) -> int:
    graph = onnx.load(path, load_external_data=False).graph
    constants = {initializer.name for initializer in graph.initializer}
    return sum(
        math.prod(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
        for value in graph.input
        if value.name not in constants
    )
