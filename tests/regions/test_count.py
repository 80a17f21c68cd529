"""One report from every method: known answers through ONNX models, and numbers that never contradict each other."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import onnxprune
from onnxprune.errors import InputError
from onnxprune.regions import job
from onnxprune.regions.report import number
from tests.helpers import parse

KEYS = """schema definition lower upper exact estimate bounds layers tolerance_sensitive seconds method seed"""


def layers(*tables: tuple[Any, Any]) -> ModelProto:
    """Gemm and Relu in turns, and the sum of the last units as output."""
    body: list[str] = []
    weights: dict[str, Any] = {}
    source, inputs = "x", np.array(tables[0][0]).shape[1]
    for n, (w, b) in enumerate(tables):
        weights |= {f"w{n}": np.array(w, np.float32), f"b{n}": np.array(b, np.float32)}
        body.append(f"g{n} = Gemm <transB = 1> ({source}, w{n}, b{n}) h{n} = Relu (g{n})")
        source = f"h{n}"
    weights["w"] = np.ones((1, len(tables[-1][1])), np.float32)
    body.append(f"y = Gemm <transB = 1> ({source}, w)")
    return parse(" ".join(body), f"float[N,{inputs}] x", "float[N,1] y", weights)


def random_model(seed: int = 0, inputs: int = 2, widths: tuple[int, ...] = (4, 3)) -> ModelProto:
    rng, tables = np.random.default_rng(seed), []
    for width in widths:
        tables.append((rng.normal(size=(width, inputs)), 0.3 * rng.normal(size=width)))
        inputs = width
    return layers(*tables)


THREE_LINES = layers(([[1, 0], [0, 1], [1, 1]], [0, 0, 0]))
MIRRORED = layers(([[1], [-1]], [0, 0]))
FOLD = layers(([[1], [-1]], [-0.5, 0.5]), ([[1, 1]], [-0.25]))


@pytest.mark.parametrize("method", ["auto", "exact", "mip"])
@pytest.mark.parametrize(
    ("model", "domain", "expected"),
    [(THREE_LINES, "-1:1", 6), (MIRRORED, "-1:1", 2), (FOLD, "0:1", 4), (THREE_LINES, "1:2", 1)],
    ids=["three lines", "mirrored", "fold", "stable"],
)
def test_known_answers(model: ModelProto, domain: str, expected: int, method: Any) -> None:
    report = onnxprune.count_regions(model, domain, method=method)
    assert (report["lower"], report["exact"]) == (expected, expected)
    assert report["upper"] == expected or (method == "mip" and report["upper"] > expected)
    assert list(report) == KEYS.split()
    assert json.loads(report.to_json())["exact"] == expected
    assert any("(exact" in line or "by the solver's word" in line for line in report.lines())


@pytest.mark.parametrize("method", ["exact", "mip"])
def test_definitions(method: Any) -> None:
    assert onnxprune.count_regions(MIRRORED, "-1:1", method=method, definition="patterns")["exact"] == 3
    assert onnxprune.count_regions(MIRRORED, "-1:1", definition="affine")["exact"] == 2


def test_signs_of_outputs_cut_too() -> None:
    model = parse(
        "h = Relu (x) y = Sub (h, half)", "float[N,1] x", "float[N,1] y", {"half": np.array([0.5], np.float32)}
    )
    assert onnxprune.count_regions(model, "-1:1")["exact"] == 2
    assert onnxprune.count_regions(model, "-1:1", include_output=True)["exact"] == 3


@pytest.mark.parametrize("seed", range(2))
def test_numbers_do_not_contradict_each_other(seed: int) -> None:
    model = random_model(seed)
    exact = onnxprune.count_regions(model, "-1:1", method="exact")["exact"]
    assert onnxprune.count_regions(model, "-1:1", method="mip")["exact"] == exact
    for method in ("auto", "probe", "parity", "bounds"):
        report = onnxprune.count_regions(model, "-1:1", method=method, seed=seed)
        known = {name: value for name, value in report["bounds"].items() if value is not None}
        assert report["lower"] <= exact <= min(known.values())
        assert known["serra"] <= known["montufar"]
        if report["estimate"]:
            assert report["estimate"]["lower95"] <= exact
        assert (method == "bounds") == (report["exact"] is None and report["estimate"] is None)
        assert [layer["unstable"] + layer["active"] + layer["inactive"] for layer in report["layers"]] == [4, 3]


def test_time_that_runs_out_is_said() -> None:
    model = random_model(1, 6, (12, 12))
    report = onnxprune.count_regions(model, "-1:1", budget=0.0)
    assert report["exact"] is None
    assert report["lower"] < report["upper"]
    assert report["estimate"]["lower95"] is None
    assert any("time ended" in line for line in report.lines())


def test_numba_is_named_where_it_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "COMPILED", False)
    told = [onnxprune.count_regions(random_model(), "-1:1", budget=budget).notes for budget in (0.0, 60.0)]
    assert "onnxprune[regions]" in told[0][-1]
    assert told[1] == ()


@pytest.mark.parametrize(("method", "limit"), [("exact", "LARGEST"), ("mip", "MIP_LARGEST")])
def test_too_many_regions_are_refused_with_the_reason(method: Any, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, limit, 5)
    with pytest.raises(InputError, match=r"About .* cells .*at most .* are too many"):
        onnxprune.count_regions(random_model(1), "-1:1", method=method)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "guess"}, "no method 'guess'"),
        ({"definition": "pieces"}, "no definition 'pieces'"),
        ({"method": "mip", "definition": "affine"}, "does not know affine"),
    ],
)
def test_bad_options(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        onnxprune.count_regions(THREE_LINES, "-1:1", **options)


def test_a_model_without_activations_has_one_region() -> None:
    model = parse("y = Identity (x)", "float[N,2] x", "float[N,2] y")
    report = onnxprune.count_regions(model, "0:1")
    assert report["exact"] == 1
    assert report.lines()


def test_numbers_are_readable() -> None:
    assert [number(n) for n in (7, 1234567, 1.5, 12345.6, 2.5e12)] == ["7", "1,234,567", "1.5", "12,346", "2.5e+12"]
    assert number(12 * 10**40) == "1.20e41"
