"""Whatever stands in a certificate: it is accepted, or rejected with a reason, but never an error."""

from __future__ import annotations

import contextlib
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.verify.reasons import Rejected
from tests.verify.support import handed_on_case, parallel_case, proved_by_cases, solver_case, split_case

CASES = {f.__name__: f for f in (split_case, proved_by_cases, parallel_case, handed_on_case, solver_case)}
ODD: list[Any] = [
    None, True, 0, -1, 1, 7, 2**31, 2**63, 10**400, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"),
    "", "x", "a", "inactive", [], [[]], [0], [-1], [0, 0], [0, [1]], ["x"], [None], [1e308], [float("nan")],
    float("-inf"), {}, {"a": 1}, {"array": "a0"}, {"array": []},
]  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Containers and keys of everything inside some content."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def edit(data: st.DataObject, content: dict[str, Any]) -> None:
    """Change something somewhere."""
    found = places(content)
    if not found:
        return
    where, key = data.draw(st.sampled_from(range(len(found))).map(found.__getitem__))
    kind = data.draw(st.sampled_from(["remove", "replace", "repeat", "swap", "shift"]))
    value = where[key]
    if kind == "remove":
        del where[key]
    elif kind == "repeat" and isinstance(value, list):
        where[key] = value * 2
    elif kind == "swap":
        other, place = data.draw(st.sampled_from(range(len(found))).map(found.__getitem__))
        where[key], other[place] = deepcopy(other[place]), deepcopy(value)
    elif kind == "shift" and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
        where[key] = value + data.draw(st.sampled_from([-1, 1, 1000, -0.5, 1e-3, 1e30]))
    else:
        where[key] = deepcopy(data.draw(st.sampled_from(ODD)))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_malformed_certificate_is_rejected_with_a_reason(name: str, data: st.DataObject) -> None:
    case = CASES[name]()
    content = deepcopy(case.content)
    for _ in range(data.draw(st.integers(1, 3))):
        edit(data, content)
    with contextlib.suppress(Rejected):
        case.check(content)
