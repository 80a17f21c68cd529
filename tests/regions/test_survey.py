"""Bounds without rows: maxima against known answers and samples, and networks too large to count."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto

import onnxprune
from onnxprune.domain import around
from onnxprune.errors import InputError
from onnxprune.regions import count_exactly, maxout, serra, survey
from onnxprune.regions.network import RegionNetwork
from onnxprune.regions.reading import read
from onnxprune.regions.report import number
from onnxprune.regions.survey import most_cells, ways
from onnxprune.regions.upper import Remaining
from onnxprune.samples import input_specs
from tests.helpers import command, parse
from tests.regions.test_count import layers

Tables = dict[str, NDArray[np.float32]]


def maxima(inputs: int, widths: tuple[int, ...], rank: int, seed: int = 0) -> tuple[ModelProto, Tables]:
    """Layers of maxima over random affine functions."""
    rng, tables, body, source, before = np.random.default_rng(seed), Tables(), list[str](), "x", inputs
    for layer, width in enumerate(widths):
        for k in range(rank):
            tables[f"w{layer}{k}"] = rng.normal(size=(width, before)).astype(np.float32)
            tables[f"b{layer}{k}"] = rng.normal(size=width).astype(np.float32)
            body.append(f"a{layer}{k} = Gemm <transB = 1> ({source}, w{layer}{k}, b{layer}{k})")
        source, before = f"m{layer}", width
        body.append(f"{source} = Max ({', '.join(f'a{layer}{k}' for k in range(rank))})")
    tables["w"] = np.ones((1, before), np.float32)
    body.append(f"y = Gemm <transB = 1> ({source}, w)")
    return parse(" ".join(body), f"float[N,{inputs}] x", "float[N,1] y", dict[str, Any](tables)), tables


def patterns(tables: Tables, widths: tuple[int, ...], rank: int, points: NDArray[np.float64]) -> set[bytes]:
    """Which candidate each maximum picks, at points."""
    found, columns = [], points
    for layer in range(len(widths)):
        parts = np.stack([columns @ tables[f"w{layer}{k}"].T + tables[f"b{layer}{k}"] for k in range(rank)])
        found.append(parts.argmax(axis=0))
        columns = parts.max(axis=0)
    return {row.tobytes() for row in np.hstack(found).astype(np.int8)}


@pytest.mark.parametrize(
    ("inputs", "widths", "rank", "bound"),
    [
        (2, (3, 4), 3, (1 + 9 + 36) * (1 + 12 + 66)),  # 9 and 12 planes in two dimensions
        (1, (4,), 2, 1 + 4),
        (3, (1,), 4, 1 + 6),
        (2, (3, 1), 2, (1 + 3 + 3) * (1 + 1)),
    ],
)
def test_maxima_of_a_model_are_bounded(inputs: int, widths: tuple[int, ...], rank: int, bound: int) -> None:
    model, _ = maxima(inputs, widths, rank)
    report = onnxprune.count_regions(model, "-1000:1000")
    assert report["bounds"]["serra"] == maxout(inputs, widths, rank) == bound
    assert report["bounds"]["trivial"] == rank ** sum(widths)
    assert report["bounds"]["montufar"] is None
    assert (report["exact"], report["estimate"]) == (None, None)
    assert report["upper"] == min(bound, rank ** sum(widths))
    assert any("is a maximum" in line for line in report.lines())


def test_maxima_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(maxima(2, (3, 4), 3)[0].SerializeToString())
    ran = command(capsys, *"regions m.onnx --domain -1000:1000 --report r.json".split())
    assert (ran.code, ran.err) == (0, "")
    assert "at most 3,634 (proved; Serra 2018" in ran.out
    assert json.loads(Path("r.json").read_text(encoding="utf-8"))["bounds"]["serra"] == 3634
    for method in ("exact", "probe", "parity", "mip"):
        ran = command(capsys, *f"regions m.onnx --domain -1000:1000 --method {method}".split())
        assert (ran.code, ran.out) == (2, "")
        assert "is a maximum" in ran.err
        assert "at most 2,187" in ran.err  # 3 ways for each of 7
        assert len(ran.err.splitlines()) <= 2


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.lists(st.integers(1, 4), min_size=1, max_size=2), st.integers(2, 4))
def test_no_sample_contradicts_the_bounds_of_maxima(seed: int, inputs: int, widths: list[int], rank: int) -> None:
    model, tables = maxima(inputs, tuple(widths), rank, seed)
    report = onnxprune.count_regions(model, "-2:2", method="bounds")
    points = np.random.default_rng(seed).uniform(-2, 2, (20_000, inputs))
    assert len(patterns(tables, tuple(widths), rank, points)) <= report["upper"]
    bounds = report["bounds"]
    assert report["upper"] == min(bounds["empirical"], bounds["serra"], bounds["trivial"])
    assert bounds["empirical"] <= bounds["serra"] or bounds["empirical"] == bounds["trivial"]


def test_candidates_that_never_win_do_not_count() -> None:
    tables = {"five": np.array([5.0], np.float32), "one": np.array([1.0], np.float32)}
    model = parse("a = Sub (x, five) b = Neg (x) y = Max (x, a, b)", "float[N,2] x", "float[N,2] y", tables)
    report = onnxprune.count_regions(model, "-1:1")
    assert report["bounds"]["trivial"] == 4  # x against -x, twice
    assert report["upper"] == 4
    assert report["layers"] == [{"active": 0, "inactive": 0, "unstable": 2}]
    apart = parse("a = Sub (x, five) y = Min (x, a, one)", "float[N,2] x", "float[N,2] y", tables)
    assert onnxprune.count_regions(apart, "-1:1")["exact"] == 1


def test_pooled_convolutions_are_bounded() -> None:
    body = """c = Conv (x, w) r = Relu (c) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
              f = Flatten (p) y = Gemm <transB = 1> (f, v)"""
    tables = {"w": np.array([[[[1.0, -1.0], [0.5, 2.0]]]], np.float32), "v": np.ones((1, 4), np.float32)}
    model = parse(body, "float[N,1,5,5] x", "float[N,1] y", tables)
    report = onnxprune.count_regions(model, "-1:1")
    assert report["bounds"]["trivial"] == 2**16 * 4**4
    cells = [1, 1 + 24, 1 + 24 + 276, 1 + 24 + 276 + 2024, 1 + 24 + 276 + 2024 + 10626]  # of 24 planes, by dimension
    assert report["bounds"]["serra"] == sum(math.comb(16, on) * cells[min(on, 4)] for on in range(17))
    values = np.random.default_rng(0).uniform(-1, 1, (1, 1, 5, 5)).astype(np.float32)
    near = onnxprune.count_regions(model, around(values, 1e-6, input_specs(model)), method="exact")
    assert (near["exact"], near["upper"]) == (1, 1)


@pytest.mark.parametrize("seed", range(4))
def test_rectifiers_without_rows_are_bounded_as_with_them(seed: int) -> None:
    rng, tables, before = np.random.default_rng(seed), [], 2
    for width in (5, 4, 3):
        tables.append((rng.normal(size=(width, before)), 0.5 * rng.normal(size=width)))
        before = width
    reading = read(layers(*tables), "-1:1")
    stages = survey.survey(reading)
    network = RegionNetwork.of_reading(reading)
    assert [len(stage.open) for stage in stages] == list(network.sizes)
    assert most_cells(2, stages, everything=True) == serra(2, (5, 4, 3))
    assert count_exactly(network).lower <= Remaining(network).bound(()) <= most_cells(2, stages) <= serra(2, (5, 4, 3))
    assert ways(stages) == 2**network.unstable


@pytest.mark.parametrize(("limit", "text"), [("MOST_UNITS", "too many to count"), ("MOST_WORK", "too much work")])
def test_networks_too_large_to_count_are_bounded(limit: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = layers(([[1, 0], [0, 1], [1, 1]], [0, 0, 0]))
    monkeypatch.setattr(survey, limit, 2)
    with pytest.raises(InputError, match=rf"3 units may switch.*{text}.*at most 7"):
        onnxprune.count_regions(model, "-1:1", method="exact")
    report = onnxprune.count_regions(model, "-1:1")
    assert (report["exact"], report["upper"], report["method"]) == (None, 7, "auto")
    assert text in report.notes[0]


def test_numbers_too_long_to_write_out() -> None:
    wide = np.vstack([np.eye(2)] * 700)
    report = onnxprune.count_regions(layers((wide, np.linspace(-0.9, 0.9, 1400))), "-1:1", method="bounds")
    told = json.loads(report.to_json())["bounds"]
    assert report["bounds"]["trivial"] == 2**1400
    assert (told["trivial"], told["serra"]) == (number(2**1400), 1 + 1400 + 1400 * 1399 // 2)
    assert number(2**20_000) == "3.98e6020"
    for power in itertools.chain(range(16, 40), (299, 301)):
        assert number(10**power) == f"1.00e{power}"
