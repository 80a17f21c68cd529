"""``onnxprune completion SHELL``."""

from __future__ import annotations

import argparse
from importlib import import_module

SHELLS = ("bash", "zsh", "fish")
FILES = ("IN", "OUT", "A", "B", "FILE", "PICTURE", "LIB", "D")
"""Placeholders of arguments that may be files; so are those with an ending, such as ``R.json``."""
FOLDERS = ("DIR", "OUT_DIR")
POSITIONAL = {
    "IN": "the ONNX model to read",
    "OUT": "where to write the result",
    "DIR": "where the models are",
    "OUT_DIR": "where results and summaries go",
}
"""What help describes in a sentence, to save room."""
EXAMPLE = """example:
  onnxprune completion bash > ~/.local/share/bash-completion/completions/onnxprune
  onnxprune completion zsh  > a folder of $fpath/_onnxprune
  onnxprune completion fish > ~/.config/fish/completions/onnxprune.fish"""


def parser(prog: str) -> argparse.ArgumentParser:
    """Options of the command."""
    result = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} SHELL",
        description="Print a script that lets a shell complete commands, options, passes and files.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    return result


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    import shtab  # noqa: PLC0415 # quick --help

    print(shtab.complete(whole_parser(), options.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """All commands as one parser; the command line itself imports the one that is run, and never builds this."""
    from onnxprune.cli.main import COMMANDS  # noqa: PLC0415 # it imports this module by name

    result = argparse.ArgumentParser(prog="onnxprune")
    commands = result.add_subparsers()
    for name, purpose in COMMANDS.items():
        module = import_module(f"onnxprune.cli.{name}")
        parents = [module.parser(f"onnxprune {name}")]
        if parts := getattr(module, "PARTS", ()):
            parents.insert(0, _parts(name, parts))
        command = commands.add_parser(name, parents=parents, add_help=False, help=purpose)
        _describe_values(command)
    return result


def _parts(command: str, names: tuple[str, ...]) -> argparse.ArgumentParser:
    """A parser that knows nothing but the words after ``command`` that are commands of their own."""
    result = argparse.ArgumentParser(prog=f"onnxprune {command}", add_help=False)
    commands = result.add_subparsers()
    for name in names:
        parent = import_module(f"onnxprune.cli.{command}_{name}").parser(f"onnxprune {command} {name}")
        _describe_values(commands.add_parser(name, parents=[parent], add_help=False, help=parent.description))
    return result


def _describe_values(parser: argparse.ArgumentParser) -> None:
    """Say which arguments take files, folders and names of passes, in the way shtab reads it."""
    import shtab  # noqa: PLC0415 # quick --help

    from onnxprune.pass_registry import available  # noqa: PLC0415

    for action in parser._actions:  # argparse has no public list of arguments
        words = action.metavar if isinstance(action.metavar, tuple) else (action.metavar or "",)
        if words[0] == "PASS":
            action.choices = list(available())
        elif words[0] in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined] # shtab looks for it
        elif words[0] in FILES or "." in words[0]:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        if action.help == argparse.SUPPRESS:
            action.help = POSITIONAL[words[0]]
