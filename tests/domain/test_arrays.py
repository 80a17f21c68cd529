"""Domains from NumPy files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from onnxprune.domain import InputSpec, parse_domain
from onnxprune.errors import InputError
from tests.domain.support import (
    IMAGE,
    INDEX,
    INF,
    UNRANKED,
    VECTOR,
    check_error,
    ends,
    f32,
    save,
)


class TestArrays:
    def test_bounds_by_input(self, tmp_path: Path) -> None:
        arrays = {"x.lower": [0, 1, 2], "x.upper": f32([[1, 1, 3]]), "image.upper": 1}
        domain = parse_domain([save(tmp_path / "box.npz", arrays)], [VECTOR, IMAGE, INDEX])
        assert ends(domain, VECTOR) == ([[0, 1, 2]], [[1, 1, 3]])
        assert domain.boxes["image"].lower.tolist() == -INF
        assert domain.boxes["image"].upper.tolist() == 1
        assert "index" not in domain.boxes

    def test_bounds_per_channel(self, tmp_path: Path) -> None:
        path = save(tmp_path / "box.npz", {"image.lower": np.zeros((3, 1, 1)), "image.upper": 1})
        assert parse_domain([path], [IMAGE]).boxes["image"].upper.shape == (1, 3, 1, 1)

    def test_together_with_text(self, tmp_path: Path) -> None:
        path = save(tmp_path / "two.boxes.npz", {"x.upper": [1, 2, 3]})
        assert ends(parse_domain([path, "0:2"], [VECTOR]), VECTOR) == ([[0, 0, 0]], [[1, 2, 2]])

    def test_entry_of_an_inverted_box_is_named(self, tmp_path: Path) -> None:
        path = save(tmp_path / "box.npz", {"x.lower": [0, 0, 2], "x.upper": [1, 1, 1]})
        with pytest.raises(InputError) as caught:
            parse_domain([path], [VECTOR])
        what = "Empty or inverted domain for input 'x': lower 2 is above upper 1 at entry 2."
        check_error(caught, what, "Give lower:upper in this order")

    @pytest.mark.parametrize(
        ("array", "what", "hint"),
        [
            ([0, math.nan, 0], "NaN found.", "-inf and inf for no bound"),
            (["a"], "<U1 is no real number type.", "float64 or narrower"),
            ([1j], "complex128 is no real number type.", "float64 or narrower"),
            ([0, 1], "shape 2 does not fit input 'x' of shape 1x3.", "1 along dynamic axes"),
            (np.zeros((1, 1, 3)), "shape 1x1x3 does not fit input 'x' of shape 1x3.", "or 1"),
        ],
    )
    def test_unusable_arrays(self, tmp_path: Path, array: object, what: str, hint: str) -> None:
        path = save(tmp_path / "box.npz", {"x.lower": array})
        with pytest.raises(InputError) as caught:
            parse_domain([path], [VECTOR])
        check_error(caught, f"{path}, x.lower: {what}", hint)

    @pytest.mark.parametrize(("spec", "shape"), [(IMAGE, (2, 3, 1, 1)), (IMAGE, (1, 3, 5, 4)), (UNRANKED, (1,))])
    def test_dynamic_axes_take_no_array(self, tmp_path: Path, spec: InputSpec, shape: tuple[int, ...]) -> None:
        path = tmp_path / "box.npz"
        with pytest.raises(InputError, match="does not fit input"):
            parse_domain([save(path, {f"{spec.name}.lower": np.zeros(shape)})], [spec])

    def test_unknown_input(self, tmp_path: Path) -> None:
        path = save(tmp_path / "box.npz", {"X.lower": 0})
        with pytest.raises(InputError) as caught:
            parse_domain([path], [VECTOR])
        check_error(caught, f"{path}: the model has no input 'X'.", "Inputs: x.")

    def test_no_matching_arrays(self, tmp_path: Path) -> None:
        path = save(tmp_path / "box.npz", {"x": 0})
        with pytest.raises(InputError) as caught:
            parse_domain([path], [VECTOR])
        check_error(caught, f"{path}: no bounds found.", "<input>.lower and <input>.upper")

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "box.npz"
        with pytest.raises(InputError) as caught:
            parse_domain([str(path)], [VECTOR])
        check_error(caught, f"Cannot read {path}: No such file or directory.", "Check the path.")
        save(path, {"x.lower": [None]})
        pickled = path.read_bytes()
        for content in (b"", b"PK\x03\x04 but no zip", b"some text", pickled):
            path.write_bytes(content)
            with pytest.raises(InputError) as caught:
                parse_domain([str(path)], [VECTOR])
            check_error(caught, f"Cannot read {path}: no NumPy file of plain numbers.", "numpy.savez")
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
        with pytest.raises(InputError, match="no bounds found"):
            parse_domain([str(path)], [VECTOR])
