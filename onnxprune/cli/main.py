"""``onnxprune``: commands, exit codes, and errors of one or two lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

COMMANDS = {
    "optimize": "write a smaller model that does the same",
    "inspect": "say what could go per layer, and why the rest stays",
    "passes": "list the rewrite passes",
    "operators": "list the operators that are understood",
}
DESCRIPTION = "Hand it an ONNX model, get back a smaller one that does the same."
EXAMPLE = "example:\n  onnxprune optimize model.onnx smaller.onnx --domain 0:1"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 1 failed, 2 bad input, 130 interrupted)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if not given or given[0] not in COMMANDS:
        parser.parse_args(given or ["--help"])
        return 2  # not reached: argparse leaves with --help, --version or an error
    command = import_module(f"onnxprune.cli.{given[0]}")
    options = command.parser(f"onnxprune {given[0]}").parse_args(given[1:])
    return _guarded(command.run, options)


def _parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="onnxprune",
        usage="onnxprune COMMAND ... (COMMAND --help for its options)",
        description=f"{DESCRIPTION}\n\ncommands:\n{lines}",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"onnxprune {version('onnxprune')}")
    return parser


def _guarded(run: object, options: argparse.Namespace) -> int:
    from onnxprune.errors import OnnxpruneError  # noqa: PLC0415 # keeps --help quick

    try:
        return int(run(options))  # type: ignore[operator] # each command module has run(options)
    except OnnxpruneError as error:
        print(f"onnxprune: {error.what}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("onnxprune: interrupted; nothing was written.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
