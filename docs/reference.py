"""Reference pages, made from the code when the site is built, so that nothing is copied by hand."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.resources import files
from typing import Any

import onnxprune
from onnxprune.cli.main import COMMANDS
from onnxprune.cli.operators import COLUMNS
from onnxprune.operators import abilities, registry
from onnxprune.pass_registry import available

Schema = dict[str, Any]


def reference_pages() -> dict[str, str]:
    """Markdown by page."""
    return {
        "reference/commands.md": commands(),
        "reference/python.md": python(),
        "reference/passes.md": passes(),
        "reference/operators.md": operators(),
        "reference/report-schema.md": schema("onnxprune.report", "report.schema.json"),
        "reference/certificate-schema.md": schema("onnxprune.verify", "certificate.schema.json"),
    }


def table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines) + "\n"


def commands() -> str:
    """Every command with its options, from the parsers."""
    text = [
        "# Commands\n\nExit codes: 0 done, 1 a check failed or the surroundings did, 2 bad input, 130 interrupted.\n"
    ]
    for name in COMMANDS:
        module = import_module(f"onnxprune.cli.{name}")
        text.append(_command(name, module.parser(f"onnxprune {name}")))
        for part in getattr(module, "PARTS", ()):
            parser = import_module(f"onnxprune.cli.{name}_{part}").parser(f"onnxprune {name} {part}")
            text.append(_command(f"{name} {part}", parser))
    return "\n".join(text)


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    usage = (parser.usage or parser.prog).replace(" | ", "\n")
    text = [f"## onnxprune {name}\n", f"{parser.description}\n", f"```text\n{usage}\n```\n"]
    for group in parser._action_groups:  # argparse has no public list of groups
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if actions:
            text += [f"**{group.title}**\n", table(("", ""), (_argument(action) for action in actions))]
    return "\n".join(text)


def _argument(action: argparse.Action) -> tuple[str, str]:
    value = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ())
    names = ", ".join(f"`{option}{f' {value}' if value else ''}`" for option in action.option_strings)
    return names or f"`{value}`", (action.help or "") % {**vars(action), "prog": ""}


def python() -> str:
    """The public names, with what their docstrings say."""
    names = "\n\n".join(f"::: onnxprune.{name}" for name in onnxprune.__all__)
    return (
        f"# Python\n\nEverything that is public; [deprecation](../contributing.md) is about these names.\n\n{names}\n"
    )


def passes() -> str:
    """The rewrite passes with their options."""
    text = ["# Passes\n\nIn their default order. `onnxprune passes` prints those of installed plug-ins, too.\n"]
    for name, cls in available().items():
        default = "runs by default" if cls.order is not None else "runs on request"
        text.append(f"## {name}\n\n`{cls.exactness.value}`, {default}.\n\n{inspect.getdoc(cls)}\n")
        fields = dataclasses.fields(cls)  # type: ignore[arg-type] # passes are dataclasses
        if fields:
            rows = ((f"`{field.name}`", f"`{field.type}`", f"`{field.default!r}`") for field in fields)
            text.append(table(("option", "type", "default"), rows))
    return "\n".join(text)


def operators() -> str:
    """The operators that are understood, with what is known of each."""
    rows = []
    for (domain, name), operator in sorted(registry().items()):
        able = abilities(operator)
        full = f"{domain}.{name}" if domain else name
        rows.append((f"`{full}`", *("yes" if ability in able else "" for ability in COLUMNS)))
    intro = (
        "All others are opaque: nothing is known of their outputs, and what feeds them is kept. *bounds*: interval\n"
        "arithmetic; *channels*: units can be removed through it; *affine*: linear bounds go through it exactly;\n"
        "*lines*: bounding lines; *pieces*: integer programmes; *slope*: derivatives; *choices*: picks an input.\n"
    )
    return f"# Operators\n\n{len(rows)} operators. {intro}\n" + table(("operator", *COLUMNS.values()), iter(rows))


def schema(package: str, name: str) -> str:
    """A JSON Schema as tables, one per definition."""
    content: Schema = json.loads((files(package) / name).read_text(encoding="utf-8"))
    parts = {"": content, **content.get("$defs", {})}
    text = [f"# {content['title']}\n\n{content.get('description', '')}\n", f"Installed as `{package}/{name}`.\n"]
    for part, definition in parts.items():
        rows = list(_rows(definition, ""))
        meant = any(row[2] for row in rows)
        if part:
            text.append(f"## {part}\n\n{definition.get('description', '')} {'' if rows else _kind(definition)}\n")
        if rows:
            columns = 3 if meant else 2
            text.append(table(("key", "type", "meaning")[:columns], (row[:columns] for row in rows)))
    return "\n".join(text)


def _rows(schema: Schema, path: str) -> Iterator[tuple[str, str, str]]:
    """Keys below a part of a schema, with their paths: ``[]`` for entries of a list, ``*`` for any key."""
    required = schema.get("required", ())
    for key, value in schema.get("properties", {}).items():
        where = f"{path}{key}"
        yield f"`{where}`" + ("" if key in required else " (optional)"), _kind(value), value.get("description", "")
        yield from _below(value, where)
    if isinstance(schema.get("additionalProperties"), dict):
        value = schema["additionalProperties"]
        yield f"`{path}*`", _kind(value), value.get("description", "")
        yield from _below(value, f"{path}*")


def _below(value: Schema, where: str) -> Iterator[tuple[str, str, str]]:
    yield from _rows(value, f"{where}.")
    if isinstance(value.get("items"), dict):
        yield from _rows(value["items"], f"{where}[].")


def _kind(value: Schema) -> str:
    """The type of a value in a few words."""
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return ", ".join(f"`{json.dumps(entry)}`" for entry in value["enum"])
    if choices := value.get("oneOf") or value.get("anyOf"):
        return " or ".join(_kind(choice) for choice in choices)
    if isinstance(value.get("items"), dict):
        return f"list of {_kind(value['items'])}"
    kinds = value.get("type", "anything")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)
