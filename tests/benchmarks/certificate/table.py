"""The rows as a table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

HEAD = (
    "model",
    "domain",
    "verifies",
    "removed",
    "with `--trust certified`",
    "proving s",
    "making s",
    "checking s",
    "size / model",
    "bounds rest on",
    "certified",
    "robust in float32",
    "`--exact`",
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line per model and domain, and the totals."""
    rows = sorted(rows, key=lambda row: (row["group"], row["model"], row["domain"]))
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    return "\n".join([*lines, *(_line(_cells(row)) for row in rows), "", *_totals(rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: dict[str, Any]) -> list[str]:
    name = PurePosixPath(row["model"]).stem
    domain = row["domain"] if len(row["domain"]) < 25 else f"{row['domain'][:24]}…"
    if "checking_s" not in row or not row["verifies"]:
        return [name, domain, f"no: {row['reason'].splitlines()[0]}", *[""] * (len(HEAD) - 3)]
    used = ", ".join(f"{name} {count}" for name, count in row["methods"].items())
    exact = "" if "exact_agrees" not in row else ("agrees" if row["exact_agrees"] else f"no: {row['exact_reason']}")
    return [
        name,
        domain,
        "yes",
        str(row["removed"]),
        "stopped" if row["certified_removed"] is None else str(row["certified_removed"]),
        f"{row['proving_s']:.1f}",
        f"{row['making_s']:.1f}",
        f"{row['checking_s']:.1f}",
        f"{row['certificate_bytes'] / row['model_bytes']:.2f}",
        used or "-",
        share(row),
        "-" if row["robust"] is None else f"{row['robust'][0]} of {row['robust'][1]}",
        exact and (f"{exact}, {row['exact_s']:.0f} s" if row["exact_agrees"] else exact),
    ]


def share(row: dict[str, Any]) -> str:
    """How many of the used states rest on evidence and not on a solver's word."""
    total = sum(row["methods"].values())
    word = sum(count for name, count in row["methods"].items() if "solver" in name)
    return "-" if not total else f"{(total - word) / total:.0%}"


def _totals(rows: Sequence[dict[str, Any]]) -> list[str]:
    found = []
    for group in dict.fromkeys(row["group"] for row in rows):
        chosen = [row for row in rows if row["group"] == group]
        good = [row for row in chosen if row["verifies"]]
        exact = [row for row in good if "exact_agrees" in row]
        both = [row for row in good if row["certified_removed"] is not None]
        removed, certified = (sum(row[key] for row in both) for key in ("removed", "certified_removed"))
        found.append(
            f"{group}: {len(good)} of {len(chosen)} verify; "
            f"`--exact` agrees on {sum(row['exact_agrees'] for row in exact)} of {len(exact)}; "
            f"checking takes longer than proving on {sum(r['checking_s'] > r['proving_s'] for r in good)}, "
            f"{max((row['checking_s'] for row in good), default=0):.1f} s at most; "
            f"certificates are {max((row['certificate_bytes'] / row['model_bytes'] for row in good), default=0):.2f} "
            f"of the model's size at most; "
            f"`--trust certified` removes {certified} of {removed} units."
        )
    return found
