"""Which files are models, and over which domains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxprune.errors import InputError
from onnxprune.zoo import DomainRules
from onnxprune.zoo.finding import find_models


@pytest.fixture
def tree(zoo: Path) -> Path:
    for name in ("b.onnx", "a.onnx", "notes.txt", "faces/x.onnx", "faces/deep/y.ONNX", "out/a.onnx", "a.onnx.data"):
        path = zoo / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return zoo


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), ["a.onnx", "b.onnx", "faces/x.onnx", "faces/deep/y.ONNX"]),
        (("faces/*",), (), ["faces/x.onnx", "faces/deep/y.ONNX"]),
        (("a.onnx", "x*"), (), ["a.onnx", "faces/x.onnx"]),
        ((), ("faces/deep/*", "b.*"), ["a.onnx", "faces/x.onnx"]),
        (("*.txt",), (), ["notes.txt"]),
        (("nothing",), (), []),
    ],
)
def test_globs_fit_paths_or_names(tree: Path, include: tuple[str], exclude: tuple[str], expected: list[str]) -> None:
    assert find_models(tree, tree / "out", include, exclude) == (expected, [])


@pytest.mark.parametrize("output", [".", ".."])
def test_an_output_folder_that_holds_the_models(tree: Path, output: str) -> None:
    with pytest.raises(InputError, match="holds"):
        find_models(tree, tree / output)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such folder"):
        find_models(tmp_path / "missing", tmp_path / "out")


def test_the_first_glob_that_fits_gives_the_domain(tmp_path: Path) -> None:
    path = tmp_path / "domains.json"
    path.write_text(json.dumps({"faces/*": "0:1", "b.onnx": ["box.npz", "x=-1:1"], "free*": None}))
    rules = DomainRules.read(path, ["0:255"])
    assert rules.texts("faces/deep/b.onnx") == ("0:1",)
    assert rules.texts("b.onnx") == (str(tmp_path / "box.npz"), "x=-1:1")
    assert rules.texts("free.onnx") == ()
    assert rules.texts("other.onnx") == ("0:255",)


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', '{"a": [1]}'])
def test_domain_files_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    path = tmp_path / "domains.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"domains\.json"):
        DomainRules.read(path)
    with pytest.raises(InputError, match="Cannot read"):
        DomainRules.read(tmp_path / "missing.json")
