"""The checker shares no code with what it checks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import onnxprune.verify

FOLDER = Path(onnxprune.verify.__file__).parent
FORBIDDEN = ("bounds", "mip", "passes", "stability", "certificate", "pipeline", "optimizer", "operators", "facts")
CHECKER = sorted(FOLDER.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of modules, and of what is taken from them, at any depth of a file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            package = "onnxprune.verify" if node.level else ""
            module = ".".join(part for part in (package, node.module or "") if part)
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", CHECKER, ids=lambda path: path.stem)
def test_nothing_of_the_prover_is_imported(path: Path) -> None:
    names = imported(path)
    for part in FORBIDDEN:
        within = f"onnxprune.{part}"
        assert not [name for name in names if name == within or name.startswith(f"{within}.")]


@pytest.mark.parametrize("path", CHECKER, ids=lambda path: path.stem)
def test_no_module_is_imported_by_a_computed_name(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "importlib" not in text
    assert "__import__" not in text
