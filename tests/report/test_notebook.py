"""What a notebook shows of a result."""

from __future__ import annotations

import re

import pytest

from onnxprune.report.page.parts import asset
from tests.report.support import Elements, lossless, lossy


@pytest.mark.parametrize("kind", ["lossless", "lossy"])
def test_a_result_shows_its_figures(kind: str) -> None:
    result = lossless() if kind == "lossless" else lossy()
    shown = result._repr_html_()
    assert shown == result.report._repr_html_()
    found = Elements(shown)
    words = " ".join(found.texts)
    assert len(shown) < 4000
    assert [head.get("scope") for head in found.all("th")[:5]] == ["col"] * 5
    assert f"{result.report['after']['params']:,}" in words
    told = "units removed; largest difference" if kind == "lossless" else "weights are zero; on"
    assert told in words


def test_its_style_reaches_nothing_else() -> None:
    selectors = re.findall(r"^([^{}\n]+)\{", asset("notebook.css"), re.MULTILINE)
    assert selectors
    assert all(selector.startswith(".onnxprune-summary ") for selector in selectors)
