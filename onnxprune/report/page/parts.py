"""Building blocks of pages, as HTML text; everything given to them is escaped unless they say otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import NamedTuple


class Column(NamedTuple):
    """A column of a table; numbers are set to the right."""

    title: str
    numeric: bool = False


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        html: What is shown; escaped already.
        value: What the column is sorted by: a number, or a text; None sorts last.
    """

    html: str
    value: float | str | None = None


def text(value: str, shown: str | None = None) -> Cell:
    """A cell with a text, sorted by it."""
    return Cell(escape(value if shown is None else shown), value)


def short(value: str) -> Cell:
    """A cell with a text that is not broken at the end of a line."""
    return Cell(f'<span class="short">{escape(value)}</span>', value)


def number(value: float | None, pattern: str = "{:,}") -> Cell:
    """A cell with a number, or a dash where it is unknown."""
    return Cell("-" if value is None else escape(pattern.format(value)), value)


def pill(word: str, tone: str = "") -> str:
    """A word on coloured ground; ``tone`` is ``good``, ``bad``, ``warn`` or empty."""
    return f'<span class="pill {escape(tone)}">{escape(word)}</span>'


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Large figures, each above its name."""
    parts = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in figures)
    return f'<dl class="tiles">{"".join(parts)}</dl>'


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, sortable: bool = True) -> str:
    """A table that the buttons in the heads of its columns sort; the first cell of a row is the row's head.

    The frame takes the focus, so that a table wider than the screen can be scrolled with the keyboard.
    """
    heads = [escape(column.title) for column in columns]
    if sortable:
        heads = [f'<button type="button">{title}</button>' for title in heads]
    head = "".join(
        f'<th scope="col"{_class(column)}>{title}</th>' for column, title in zip(columns, heads, strict=True)
    )
    kind = ' class="sortable"' if sortable else ""
    body = "\n".join(f"<tr>{_cells(columns, row)}</tr>" for row in rows)
    return (
        f'<div class="wide" role="region" aria-label="{escape(caption)}" tabindex="0"><table{kind}>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _class(column: Column) -> str:
    return ' class="number"' if column.numeric else ""


def _cells(columns: Sequence[Column], row: Sequence[Cell]) -> str:
    first, *others = zip(columns, row, strict=True)
    return _cell("th", *first, ' scope="row"') + "".join(_cell("td", *both) for both in others)


def _cell(element: str, column: Column, cell: Cell, scope: str = "") -> str:
    value = "" if cell.value is None else f' data-value="{escape(str(cell.value))}"'
    return f"<{element}{scope}{_class(column)}{value}>{cell.html}</{element}>"


def document(title: str, body: str) -> str:
    """A whole page around ``body``, which is HTML already; styles and scripts stand in it."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{asset("style.css")}</style>
</head>
<body>
<main>
{body}
</main>
<script>
{asset("sort.js")}</script>
</body>
</html>
"""


@cache
def asset(name: str) -> str:
    """Text of a file of this package."""
    return (files("onnxprune.report.page") / name).read_text(encoding="utf-8")
