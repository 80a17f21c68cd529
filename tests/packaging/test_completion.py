"""Shell completion: the scripts are what shells accept, and bash really completes with one."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from pathlib import Path

import pytest

from onnxprune.cli.completion import SHELLS, whole_parser
from onnxprune.cli.main import COMMANDS, main

BASH = shutil.which("bash")
COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_onnxprune
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user of bash would source."""
    path = tmp_path_factory.mktemp("completion") / "onnxprune.bash"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lines.append)
        assert main(["completion", "bash"]) == 0
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def completed(script: Path, folder: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    assert BASH
    ran = subprocess.run(
        [BASH, "--norc", "-c", COMPLETE, "bash", script, "onnxprune", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_what_the_shell_accepts(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    if program := shutil.which(shell):
        (tmp_path / "script").write_text(text, encoding="utf-8")
        ran = subprocess.run([program, "-n", tmp_path / "script"], capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.skipif(BASH is None, reason="no bash is installed")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("opt",), {"optimize"}),
        (("optimize", "--dom"), {"--domain"}),
        (("optimize", "mod"), {"model.onnx"}),
        (("optimize", "model.onnx", "out.onnx", "--goal", ""), {"latency", "size"}),
        (("optimize", "model.onnx", "out.onnx", "--skip", "freeze"), {"freeze_features"}),
        (("optimize", "model.onnx", "out.onnx", "--report", "mod"), {"model.onnx"}),
        (("regions", "di"), {"diff"}),
        (("regions", "diff", "--mo"), {"--most"}),
        (("zoo", "fold"), {"folder"}),
        (("completion", ""), set(SHELLS)),
    ],
)
def test_bash_completes(script: Path, tmp_path: Path, words: tuple[str, ...], offered: set[str]) -> None:
    (tmp_path / "model.onnx").touch()
    (tmp_path / "folder").mkdir()
    assert completed(script, tmp_path, *words) == offered


def test_bash_offers_every_command(script: Path, tmp_path: Path) -> None:
    assert completed(script, tmp_path, "") == set(COMMANDS)


def test_no_argument_is_left_without_a_description() -> None:
    def check(parser: argparse.ArgumentParser) -> None:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for child in action.choices.values():
                    check(child)
            else:
                assert action.help not in (None, argparse.SUPPRESS), (parser.prog, action.dest)

    check(whole_parser())
