"""The schema of reports: real ones fit, whatever is not described does not, and every key is described."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import onnxprune
from onnxprune.regions.report import RegionReport
from onnxprune.surgeon.latency_budget import LatencyBudget
from tests.helpers import conv, dense, untouchable
from tests.report.support import lossless, lossy
from tests.surgeon.small import data, pruned

SCHEMA: dict[str, Any] = json.loads((files("onnxprune.report") / "report.schema.json").read_text(encoding="utf-8"))
QUIET: dict[str, Any] = {"budget": 0, "remember": False}


def check(text: str, kind: str) -> None:
    """Whether a report fits its own part of the schema, and no other."""
    content = json.loads(text)
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    part = {"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]}
    jsonschema.Draft202012Validator(part).validate(content)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def properties(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every property of every object, with where it stands."""
    if isinstance(schema, dict):
        for name, value in schema.get("properties", {}).items():
            yield f"{path}/{name}", value
        for name, value in schema.items():
            yield from properties(value, f"{path}/{name}")
    elif isinstance(schema, list):
        for number, value in enumerate(schema):
            yield from properties(value, f"{path}/{number}")


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every part that describes an object."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)


def test_every_key_is_described_and_no_other_is_allowed() -> None:
    found = list(properties(SCHEMA))
    assert len(found) > 100
    assert [path for path, value in found if not value.get("description")] == []
    assert all("additionalProperties" in part for part in objects(SCHEMA))


@pytest.mark.parametrize("field", ["surprise", "units"])
def test_an_unknown_or_a_missing_key_is_refused(field: str) -> None:
    content = json.loads(lossless().report.to_json())
    if field in content:
        del content[field]
    else:
        content[field] = 1
    with pytest.raises(jsonschema.ValidationError):
        check(json.dumps(content), "optimize")


def test_reports_of_lossless_runs_fit(tmp_path: Path) -> None:
    box: dict[str, Any] = {"x.lower": np.zeros(4), "x.upper": np.ones(4)}
    np.savez(tmp_path / "box.npz", **box)
    reports = [
        lossless().report,
        onnxprune.optimize(untouchable(), **QUIET).report,
        onnxprune.optimize(dense(), str(tmp_path / "box.npz"), goal="size", **QUIET).report,
        onnxprune.inspect(conv(), "x=0:1", shapes={"x": (1, 4, 5, 5)}, **QUIET),
    ]
    for report in reports:
        check(report.to_json(), "optimize")


@pytest.mark.parametrize(
    "options",
    [
        {"sparsity": 0.5, "classify": True, "labels": True},
        {"structure": "units", "macs": 0.5},
        {"structure": "2:4"},
        {"sparsity": 0.9, "sparse": True, "method": "magnitude", "metric": lambda outputs, labels: 1.0},
    ],
)
def test_reports_of_pruning_fit(options: dict[str, Any]) -> None:
    check(pruned(samples=data(labelled=True), **options).report.to_json(), "prune")


def test_the_report_of_a_budget_of_latency_fits() -> None:
    content = json.loads(lossy().report.to_json())
    content["asked"] = {"latency": 0.5}
    content["latency_budget"] = asdict(LatencyBudget(asked=0.5, macs=0.4, expected=0.48))
    check(json.dumps(content), "prune")


def test_reports_of_regions_fit() -> None:
    model = dense(inputs="float[1,4] x", outputs="float[1,3] y")
    for method in ("bounds", "probe", "exact"):
        check(onnxprune.count_regions(model, "0:1", method=method, budget=5).to_json(), "regions")


def test_counts_beyond_json_are_texts() -> None:
    report = onnxprune.count_regions(dense(inputs="float[1,4] x"), "0:1", method="bounds", budget=5)
    bounds = {**report["bounds"], "trivial": 2**2000}
    content = {**report, "upper": 2**2000, "bounds": bounds}
    assert '"upper": "1.14e602"' in RegionReport(content).to_json()
    check(RegionReport(content).to_json(), "regions")


def test_a_pruning_report_is_no_lossless_one() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(lossy().report.to_json(), "optimize")
