"""Stacked bars made of HTML and CSS: small enough for a table of hundreds of layers, and nothing to install."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape


def stacked(counts: Mapping[str, int], left: float | None = None) -> str:
    """A bar cut in proportion to counts, which are its text alternative.

    Args:
        counts: By word; the words name the colours, see ``style.css``.
        left: Share of the whole that is left in the result, drawn as a line below the bar; None for no line.
    """
    shown = {word: count for word, count in counts.items() if count}
    words = ", ".join(f"{count:,} {word}" for word, count in shown.items()) or "nothing"
    parts = "".join(f'<i class="{escape(word)}" style="flex:{count}"></i>' for word, count in shown.items())
    line = "" if left is None else f'<u style="width:{100 * left:.1f}%"></u>'
    words += "" if left is None else f"; {left:.0%} left"
    return f'<span class="bar" role="img" aria-label="{escape(words)}"><b>{parts}</b>{line}</span>'


def legend(words: Iterable[str], left: bool = False) -> str:
    """What the colours of bars and plots stand for, and the line below the bars."""
    items = [f'<li><i class="{escape(word)}"></i>{escape(word)}</li>' for word in words]
    items += ["<li><u></u>left in the result</li>"] if left else []
    return f'<ul class="legend">{"".join(items)}</ul>'
