"""Systematic changes of JSON content: one kind for each kind of place and each way to change what stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
PER_KIND = 1
"""Changes of each kind that are tried."""


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        path: Where.
        how: Its name.
        value: What stands there afterwards; None together with "removed" for nothing.
    """

    path: Path
    how: str
    value: Any = None

    @property
    def kind(self) -> str:
        """The same for all changes of this kind: positions in lists and names of tensors do not count."""
        names = ["*" if isinstance(part, int) else part for part in self.path]
        text = re.sub(r"(\.\*)+", ".*", ".".join(names))
        text = re.sub(r"(inputs|multipliers|handed_on|promise|points|seen)\.\w+", r"\1.NAME", text)
        return f"{text} {self.how}"

    def apply(self, content: dict[str, Any]) -> dict[str, Any]:
        """The changed content."""
        found = deepcopy(content)
        place: Any = found
        for part in self.path[:-1]:
            place = place[part]
        if self.how == "removed":
            del place[self.path[-1]]
        else:
            place[self.path[-1]] = deepcopy(self.value)
        return found


def changes(content: dict[str, Any]) -> Iterator[Change]:
    """A few changes of every kind."""
    count: dict[str, int] = {}
    for change in _all(content, ()):
        count[change.kind] = count.get(change.kind, 0) + 1
        if count[change.kind] <= PER_KIND:
            yield change


def _all(value: Any, path: Path) -> Iterator[Change]:
    if path:
        yield from (Change(path, how, changed) for how, changed in _changed(value))
        if isinstance(path[-1], str):
            yield Change(path, "removed")
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _all(part, (*path, name))
    if isinstance(value, list):
        for number, part in enumerate(value):
            yield from _all(part, (*path, number))


def _changed(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool):
        yield "flipped", not value
    elif isinstance(value, int):
        yield from (("one more", value + 1), ("one less", value - 1), ("far off", 10**6))
    elif isinstance(value, float):
        step = 0.05 * max(1.0, abs(value))
        yield from (("larger", value + step), ("smaller", value - step), ("not a number", float("nan")))
    elif isinstance(value, str):
        yield from (("other text", "other"), ("a number", 3))
    elif isinstance(value, list) and value:
        yield from (("shorter", value[:-1]), ("longer", [*value, value[-1]]), ("empty", []))
    elif isinstance(value, dict) and value:
        yield "empty", {}
