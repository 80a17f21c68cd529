"""What a domain says about itself: bounds, violations, reports."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxprune.domain import Box, Domain, InputSpec, around, parse_domain
from onnxprune.errors import InputError
from tests.domain.support import (
    BFLOAT16,
    FLOAT32,
    INDEX,
    INF,
    VECTOR,
    below,
    ends,
    f32,
    patient,
    scalar,
)


class TestEverything:
    @pytest.mark.parametrize(
        ("dtype", "low", "high"),
        [
            (np.dtype(np.bool_), 0, 1),
            (np.dtype(np.uint8), 0, 255),
            (np.dtype(np.int8), -128, 127),
            (np.dtype(np.int64), -(2.0**63), 2.0**63),
            (np.dtype(np.float16), -65504, 65504),
            (FLOAT32, -(2.0**128 - 2.0**104), 2.0**128 - 2.0**104),
            (np.dtype(np.float64), -float(np.finfo(np.float64).max), float(np.finfo(np.float64).max)),
            (BFLOAT16, -(2.0**128 - 2.0**120), 2.0**128 - 2.0**120),
            (np.dtype(object), -INF, INF),
        ],
    )
    def test_bounds_are_the_range_of_the_type(self, dtype: np.dtype[Any], low: float, high: float) -> None:
        assert ends(Domain.everything(), scalar(dtype)) == (low, high)

    def test_reports(self) -> None:
        domain = Domain.everything()
        assert not domain.restricts
        assert domain.describe() == "every finite input"
        assert domain.to_metadata() == {}
        expected = {"kind": "everything", "inputs": {}, "constraints": 0, "origin": "everything finite"}
        assert domain.to_json() == expected

    def test_no_texts(self) -> None:
        assert parse_domain([], [VECTOR]).to_json() == Domain.everything().to_json()


class TestViolations:
    def test_worst_excess(self) -> None:
        domain = parse_domain(["x=0:1"], [VECTOR, INDEX])
        data: dict[str, NDArray[Any]] = {"x": f32([[0, 1, 1.5], [-2, 0, 1]]), "index": np.array([99])}
        expected = ["2 of 6 values of input 'x' lie outside the domain, by up to 2."]
        assert domain.violations(data) == expected
        assert not domain.contains(data)
        assert domain.contains({"x": f32([[0, 1, 0.5]])})

    def test_only_finite_values_are_in_any_domain(self) -> None:
        data = {"x": f32([[0, np.nan, np.inf]])}
        expected = ["2 of 3 values of input 'x' lie outside the domain, by up to inf."]
        assert Domain.everything().violations(data) == expected

    def test_text_is_never_outside(self) -> None:
        assert Domain.everything().contains({"text": np.array(["a"], dtype=object)})

    def test_bounds_are_exact(self) -> None:
        domain = parse_domain(["0:0.1"], [VECTOR])
        assert not domain.contains({"x": f32([0.1])})
        assert domain.contains({"x": np.nextafter(f32([0.1]), FLOAT32.type(0))})


class TestReports:
    def test_metadata_of_a_uniform_box(self) -> None:
        assert parse_domain(["0:1"], [VECTOR]).to_metadata() == {"onnxprune.domain.x": "0:1"}
        assert parse_domain(["-inf:1.5"], [VECTOR]).to_metadata() == {"onnxprune.domain.x": "-inf:1.5"}
        assert parse_domain(["-0.0:-0.0"], [VECTOR]).to_metadata() == {"onnxprune.domain.x": "0:0"}

    @patient
    @given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.sampled_from([np.float32, np.float64]))
    def test_metadata_reads_back_as_the_same_box(self, a: float, b: float, kind: type) -> None:
        spec = scalar(np.dtype(kind))
        try:
            domain = parse_domain([f"{Decimal(min(a, b))}:{Decimal(max(a, b))}"], [spec])
        except InputError:
            return  # outside the type's range
        for text in domain.to_metadata().values():
            again = parse_domain([text], [spec])
            assert ends(again, spec) == ends(domain, spec)
            assert again.to_metadata() == domain.to_metadata()

    def test_metadata_is_rounded_inward(self) -> None:
        (text,) = parse_domain(["0.1:0.2"], [scalar(np.dtype(np.float64))]).to_metadata().values()
        lower, upper = map(Fraction, text.split(":"))
        assert Fraction(below("0.1")) <= lower <= Fraction(1, 10)
        assert upper == Fraction(1, 5)

    def test_metadata_of_other_boxes_is_a_hash(self) -> None:
        def text(lower: list[float], upper: list[float]) -> str:
            box = Box(np.array([lower], dtype=np.float64), np.array([upper], dtype=np.float64))
            return Domain({"x": box}).to_metadata()["onnxprune.domain.x"]

        one = text([0, 0, 0], [1, 2, 3])
        assert one.startswith("sha256:")
        assert one.endswith(" of lower and upper, hull 0:3")
        assert one == text([-0.0, 0, 0], [1, 2, 3])
        assert one != text([0, 0, 0], [2, 1, 3])

    def test_json(self) -> None:
        domain = around(f32([0, 1, 2]), 0.5, [VECTOR], parse_domain(["0.5:1.5"], [VECTOR]))
        assert json.loads(json.dumps(domain.to_json(), allow_nan=False)) == {
            "kind": "box",
            "inputs": {"x": {"lower": 0.5, "upper": 1.5, "free": 1, "fixed": 2}},
            "constraints": 0,
            "origin": "The point +- 0.5, 0.5:1.5",
        }

    def test_describe(self) -> None:
        specs = [InputSpec(name, FLOAT32, (1, 2)) for name in "abcde"]
        assert parse_domain(["a=0:1", "b=2:2"], specs).describe() == "a in 0:1; b in 2:2 (1 of 1 fixed)"
        expected = "a in 0:0.1; b in 0:0.1; c in 0:0.1; 2 more inputs bounded"
        assert parse_domain(["0:0.1"], specs).describe() == expected
