"""The tools compared: where each lives, and how one is run with a time limit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

RUNNER = Path(__file__).with_name("runner.py")


@dataclass(frozen=True)
class Tool:
    """One column of the comparison.

    ``requirement`` is what pip installs into the tool's own environment; empty: it lives in the benchmark's.
    """

    name: str
    module: str
    requirement: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether this is onnxprune in one of its settings."""
        return self.module == "onnxprune"


TOOLS = (
    Tool("onnxsim", "onnxsim", "onnxsim[onnxruntime]==0.8.1"),  # without the extra it fails at opset < 12
    Tool("onnxslim", "onnxslim", "onnxslim==0.1.98"),
    Tool("onnxoptimizer", "onnxoptimizer", "onnxoptimizer==0.4.2"),
    Tool("onnxscript", "onnxscript", "onnxscript==0.7.2"),
    Tool("ort-basic", "onnxruntime"),
    Tool("onnxprune", "onnxprune"),
    Tool("onnxprune-size", "onnxprune", arguments=("--align", "1", "--goal", "size")),
)


@dataclass(frozen=True)
class Outcome:
    """What a run reported; ``status`` is ok, crashed or timeout. None: not known, or without meaning here."""

    status: str
    seconds: float | None = None
    peak_mb: float | None = None
    mutated: bool | None = None
    version: str = ""
    message: str = ""


def python_of(tool: Tool, venvs: Path) -> Path:
    """The interpreter of a tool's environment, which is created on first use.

    Raises:
        subprocess.CalledProcessError: The environment cannot be made.
    """
    if not tool.requirement:
        return Path(sys.executable)
    folder = venvs / tool.name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "requirement.txt"
    if not stamp.exists() or stamp.read_text() != tool.requirement:
        print(f"installing {tool.requirement}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            tool.requirement,
        ]
        subprocess.run(pip, check=True)
        stamp.write_text(tool.requirement)
    return python


def run(tool: Tool, python: Path, source: Path, target: Path, *, timeout: float, extra: Sequence[str] = ()) -> Outcome:
    """Run a tool on a model in a process of its own, in the folder of ``target``."""
    stats_path = target.with_suffix(".json")
    arguments = [*tool.arguments, *extra] if tool.is_ours else []
    paths = map(str, (source, target, stats_path))
    command = [str(python), "-I", str(RUNNER), tool.module, *paths, *arguments]
    process = subprocess.Popen(
        command,
        cwd=target.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _stop(process)
        return Outcome("timeout", message=f"no result after {timeout:g} s")
    stats = json.loads(stats_path.read_text()) if stats_path.exists() else {}
    version = stats.get("version", "")
    if process.returncode or not target.exists():
        message = stats.get("error") or _last_words(process.returncode, errors)
        return Outcome("crashed", version=version, message=clean(message))
    return Outcome("ok", stats["seconds"], stats["peak_mb"], stats.get("mutated"), version)


def _stop(process: subprocess.Popen[str]) -> None:
    """End a process together with the workers it started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate()


def _last_words(code: int, errors: str) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return " ".join(lines[-2:]) or f"exit code {code}, nothing written"


def clean(message: str) -> str:
    """One line for a table, without the paths of this machine."""
    one_line = " ".join(message.split())
    return re.sub(r"(?:/[^\s/:'\"]+)+/", "", one_line)[:200]
