"""Fenced blocks of Markdown pages, and what the comments in front of them say.

A comment on a line of its own speaks about the next block:

* ``<!-- not run: REASON -->``: it is shown only.
* ``<!-- slow -->``: it runs among the slow tests.
* ``<!-- exits 2 -->``: its command fails with that code and prints exactly what is shown.
* ``<!-- file: NAME -->``: it is the content of a file that later blocks read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(?:^<!-- (?P<note>[^\n]*) -->\n+)?^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.M | re.S)
NOTE = re.compile(r"not run: .+|slow|exits \d+|file: \S+")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the comment before it."""

    language: str
    text: str
    note: str

    @property
    def shown_only(self) -> bool:
        """Whether nothing is to be done with it."""
        return self.note.startswith("not run")

    @property
    def slow(self) -> bool:
        """Whether it takes too long for every run of the tests."""
        return self.note == "slow"

    @property
    def file(self) -> str:
        """Name of the file whose content it is, or nothing."""
        return self.note.removeprefix("file: ") if self.note.startswith("file: ") else ""

    @property
    def exit_code(self) -> int:
        """What its commands return."""
        return int(self.note.removeprefix("exits ")) if self.note.startswith("exits ") else 0

    def commands(self) -> list[str]:
        """The commands in it, one a line; of a terminal's text, what follows a dollar sign."""
        if self.language == "sh":
            lines = self.text.replace("\\\n", " ").splitlines()
            return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]
        if self.language in ("console", "text"):
            return [line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ ")]
        return []

    def output(self) -> str:
        """What it says a command prints."""
        return "".join(line + "\n" for line in self.text.splitlines() if not line.startswith("$ "))


def pages() -> list[Path]:
    """Every page that a reader may take commands from."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    found = []
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        note = match["note"] if match["note"] and NOTE.fullmatch(match["note"]) else ""
        found.append(Block(match["language"], match["text"], note))
    return found
