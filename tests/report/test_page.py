"""Pages without a browser: one file, well formed, described for those who do not see it, and complete."""

from __future__ import annotations

import re
import sys
from itertools import pairwise

import numpy as np
import pytest

from onnxprune.report.page import optimized, plots
from onnxprune.report.page.parts import asset
from onnxprune.report.table import STATES
from onnxprune.stability import LayerStates, State
from tests.report.support import PAGES, TRICKY, Elements, large, lossless, lossy

EMPTY = LayerStates(
    "none", "Conv", "Relu", (State.UNDECIDED,), np.array([np.nan]), np.array([-np.inf]), np.array([1.0])
)


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest) -> str:
    """A page as text."""
    return PAGES[request.param]().to_html()


def test_a_page_is_one_file_that_needs_no_network(page: str) -> None:
    assert "://" not in page
    assert not re.search(r"""(?:src|href)\s*=\s*"(?!#)|url\((?!#)|@import""", page)
    assert len(page.encode()) < 1_000_000


def test_a_page_is_well_formed(page: str) -> None:
    found = Elements(page)
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'"(?:url\()?#([^")]+)', page)) <= set(ids)
    assert found.all("html") == [{"lang": "en"}]
    assert len(found.all("title")) == 1


def test_headings_are_in_order(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Elements(page).found if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_tables_have_captions_and_heads_that_say_what_they_head(page: str) -> None:
    found = Elements(page)
    assert len(found.all("caption")) == len(found.all("table")) > 3
    assert all(head.get("scope") in ("col", "row") for head in found.all("th"))
    frames = [a for a in found.all("div") if a.get("class") == "wide"]
    assert all(a["role"] == "region" and a["aria-label"] and a["tabindex"] == "0" for a in frames)
    assert all(button.get("type") == "button" for button in found.all("button"))


def test_pictures_have_text_alternatives(page: str) -> None:
    found = Elements(page)
    pictures = found.all("svg") + [a for a in found.all("span") if a.get("class") == "bar"]
    assert pictures
    assert all(a.get("role") == "img" and a.get("aria-label") for a in pictures)


def test_names_are_text_and_never_markup() -> None:
    page = large(layers=3).to_html()
    assert "<script>alert" not in page
    assert len(Elements(page).all("script")) == 1
    assert page.count("&lt;script&gt;alert") >= 3
    assert any(TRICKY in text for text in Elements(page).texts)


def test_a_page_says_what_the_report_says() -> None:
    report = lossless().report
    words = " ".join(Elements(report.to_html()).texts)
    units = report["units"]
    assert f"{units['removed']} of {units['total']}" in words
    for text in (*report["kept_because"], *(entry["name"] for entry in report["passes"]), report["model"]["sha256"]):
        assert text in words
    label = ", ".join(f"{report['layers'][0][s]} {s}" for s in STATES if report["layers"][0][s])
    left = len(report["layers"][0]["kept"]) / report["layers"][0]["total"]
    assert f'aria-label="{label}; {left:.0%} left"' in report.to_html()


def test_a_page_of_a_pruned_model_warns_first() -> None:
    words = " ".join(Elements(lossy().report.to_html()).texts)
    assert words.index("changes the function") < words.index("multiply-adds")
    assert f"{lossy().report['weights']['sparsity']:.1%}" in words


def test_only_the_layers_with_the_most_open_units_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimized, "MOST_PLOTS", 3)
    report = large(layers=8)
    openness = [layer["unstable"] + layer["undecided"] for layer in report["layers"]]
    captions = re.findall(r"<figcaption><b>([^<]*)</b>", report.to_html())
    chosen = sorted(range(8), key=lambda n: openness[n], reverse=True)[:3]
    assert [int(re.findall(r"block\.(\d+)", c)[0]) if "block" in c else 0 for c in captions] == sorted(chosen)
    assert "Drawn are the 3 of 8 layers" in report.to_html()


def test_without_matplotlib_a_page_has_all_figures_as_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = large(layers=3).to_html()
    assert "<svg" not in page
    assert page.count("pip install &#x27;onnxprune[plots]&#x27;") == 2
    assert "Quantiles of the latency" in page
    assert "Bounds and margins per layer" in page
    Elements(page)


def test_bounds_are_drawn_to_scale() -> None:
    """Over a symmetric axis the middle is 0; an interval and its mirror image have mirrored ends."""
    states = (State.UNSTABLE, State.UNSTABLE)
    bounds = np.array([-4.0, -2.0]), np.array([2.0, 4.0])
    drawing = plots.intervals(LayerStates("l", "Gemm", "Relu", states, np.full(2, np.nan), *bounds))
    strokes = re.findall(r'<path d="([^"]*)"[^>]*var\(--unstable\)', drawing)
    (left, first), (second, right) = [
        [float(x) for x in re.findall(r"[ML] ([\d.]+) [\d.]+", part)] for part in re.split(r"(?=M)", strokes[0]) if part
    ]
    assert left < second < first < right
    assert left + right == pytest.approx(first + second, abs=0.3)


def test_units_without_bounds_are_not_drawn() -> None:
    assert plots.intervals(EMPTY) == ""
    huge = LayerStates("huge", "Conv", "", (State.ACTIVE,), np.array([np.inf]), np.array([-3e38]), np.array([3e38]))
    assert not plots.bounded(huge).any()


def test_a_sample_of_a_wide_layer_keeps_states_and_ends() -> None:
    layer = large(layers=2, units=1000).details.layers[1]
    chosen = plots.drawn(layer)
    assert len(chosen) == plots.MOST_UNITS == len(set(chosen.tolist()))
    places = [list(State).index(layer.states[unit]) for unit in chosen]
    assert places == sorted(places)
    assert set(places) == set(range(len(State)))


def luminance(colour: str) -> float:
    """Relative luminance after WCAG 2."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """Contrast ratio after WCAG 2."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(scheme: str) -> None:
    light, dark = re.findall(r":root \{(.*?)\}", asset("style.css"), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", light if scheme == "light" else dark))
    grounds = [("ink", g) for g in ("ground", "raised")] + [("quiet", g) for g in ("ground", "raised")]
    grounds += [("accent", "ground")] + [(tone, f"{tone}-ground") for tone in ("good", "warn", "bad")]
    for one, other in grounds:
        assert contrast(colours[one], colours[other]) >= 4.5, (one, other)
    for word in (*STATES, "nonzero", "zero"):
        assert contrast(colours[word], colours["ground"]) >= 3, word


def test_nothing_moves() -> None:
    assert not re.search("animation|transition|scroll-behavior", asset("style.css") + asset("sort.js"))
