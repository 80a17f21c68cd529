"""The checker with one of its checks taken out, for tests that ask whether that check is needed."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import onnxprune.verify

FOLDER = Path(onnxprune.verify.__file__).parent


@dataclass(frozen=True)
class Site:
    """A place where something is rejected: a file of the checker, a line, and the function it is in."""

    file: str
    line: int
    function: tuple[str, ...]


@cache
def sites() -> list[Site]:
    """All places with ``raise Rejected``."""
    found = []
    for path in sorted(FOLDER.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [Site(path.name, line, names) for line, names in _raises(tree, ())]
    return found


def _raises(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    for child in ast.iter_child_nodes(node):
        inner = (*names, child.name) if isinstance(child, ast.FunctionDef | ast.ClassDef) else names
        if _rejects(child):
            yield child.lineno, names  # type: ignore[attr-defined] # statements have lines
        yield from _raises(child, inner)


def _rejects(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id == "Rejected"
    )


class _Without(ast.NodeTransformer):
    def __init__(self, line: int) -> None:
        self.line = line

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        return ast.copy_location(ast.Pass(), node) if _rejects(node) and node.lineno == self.line else node


@contextmanager
def without(site: Site) -> Iterator[None]:
    """The checker goes on where it would reject."""
    path = FOLDER / site.file
    tree = ast.fix_missing_locations(_Without(site.line).visit(ast.parse(path.read_text(encoding="utf-8"))))
    code = compile(tree, str(path), "exec")
    owner: Any = importlib.import_module(f"onnxprune.verify.{path.stem}")
    for name in site.function:
        code = _inner(code, name)
        owner = owner.__dict__[name]
    function = owner.__func__ if isinstance(owner, staticmethod) else owner
    assert isinstance(function, FunctionType)
    before = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = before


def _inner(code: CodeType, name: str) -> CodeType:
    return next(part for part in code.co_consts if isinstance(part, CodeType) and part.co_name == name)
