"""Calibration data: every form that is taken, every mistake that is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxprune.domain import InputSpec
from onnxprune.errors import InputError
from onnxprune.surgeon.calibration import CalibrationLike, calibration

SPEC = InputSpec("x", np.dtype(np.float32), ("N", 3))
IMAGE = InputSpec("x", np.dtype(np.float32), (1, 2, 4, "W"))


def samples(count: int = 40, start: int = 0) -> NDArray[np.float32]:
    """Rows that tell where they come from: 0, 1, 2 in the first one."""
    return np.arange(start * 3, (start + count) * 3, dtype=np.float32).reshape(count, 3)


def read(data: Any, *, limit: int = 1000, seed: int = 0, specs: tuple[InputSpec, ...] = (SPEC,)) -> Any:
    return calibration(data, specs, limit=limit, seed=seed)


def test_a_file_a_folder_a_mapping_and_an_iterator_give_the_same(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=samples(20))
    np.savez(tmp_path / "b.npz", x=samples(20, 20))
    np.savez(tmp_path.parent / "whole.npz", x=samples())
    forms: list[CalibrationLike] = [
        tmp_path,
        str(tmp_path.parent / "whole.npz"),
        {"x": samples()},
        iter([{"x": samples(20)}, {"x": samples(20, 20)}]),
    ]
    for form in forms:
        np.testing.assert_array_equal(read(form).inputs["x"], samples())


def test_an_endless_iterator_is_read_no_further_than_needed() -> None:
    taken = 0

    def batches() -> Iterator[dict[str, NDArray[Any]]]:
        nonlocal taken
        while True:
            taken += 1
            yield {"x": samples(16, 16 * taken)}

    assert len(read(batches(), limit=40)) == 40
    assert taken == 3


def test_a_limit_draws_without_repetition_from_all_files(tmp_path: Path) -> None:
    for number in range(4):
        np.savez(tmp_path / f"{number}.npz", x=samples(20, 20 * number), labels=np.arange(20) + 20 * number)
    found = read(tmp_path, limit=32, seed=3)
    rows = found.inputs["x"][:, 0] / 3
    assert len(set(rows)) == len(found) == 32
    np.testing.assert_array_equal(rows, found.labels)
    assert {int(row // 20) for row in rows} == {0, 1, 2, 3}
    np.testing.assert_array_equal(read(tmp_path, limit=32, seed=3).inputs["x"], found.inputs["x"])


def test_the_batch_axis_of_the_model_may_be_in_the_data() -> None:
    values = np.random.default_rng(0).normal(size=(20, 2, 4, 5))
    for form in (values, values[:, None]):
        found = read({"x": form}, specs=(IMAGE,))
        np.testing.assert_array_equal(found.inputs["x"], values.astype(np.float32))
    assert found.inputs["x"].dtype == np.float32


def test_held_out_samples_are_others_and_the_seed_decides_which() -> None:
    found = read({"x": samples(50), "labels": np.arange(50)})
    fit, held = found.split(1)
    assert (len(fit), len(held)) == (45, 5)
    assert sorted([*fit.labels, *held.labels]) == list(range(50))
    np.testing.assert_array_equal(held.inputs["x"][:, 0] / 3, held.labels)
    np.testing.assert_array_equal(found.split(1)[1].labels, held.labels)
    assert list(found.split(2)[1].labels) != list(held.labels)


NAN = np.where(np.arange(120).reshape(40, 3) == 50, np.nan, samples())
WRONG: dict[str, tuple[Any, str]] = {
    "name": ({"X": samples()}, "unknown ['X'], missing ['x']"),
    "second input": ({"x": samples(), "z": samples()}, "unknown ['z']"),
    "shape": ({"x": samples()[:, :2]}, "shape [2]; the model wants [3]"),
    "rank": ({"x": samples()[0]}, "shape []; the model wants [3]"),
    "scalar": ({"x": 3.0}, "'x' is a single value"),
    "NaN": ({"x": NAN}, "NaN or infinity"),
    "text": ({"x": np.full((40, 3), "a")}, "instead of numbers"),
    "too few": ({"x": samples(7)}, "7 calibration samples are too few"),
    "constant": ({"x": np.ones((40, 3))}, "are the same"),
    "uneven": ({"x": samples(), "labels": np.arange(39)}, "different numbers of samples"),
    "labels": ({"x": samples(), "labels": np.full(40, 0.5)}, "'labels' has shape (40,) and type float64"),
    "some labelled": ([{"x": samples(20), "labels": np.arange(20)}, {"x": samples(20)}], "others do not"),
    "nothing": ([], "are empty"),
    "no mapping": ([samples()], "Batch 1 of the calibration data is a ndarray"),
    "an array": (samples(), "are a ndarray"),
    "a number": (3, "are a int"),
    "no file": ("missing.npz", "Cannot read missing.npz"),
}


@pytest.mark.parametrize(("data", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_named(data: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(data)
    assert message in caught.value.what
    assert caught.value.hint


def test_parts_of_different_shapes_do_not_go_together() -> None:
    sizes = [{"x": np.random.default_rng(0).normal(size=(20, 2, 4, width))} for width in (5, 6)]
    with pytest.raises(InputError, match="have shape"):
        read(sizes, specs=(IMAGE,))


def test_an_empty_folder_and_a_file_of_one_array_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No \.npz files"):
        read(tmp_path)
    np.save(tmp_path / "one.npy", samples())
    with pytest.raises(InputError, match="a single array"):
        read(str(tmp_path / "one.npy"))


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ((), "no inputs"),
        ((InputSpec("x", np.dtype(np.float32), ()),), "a single number"),
        ((InputSpec("x", np.dtype(np.float32), (8, 3)),), "takes exactly 8 samples"),
    ],
)
def test_a_model_without_an_axis_of_samples_is_refused(specs: tuple[InputSpec, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read({"x": samples()}, specs=specs)
