"""Samples: inside the bounds, of the right type and kind."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.domain import Domain, InputSpec, SampleKind, around, parse_domain
from onnxprune.errors import InputError
from tests.domain.support import (
    BFLOAT16,
    DTYPES,
    FLAG,
    FLOAT32,
    KINDS,
    PIXELS,
    TEXT,
    VECTOR,
    check_error,
    decimals,
    finite,
    patient,
    scalar,
)


class TestSample:
    @patient
    @given(
        st.sampled_from(DTYPES),
        st.lists(st.tuples(finite, finite), min_size=1, max_size=4),
        st.sampled_from(KINDS),
        st.integers(0, 2**32),
    )
    def test_always_inside(
        self, dtype: np.dtype[Any], pairs: list[tuple[float, float]], kind: SampleKind, seed: int
    ) -> None:
        spec = InputSpec("x", dtype, (None, len(pairs)))
        box = {"x": np.array([sorted(pair) for pair in pairs]).mean(axis=1)}
        radius = float(np.ptp(pairs, axis=1).max()) / 2
        try:
            domain = around(box, radius, [spec])
        except InputError:
            return  # nothing of that type lies in the box
        sample = domain.sample([spec], {"x": (3, len(pairs))}, np.random.default_rng(seed), kind)["x"]
        assert sample.shape == (3, len(pairs))
        assert sample.dtype == dtype
        lower, upper = (np.broadcast_to(ends, (1, len(pairs))) for ends in domain.bounds(spec))
        exact = [[Fraction(float(value)) for value in row] for row in sample.tolist()]
        for row in exact:
            for value, low, high in zip(row, lower.ravel(), upper.ravel(), strict=True):
                assert Fraction(float(low)) <= value <= Fraction(float(high))
        assert domain.contains({"x": sample})

    @patient
    @given(decimals, st.sampled_from([np.dtype(np.float16), FLOAT32, BFLOAT16]), st.sampled_from(KINDS))
    def test_fixed_decimals(self, value: Decimal, dtype: np.dtype[Any], kind: SampleKind) -> None:
        spec = scalar(dtype)
        domain = parse_domain([f"{value}:{value}"], [spec])
        feeds = domain.sample([spec], {"x": (1,)}, np.random.default_rng(0), kind)
        assert domain.contains(feeds)
        assert feeds["x"] == np.array([float(value)]).astype(dtype)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("text", ["", "1:inf", "-inf:1"])
    def test_open_sides(self, dtype: np.dtype[Any], kind: SampleKind, text: str) -> None:
        spec = scalar(dtype)
        domain = parse_domain([text] if text else [], [spec])
        rng = np.random.default_rng(0)
        for _ in range(30):
            feeds = domain.sample([spec], {"x": (4,)}, rng, kind)
            assert domain.contains(feeds)
            if dtype.itemsize > 1:
                assert np.abs(feeds["x"].astype(np.float64)).max() <= 60
            if dtype.itemsize > 1 and dtype.kind in "iu" and not text:
                assert set(feeds["x"].tolist()) <= {0, 1}

    def test_kinds(self) -> None:
        domain = parse_domain(["-1:3"], [VECTOR])
        rng = np.random.default_rng(0)
        shapes = {"x": (500, 3)}
        draws = {kind: domain.sample([VECTOR], shapes, rng, kind)["x"] for kind in KINDS}
        assert set(draws["corner"].ravel().tolist()) == {-1, 3}
        assert set(draws["center"].ravel().tolist()) == {1}
        assert len(np.unique(draws["uniform"])) > 1000
        assert 0.9 < draws["uniform"].mean() < 1.1
        assert 0.8 < draws["normal"].mean() < 1.2

    def test_corners_are_the_largest_values_inside(self) -> None:
        domain = parse_domain(["0:0.1"], [VECTOR])
        sample = domain.sample([VECTOR], {"x": (1, 30)}, np.random.default_rng(0), "corner")["x"]
        assert sample.max() == np.nextafter(FLOAT32.type(0.1), FLOAT32.type(0))

    def test_bytes_and_flags_take_every_value(self) -> None:
        shapes = {"pixels": (1, 5000), "flag": (100,)}
        feeds = Domain.everything().sample([PIXELS, FLAG], shapes, np.random.default_rng(0))
        assert len(np.unique(feeds["pixels"])) == 256
        assert set(feeds["flag"].tolist()) == {False, True}

    def test_scalars_are_arrays(self) -> None:
        for kind in KINDS:
            feeds = Domain.everything().sample([FLAG], {"flag": ()}, np.random.default_rng(0), kind)
            assert isinstance(feeds["flag"], np.ndarray)

    def test_seeds_decide(self) -> None:
        one, two = (Domain.everything().sample([VECTOR], {"x": (1, 3)}, np.random.default_rng(7)) for _ in range(2))
        assert np.array_equal(one["x"], two["x"])

    def test_text_cannot_be_sampled(self) -> None:
        with pytest.raises(InputError) as caught:
            Domain.everything().sample([TEXT], {"text": (1,)}, np.random.default_rng(0))
        check_error(caught, "Input 'text' holds object and cannot be sampled.", "Give data for it.")
