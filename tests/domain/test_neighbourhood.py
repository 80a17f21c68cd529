"""Domains around a point."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.domain import around, parse_domain
from onnxprune.errors import InputError
from tests.domain.support import (
    INDEX,
    VECTOR,
    check_error,
    ends,
    f32,
    patient,
    save,
    scalar,
)


class TestAround:
    def test_box_around_an_array(self) -> None:
        domain = around(f32([[0, 1, 2]]), 0.5, [VECTOR])
        assert ends(domain, VECTOR) == ([[-0.5, 0.5, 1.5]], [[0.5, 1.5, 2.5]])
        assert domain.origin == "The point +- 0.5"

    def test_files(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", f32([0, 1, 2]))
        domain = around(tmp_path / "x.npy", "0.25", [VECTOR])
        assert ends(domain, VECTOR) == ([[-0.25, 0.75, 1.75]], [[0.25, 1.25, 2.25]])
        domain = around(save(tmp_path / "points.npz", {"index": [7]}), 1, [VECTOR, INDEX])
        assert list(domain.boxes) == ["index"]
        assert ends(domain, INDEX) == ([6], [8])

    def test_clipped(self) -> None:
        specs = [VECTOR, INDEX]
        clip = parse_domain(["0:1"], specs)
        domain = around({"x": f32([0, 0.5, 1])}, 0.25, specs, clip)
        assert ends(domain, VECTOR) == ([[0, 0.25, 0.75]], [[0.25, 0.75, 1]])
        assert ends(domain, INDEX) == (0, 1)
        assert domain.origin == "The point +- 0.25, 0:1"

    def test_radius_zero_fixes_every_entry(self) -> None:
        point = f32([0.1, 0.2, 0.3])
        assert around(point, 0, [VECTOR]).boxes["x"].fixed == 3

    @patient
    @given(st.floats(-1e30, 1e30), st.decimals(0, 1000, allow_nan=False))
    def test_rounded_outward(self, point: float, radius: Decimal) -> None:
        double = scalar(np.dtype(np.float64))
        box = around(np.array([point]), str(radius), [double]).boxes["x"]
        lower, upper = float(box.lower[0]), float(box.upper[0])
        low, high = Fraction(point) - Fraction(radius), Fraction(point) + Fraction(radius)
        ulps = Fraction(math.ulp(float(radius)))
        assert 0 <= low - Fraction(lower) <= ulps + Fraction(math.ulp(lower))
        assert 0 <= Fraction(upper) - high <= ulps + Fraction(math.ulp(upper))

    @pytest.mark.parametrize("radius", [-0.1, math.nan, math.inf, "wide"])
    def test_unusable_radius(self, radius: float | str) -> None:
        with pytest.raises(InputError) as caught:
            around(np.zeros(3), radius, [VECTOR])
        check_error(caught, f"Radius {radius} is not a number >= 0.", "0.02")

    def test_unusable_points(self, tmp_path: Path) -> None:
        with pytest.raises(InputError) as caught:
            around(np.zeros(3), 1, [VECTOR, INDEX])
        check_error(caught, "The point: one array for a model with 2 inputs.", "Name the arrays: x, index.")
        with pytest.raises(InputError) as caught:
            around(np.zeros(4), 1, [VECTOR])
        check_error(caught, "The point: shape 4 does not fit input 'x' of shape 1x3.")
        with pytest.raises(InputError) as caught:
            around(np.array([0, math.nan, 0]), 1, [VECTOR])
        check_error(caught, "The point: NaN found.")
        with pytest.raises(InputError, match="lower inf is above upper"):
            around(np.array([0, math.inf, 0]), 1, [VECTOR])
        with pytest.raises(InputError, match="the model has no input 'y'"):
            around(save(tmp_path / "point.npz", {"y": 0}), 1, [VECTOR])
        with pytest.raises(InputError, match="No such file"):
            around(tmp_path / "none.npy", 1, [VECTOR])

    def test_outside_the_clip(self) -> None:
        with pytest.raises(InputError, match="lower 2 is above upper 1 at entry 1"):
            around(np.array([0, 3, 0]), 1, [VECTOR], parse_domain(["0:1"], [VECTOR]))
