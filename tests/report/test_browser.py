"""Pages in a real browser: nothing is cut, everything can be read, tables sort; skipped where there is none."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.report.support import PAGES

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
BROWSER = next((path for path in map(shutil.which, NAMES) if path), None)
PHONE, DESKTOP = 390, 1280

# The page under test stands in a frame, whose width its media queries see; the harness writes what it finds into the
# document, which the browser then prints.
HARNESS = """<!DOCTYPE html><meta charset="utf-8">
<style>body { margin: 0 } iframe { border: 0; width: WIDTHpx; height: 2000px }</style>
<iframe src="PAGE"></iframe><pre id="found"></pre>
<script>
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const luminance = (colour) => channels(colour).slice(0, 3)
  .map((part) => (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
function ground(view, element) {
  for (let at = element; at; at = at.parentElement) {
    const colour = view.getComputedStyle(at).backgroundColor;
    const parts = channels(colour);
    if (parts.length < 4 || parts[3] > 0) return colour;
  }
  return "rgb(255, 255, 255)";
}
function faint(view, page) {
  const found = [];
  for (const element of page.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || element.tagName === "SCRIPT" || element.tagName === "STYLE") continue;
    const style = view.getComputedStyle(element);
    const colour = element.ownerSVGElement ? style.fill : style.color;
    const [dark, light] = [luminance(colour), luminance(ground(view, element))].sort((a, b) => a - b);
    if ((light + 0.05) / (dark + 0.05) < 4.5) found.push(element.tagName + ": " + element.textContent);
  }
  return found;
}
function sorted(page) {
  const table = page.querySelector("table.sortable");
  const column = [...table.tHead.rows[0].cells].findIndex((head) => head.classList.contains("number"));
  const head = table.tHead.rows[0].cells[column];
  const values = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[column].dataset.value));
  const states = [];
  for (let times = 0; times < 2; times++) {
    head.querySelector("button").click();
    states.push([head.getAttribute("aria-sort"), values()]);
  }
  return states;
}
document.querySelector("iframe").addEventListener("load", (event) => {
  const view = event.target.contentWindow, page = view.document;
  const root = page.documentElement;
  const button = page.querySelector("th button");
  button.focus({ focusVisible: true });
  const outline = view.getComputedStyle(button).outlineStyle;
  const outside = [...page.querySelectorAll("main > *, section > *, figure, .plots > *")]
    .filter((part) => part.getBoundingClientRect().right > root.clientWidth + 1)
    .map((part) => part.outerHTML.slice(0, 99));
  const found = {
    width: root.clientWidth, scroll: root.scrollWidth, ground: view.getComputedStyle(page.body).backgroundColor,
    outline, outside, faint: faint(view, page), sorted: sorted(page),
    empty: [...page.querySelectorAll("svg")].filter((part) => part.getBoundingClientRect().height < 30).length,
  };
  document.querySelector("#found").textContent = JSON.stringify(found);
});
</script>"""


def look(folder: Path, page: str, width: int, *, dark: bool) -> dict[str, Any]:
    """What a browser makes of a page at a width, in a colour scheme."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    harness = folder / "harness.html"
    harness.write_text(HARNESS.replace("WIDTH", str(width)).replace("PAGE", "page.html"), encoding="utf-8")
    arguments = (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"),
        *(f"--user-data-dir={folder / 'profile'}", f"--blink-settings=preferredColorScheme={int(not dark)}"),
        *("--virtual-time-budget=20000", "--dump-dom", harness.as_uri()),
    )
    assert BROWSER is not None
    ran = subprocess.run([BROWSER, *arguments], capture_output=True, text=True, timeout=120, check=False)
    shown = re.search(r'<pre id="found">(.+?)</pre>', ran.stdout, re.DOTALL)
    assert shown, ran.stderr[-2000:]
    found: dict[str, Any] = json.loads(html.unescape(shown[1]))
    return found


@pytest.mark.skipif(BROWSER is None, reason="no Chromium-like browser is installed")
@pytest.mark.parametrize(
    ("kind", "width", "dark"),
    [
        ("lossless", PHONE, True),
        ("lossy", DESKTOP, False),
        pytest.param("lossless", DESKTOP, False, marks=pytest.mark.slow),
        pytest.param("lossless", DESKTOP, True, marks=pytest.mark.slow),
        pytest.param("lossless", PHONE, False, marks=pytest.mark.slow),
        pytest.param("lossy", DESKTOP, True, marks=pytest.mark.slow),
        pytest.param("lossy", PHONE, False, marks=pytest.mark.slow),
        pytest.param("lossy", PHONE, True, marks=pytest.mark.slow),
        pytest.param("large", PHONE, True, marks=pytest.mark.slow),
    ],
)
def test_a_page_in_a_browser(tmp_path: Path, kind: str, width: int, dark: bool) -> None:
    found = look(tmp_path, PAGES[kind]().to_html(), width, dark=dark)
    assert found["width"] == found["scroll"] == width
    assert found["outside"] == []
    assert found["faint"] == []
    assert found["outline"] != "none"
    assert found["empty"] == 0
    assert (sum(map(int, re.findall(r"\d+", found["ground"]))) < 3 * 128) == dark
    (up, first), (down, second) = found["sorted"]
    assert (up, down) == ("descending", "ascending")
    assert first == sorted(first, reverse=True)
    assert second == sorted(first)
