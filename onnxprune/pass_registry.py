"""Finds passes through the entry-point group ``onnxprune.passes`` and parses their options."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, cast

from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.operators.registry import load_plugin
from onnxprune.pass_api import Pass

GROUP = "onnxprune.passes"


@cache
def available() -> dict[str, type[Pass]]:
    """Pass classes by name, in default order; built-in ones and those of installed plug-ins."""
    found: dict[str, type[Pass]] = {}
    for entry in entry_points(group=GROUP):
        cls = load_plugin(entry)
        required = ("name", "exactness", "order", "run")
        missing = [name for name in required if not hasattr(cls, name)]
        if missing or not dataclasses.is_dataclass(cls):
            raise EnvironmentFailure(
                f"Plug-in pass '{entry.name}' ({entry.value}) is not a pass: missing {missing or 'dataclass'}.",
                hint="Fix or uninstall the package that provides it.",
            )
        accepted = cast("type[Pass]", cls)
        found[accepted.name] = accepted
    if not found:
        raise EnvironmentFailure(
            "No passes are installed.",
            hint="Install the package (pip install .) and run outside its source tree.",
        )
    return dict(sorted(found.items(), key=lambda item: (item[1].order is None, item[1].order or 0, item[0])))


def select(names: str | Sequence[str] | None, skip: Sequence[str] = ()) -> list[Pass]:
    """Passes to run, in the order given (default: the default pipeline).

    Args:
        names: ``a,b{k=1}`` or a sequence of such items.
        skip: Names to leave out.

    Raises:
        InputError: Unknown pass or option, or an option of the wrong type.
    """
    known = available()
    for name in skip:
        _known(name, known)
    if names is None:
        chosen = [cls() for cls in known.values() if cls.order is not None]
    else:
        items = _split(names) if isinstance(names, str) else list(names)
        if not items:
            raise InputError("No passes are named.", hint=f"Known passes: {', '.join(known)}.")
        chosen = [_parse(item, known) for item in items]
    return [p for p in chosen if p.name not in skip]


def _split(text: str) -> list[str]:
    return [item.strip() for item in re.findall(r"[^,{}]+(?:\{[^}]*\})?", text) if item.strip()]


def _known(name: str, known: dict[str, type[Pass]]) -> type[Pass]:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known passes: {', '.join(known)}."
        raise InputError(f"Unknown pass '{name}'.", hint=hint)
    return known[name]


def _parse(item: str, known: dict[str, type[Pass]]) -> Pass:
    match = re.fullmatch(r"([\w.-]+)(?:\{(.*)\})?", item)
    if match is None:
        raise InputError(f"Cannot read the pass '{item}'.", hint="Write name or name{option=value,...}.")
    cls = _known(match[1], known)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type] # passes are dataclasses
    options: dict[str, Any] = {}
    for part in filter(None, (match[2] or "").split(",")):
        key, _, text = part.partition("=")
        if key.strip() not in fields:
            raise InputError(
                f"Pass '{cls.name}' has no option '{key.strip()}'.",
                hint=f"Options: {', '.join(fields) or 'none'}.",
            )
        options[key.strip()] = _convert(text.strip(), fields[key.strip()], cls.name)
    return cls(**options)


def _convert(text: str, field: dataclasses.Field[Any], owner: str) -> Any:
    kind: type[Any] = type(field.default)
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError, TypeError):
        raise InputError(
            f"Option '{field.name}' of pass '{owner}' cannot be '{text}'.", hint=f"It is a {kind.__name__}."
        ) from None
