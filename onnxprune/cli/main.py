"""``onnxprune``: commands, exit codes, and errors of one or two lines."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

COMMANDS = {
    "optimize": "write a smaller model that does the same",
    "prune": "remove weights or units that nearly cancel, and refit the rest to data",
    "verify": "check a certificate, or compare two models",
    "inspect": "say what could go per layer, and why the rest stays",
    "regions": "count, bound, compare or draw the linear regions",
    "zoo": "optimize every model of a folder",
    "passes": "list the rewrite passes",
    "operators": "list the operators that are understood",
    "completion": "print a script that lets a shell complete commands",
}
DESCRIPTION = "Hand it an ONNX model, get back a smaller one that does the same."
EXAMPLE = "example:\n  onnxprune optimize model.onnx smaller.onnx --domain 0:1"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code (0 done, 1 failed, 2 bad input, 130 interrupted)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        return _failed("no command given.", f"Commands: {', '.join(COMMANDS)}; onnxprune --help says more.", 2)
    if given[0] not in COMMANDS:
        if not given[0].startswith("-"):
            return _unknown(given)
        _parser().parse_args(given)
        return 2  # not reached: argparse leaves with --help, --version or an error
    name, rest = given[0], given[1:]
    command = import_module(f"onnxprune.cli.{name}")
    if rest and rest[0] in getattr(command, "PARTS", ()):
        name, rest = f"{name} {rest[0]}", rest[1:]
        command = import_module(f"onnxprune.cli.{name.replace(' ', '_')}")
    options = command.parser(f"onnxprune {name}").parse_args(_joined(rest))
    return _guarded(command.run, options)


def _unknown(given: Sequence[str]) -> int:
    """Refuse a first word that is no command."""
    from difflib import get_close_matches  # noqa: PLC0415 # rarely needed

    word = given[0]
    if word.endswith(".onnx"):
        return _failed(f"'{word}' is a model, not a command.", f"onnxprune optimize {' '.join(given)}", 2)
    near = get_close_matches(word, COMMANDS, 1)
    hint = f"Did you mean '{near[0]}'?" if near else f"Commands: {', '.join(COMMANDS)}."
    return _failed(f"Unknown command '{word}'.", hint, 2)


def _joined(arguments: Sequence[str]) -> list[str]:
    """``--domain -1:1`` as ``--domain=-1:1``: argparse takes a value that begins with a minus for an option."""
    result: list[str] = []
    for argument in arguments:
        value = re.match(r"-(\d|\.\d|inf)", argument, re.IGNORECASE)
        if value and result and re.fullmatch(r"--[a-z-]+", result[-1]):
            result[-1] += f"={argument}"
        else:
            result.append(argument)
    return result


def _parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:<11} {text}" for name, text in COMMANDS.items())
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
        code = int(run(options))  # type: ignore[operator] # each command module has run(options)
        sys.stdout.flush()
    except OnnxpruneError as error:
        return _failed(error.what, error.hint, error.exit_code)
    except KeyboardInterrupt:
        return _failed("interrupted; nothing was written.", "", 130)
    except BrokenPipeError:
        _drop_output()  # the reader, such as head, has seen enough
        return 1
    except OSError as error:
        _drop_output()
        return _failed(f"{error}.", "The operating system refused; free some space, or check the paths.", 1)
    except MemoryError:
        return _failed("not enough memory.", "Use a machine with more of it.", 1)
    return code


def _failed(what: str, hint: str, code: int) -> int:
    print(f"onnxprune: {what}", file=sys.stderr)
    if hint:
        print(f"  {hint}", file=sys.stderr)
    return code


def _drop_output() -> None:
    """Keep Python from flushing to a standard output that is gone, once more, when it ends."""
    with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
