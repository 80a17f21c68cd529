"""Every command and every piece of Python in the README and in the documentation runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onnxprune.cli.main import main
from tests.docs.blocks import ROOT, Block, blocks, pages

EXTRAS = re.search(r"\[project.optional-dependencies\]\n(.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]
SLOW = [pytest.param(*page.values, id=page.id) for page in PAGES if any(block.slow for block in blocks(page.values[0]))]  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory like a clone, as far as the pages use it."""
    monkeypatch.chdir(tmp_path)
    for name in ("models", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def check_installation(command: str) -> None:
    """A shown ``pip install`` is not run, but has to name this package and extras that it has."""
    assert EXTRAS
    known = re.findall(r"^(\w+) = ", EXTRAS[1], re.MULTILINE)
    wanted = re.findall(r"\[([\w,]+)\]", command)
    assert re.fullmatch(r"(onnxprune|\.)(\[[\w,]+\])?", shlex.split(command)[-1]), command
    assert set(",".join(wanted).split(",")) - {""} <= set(known), command


def run_command(command: str, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and output of a line; calls of onnxprune itself stay in this process, which is much quicker."""
    if command.startswith("pip install"):
        check_installation(command)
        return 0, ""
    capfd.readouterr()
    if command.startswith("onnxprune ") and not re.search(r"[|<>;&*$]", command):
        try:
            code = main(shlex.split(command)[1:])
        except SystemExit as stop:  # argparse leaves this way
            code = int(stop.code or 0)
        captured = capfd.readouterr()
        return code, captured.out + captured.err
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    shell = ["bash", "-ec", command]
    ran = subprocess.run(shell, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def run_block(block: Block, names: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    """Do what a block says, and compare what it promises."""
    if block.language == "python":
        exec(compile(block.text, "documentation", "exec"), names)
    for line in block.commands():
        for command in line.split(" && "):
            code, output = run_command(command.strip(), capfd)
            assert code == block.exit_code, (command, output)
            if block.exit_code:
                assert re.fullmatch(pattern(block.output()), output), output


def pattern(output: str) -> str:
    """What a command has to print: this, where a line of three dots stands for any lines."""
    return re.escape(output).replace(re.escape("...\n"), r"(?:.*\n)*")


def run_page(page: Path, capfd: pytest.CaptureFixture[str], *, slow: bool) -> None:
    """Run the blocks of a page in order in the present folder: later ones may use what earlier ones wrote."""
    found = blocks(page)
    for block in found:
        if block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}  # dataclasses look their module up
    for block in found:
        if not block.shown_only and not block.file and (slow or not block.slow):
            run_block(block, names, capfd)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", PAGES)
def test_page(page: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_page(page, capfd, slow=False)


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("page", SLOW)
def test_page_with_its_slow_parts(page: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_page(page, capfd, slow=True)


@pytest.mark.usefixtures("folder")
def test_commands_in_running_text(capfd: pytest.CaptureFixture[str]) -> None:
    """Calls between backquotes that name a model of this repository are commands, too."""
    found = {
        call: None
        for page in pages()
        for call in re.findall(r"(?<!`)`(onnxprune [^`\n]*models/[^`\n]*)`", page.read_text(encoding="utf-8"))
    }
    for call in found:
        code, output = run_command(call, capfd)
        assert code == 0, (call, output)


def test_nothing_is_left_out_without_a_reason() -> None:
    """Blocks with commands are written in a language that is run; what looks like a call is in one."""
    for page in pages():
        for block in blocks(page):
            if block.language not in ("sh", "console", "text", "python"):
                assert not re.search(r"^(\$ )?(onnxprune|pip|python) ", block.text, re.MULTILINE), (page, block.text)
            if block.language in ("console", "text") and not block.shown_only:
                assert not re.search(r"^(onnxprune|pip|python) [a-z]+ [^:]*$", block.text, re.MULTILINE), page


def test_the_two_main_commands_are_there() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install -e . && onnxprune optimize models/slim_cnn.onnx smaller.onnx" in readme
    assert 'pip install -e ".[test]" && python -m pytest' in readme
