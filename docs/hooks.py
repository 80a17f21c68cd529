"""Hooks of MkDocs: pages made from the code, pages of the repository outside this folder, tables taken from them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from reference import reference_pages

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "onnxprune/report/report.schema.json": "schemas/report.schema.json",
    "onnxprune/verify/certificate.schema.json": "schemas/certificate.schema.json",
    **{path.relative_to(ROOT).as_posix(): f"models/{path.name}" for path in sorted((ROOT / "models").glob("*.md"))},
    **{
        path.relative_to(ROOT).as_posix(): f"benchmarks/{path.parent.name}.md"
        for path in sorted((ROOT / "tests" / "benchmarks").glob("*/README.md"))
    },
    **{
        path.relative_to(ROOT).as_posix(): f"benchmarks/results/{path.parents[1].name}-{path.name}"
        for path in sorted((ROOT / "tests" / "benchmarks").glob("*/results/*.md"))
    },
}
"""Files of the repository that are pages of the site, too, and where."""
INSIDE = {site: source for source, site in OUTSIDE.items()}
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)]*)?\)")
TABLES = re.compile(r'^<!-- tables: (\S+) "([^"]+)" -->$', re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in this folder."""
    for name, text in reference_pages().items():
        files.append(File.generated(config, name, content=text))
    for source, site in OUTSIDE.items():
        files.append(File.generated(config, site, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put tables in, and turn links to files of the repository into links to pages of the site."""
    site = page.file.src_uri
    if site.startswith("reference/"):
        return markdown
    markdown = TABLES.sub(lambda match: tables(match[1], match[2]), markdown)
    here = posixpath.dirname(INSIDE.get(site, f"docs/{site}"))
    return LINK.sub(lambda match: _link(match[1], match[2], match[3] or "", here, site), markdown)


def _link(text: str, link: str, anchor: str, here: str, site: str) -> str:
    """A link of the site; where the repository's file is no page, its name."""
    wanted = posixpath.normpath(posixpath.join(here, link))
    if wanted in OUTSIDE:
        target = OUTSIDE[wanted]
    elif wanted.startswith("docs/"):
        target = wanted.removeprefix("docs/")
    elif (ROOT / wanted).exists():
        return f"{text} (`{wanted}`)"
    else:
        raise PluginError(f"{site} links to {wanted}, which does not exist.")
    return f"[{text}]({posixpath.relpath(target, posixpath.dirname(site) or '.')}{anchor})"


def tables(source: str, heading: str) -> str:
    """All tables below a heading of a page of the repository."""
    text = (ROOT / source).read_text(encoding="utf-8")
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    found = re.findall(r"(?:^\|.*\n)+", section[1] + "\n", re.MULTILINE) if section else []
    if not found:
        raise PluginError(f"{source} has no table below '{heading}'.")
    return "\n".join(found)
