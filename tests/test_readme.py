"""Every command and every piece of Python in the README runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from onnxprune.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = re.findall(r"```(?:sh|text)\n(.*?)```", README, re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    found = [part.strip() for line in lines for part in line.split("&&")]
    found += re.findall(r"`(onnxprune [^`]*?models/[^`]*)`", README)
    return [line for line in dict.fromkeys(found) if line.startswith("onnxprune ")]


@pytest.mark.parametrize("command", commands())
def test_command(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    assert main(shlex.split(command)[1:]) == 0


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_main_command_names_a_model_that_is_there() -> None:
    assert any("models/slim_cnn.onnx" in command for command in commands())
    assert (ROOT / "models" / "slim_cnn.onnx").is_file()
