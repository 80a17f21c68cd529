"""The documentation builds without a warning, and its reference has what the code has."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import onnxprune
from onnxprune.cli.main import COMMANDS
from onnxprune.operators import registry
from onnxprune.pass_registry import available
from tests.docs.blocks import ROOT, pages

pytestmark = pytest.mark.skipif(
    not (find_spec("material") and find_spec("mkdocstrings")), reason="the extra docs is not installed"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning, such as a broken link, is an error."""
    folder = tmp_path_factory.mktemp("site")
    arguments = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    ran = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return folder


def words(site: Path, page: str) -> str:
    """The text of a page without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", " ", (site / page / "index.html").read_text(encoding="utf-8")))


def test_every_page_is_built(site: Path) -> None:
    for page in pages():
        name = page.relative_to(ROOT / "docs").with_suffix("") if "docs" in page.parts else None
        if name and name.name != "index":
            assert (site / name / "index.html").is_file()


def test_the_reference_has_what_the_code_has(site: Path) -> None:
    commands = words(site, "reference/commands")
    assert all(f"onnxprune {name}" in commands for name in (*COMMANDS, "regions diff", "regions slice"))
    assert all(option in commands for option in ("--domain D", "--certificate C.json", "--sparsity X"))
    assert all(name in words(site, "reference/passes") for name in available())
    assert all(name in words(site, "reference/operators") for _, name in registry())
    python = words(site, "reference/python")
    assert all(f"onnxprune.{name}" in python for name in onnxprune.__all__)
    assert "units.removed" in words(site, "reference/report-schema")
    assert "claims[].state" in words(site, "reference/certificate-schema")


def test_tables_are_taken_from_the_benchmarks(site: Path) -> None:
    """Figures stand in one place, the benchmark's page."""
    row = next(
        line
        for line in (ROOT / "tests/benchmarks/regions/README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| 4-18 |")
    )
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    shown = " ".join(words(site, "papers/counting").split())
    assert all(cell in shown for cell in cells if cell)
