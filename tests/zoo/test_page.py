"""The page: one file, no network, every model, everything escaped; and the table on a terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from onnxprune.zoo import Row, Status, Summary
from onnxprune.zoo.page import page
from onnxprune.zoo.table import print_zoo

GOOD = Row(
    "a <b>.onnx",
    "k",
    Status.OPTIMIZED,
    before={"params": 10, "macs": 20, "bytes": 100, "latency_ms": None},
    after={"params": 5, "macs": 20, "bytes": 50, "latency_ms": None},
    units=(4, 2),
    error=2e-7,
    samples=3,
    files={"a <b>.onnx": 50},
    domain=("0:1",),
)
BAD = Row("sub/z.onnx", "k", Status.FAILED, 'no such <thing> & "more"')


class Reader(HTMLParser):
    """Rows of the table and everything that could be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.links: list[str] = []
        self.values: list[list[str | None]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in ("meta", "wbr"):
            self.stack.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr" and "tbody" in self.stack:
            self.values.append([])
        if tag in ("td", "th") and "tbody" in self.stack:
            self.values[-1].append(given.get("data-value"))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, "every element is closed in turn"

    def handle_data(self, data: str) -> None:
        if "td" in self.stack:
            self.texts.append(data)


def read(summary: Summary) -> Reader:
    reader = Reader()
    reader.feed(page(summary))
    assert not reader.stack
    return reader


def summary(*rows: Row, **options: Any) -> Summary:
    return Summary(rows, options.pop("found", len(rows)), 1.5, "models & more", **options)


def test_the_page_stands_alone_and_escapes() -> None:
    reader = read(summary(GOOD, BAD, notes=("x < y",)))
    assert reader.links == ["a%20%3Cb%3E.onnx.report.json"]
    assert not re.search(r"https?:|@import|url\(", page(summary(GOOD)))
    assert BAD.reason in reader.texts
    assert [values[0] for values in reader.values] == ["a <b>.onnx", "sub/z.onnx"]


def test_cells_sort_by_numbers_and_leave_out_what_is_unknown() -> None:
    good, bad = read(summary(GOOD, BAD)).values
    assert good[2:8] == ["2", "-50.0", "0.0", "-50.0", None, "2e-07"]
    assert bad[2:8] == [None] * 6


def test_of_very_many_models_failures_come_first_then_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.zoo.page.MOST_ROWS", 2)
    still = Row("s.onnx", "k", Status.UNCHANGED, before={"bytes": 10}, after={"bytes": 10})
    reader = read(summary(still, GOOD, BAD))
    assert [values[0] for values in reader.values] == ["sub/z.onnx", "a <b>.onnx"]


def shown(which: Summary, *, every: bool = False) -> str:
    text = io.StringIO()
    print_zoo(which, every=every, file=text)
    return text.getvalue()


def test_the_table_lists_models_and_says_why_some_failed() -> None:
    text = shown(summary(GOOD, BAD, found=3))
    assert re.search(r"a <b>\.onnx +optimized +2 +-50\.0 % +\+0\.0 % +- +0\.0", text)
    assert 'failed: sub/z.onnx: no such <thing> & "more"' in text
    assert "all together: parameters -50.0 %, multiply-adds +0.0 %, bytes -50.0 %" in text
    assert text.endswith("3 models in 1.5 s: 1 optimized, 1 failed, 1 not run\n")


def test_a_large_zoo_is_not_listed_unless_asked_for() -> None:
    deep = replace(GOOD, path="folder/" * 9 + "end.onnx")
    assert re.search(r"^\.\.\.[a-z/]{25}end\.onnx ", shown(summary(deep)), re.MULTILINE)
    assert max(map(len, shown(summary(deep)).splitlines())) <= 100
    many = summary(*[GOOD] * 101, *[BAD] * 25)
    assert GOOD.path not in shown(many)
    assert "and 5 more" in shown(many)
    assert shown(many, every=True).count(GOOD.path) == 101
