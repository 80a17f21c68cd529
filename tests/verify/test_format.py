"""The documented form of certificates: the JSON Schema and the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import onnxprune.verify
from tests.verify.support import handed_on_case, parallel_case, proved_by_cases, solver_case, split_case

CASES = (split_case, proved_by_cases, parallel_case, handed_on_case, solver_case)
SCHEMA = json.loads((Path(onnxprune.verify.__file__).parent / "certificate.schema.json").read_text(encoding="utf-8"))
PAGE = Path(__file__).parents[2] / "docs" / "certificate.md"


def checker() -> Any:
    return jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("make", CASES)
def test_certificates_have_the_form_of_the_schema(make: Any) -> None:
    checker().validate(make().content)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("claims", 0, "state"), "stable"),
        (("bounds", "original", 0, "rule"), "best"),
        (("bounds", "original", 0, "method"), "linear"),
        (("relation", "tensors", 0, "rows"), [0.5]),
        (("promise", "y", "deviation"), -1.0),
        (("seal",), "none"),
        (("comment",), "new"),
    ],
)
def test_the_schema_refuses(path: tuple[Any, ...], value: Any) -> None:
    content = deepcopy(split_case().content)
    place: Any = content
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    assert not checker().is_valid(content)


def fields(schema: Any) -> Iterator[str]:
    """Names of all fields."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for part in schema.values():
            yield from fields(part)
    if isinstance(schema, list):
        for part in schema:
            yield from fields(part)


def words(schema: Any) -> Iterator[str]:
    """All values that fields are restricted to."""
    if isinstance(schema, dict):
        yield from schema.get("enum", [])
        for part in schema.values():
            yield from words(part)
    if isinstance(schema, list):
        for part in schema:
            yield from words(part)


def test_the_page_describes_every_field_and_word() -> None:
    text = PAGE.read_text(encoding="utf-8")
    missing = [name for name in {*fields(SCHEMA), *words(SCHEMA), SCHEMA["properties"]["format"]["const"]}
               if name != "array" and f"`{name}`" not in text]  # fmt: skip
    assert not missing
